-- The profile's database, version 4: reports of spam.

-- Tokens of ours that nobody has got yet.
CREATE TABLE report_token (
  id INTEGER PRIMARY KEY,
  token BLOB NOT NULL,
  expires_ms INTEGER NOT NULL
) STRICT;

-- given: goes with what we send to the account until it answers. received: the latest that came from it.
CREATE TABLE report_peer (
  account BLOB PRIMARY KEY,
  given BLOB,
  received BLOB
) STRICT;
