-- The profile's database, version 5: groups in which things do not come in their order, devices of ours that are not heard of.

-- Another device may come, or have come, up to this time, until a list from after it shows who is there. NULL: there is no
-- reason to think so.
ALTER TABLE profile ADD COLUMN unheard_until_ms INTEGER;

-- What came for a group at a revision that has not come yet, from somebody who may be in it by then.
-- form: 0 a message, 1 what the group is, 2 its sender has left. content: of a message or change, encoded.
CREATE TABLE ahead (
  position INTEGER PRIMARY KEY AUTOINCREMENT,
  chat BLOB NOT NULL,
  revision INTEGER NOT NULL,
  form INTEGER NOT NULL,
  account BLOB NOT NULL,
  device INTEGER NOT NULL,
  since_ms INTEGER NOT NULL,
  sent_ms INTEGER NOT NULL,
  content BLOB NOT NULL
) STRICT;
CREATE INDEX ahead_chat ON ahead (chat, position);
CREATE INDEX ahead_account ON ahead (account, position);
CREATE INDEX ahead_since ON ahead (since_ms);

-- Devices that have asked for a message to a group and got it, each once.
CREATE TABLE answered (
  message INTEGER NOT NULL REFERENCES outbox (id) ON DELETE CASCADE,
  account BLOB NOT NULL,
  device INTEGER NOT NULL,
  PRIMARY KEY (message, account, device)
) STRICT, WITHOUT ROWID;

-- Who has made us a member, until we have written to the group, changed or left it.
ALTER TABLE chat_group ADD COLUMN inviter BLOB;
CREATE INDEX chat_group_inviter ON chat_group (inviter) WHERE inviter IS NOT NULL;
