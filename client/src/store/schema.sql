-- The profile's database, version 1. Keys, sessions and texts are secrets: the folder is for its owner alone.
-- Accounts are the 16 bytes of an ACI. Times are milliseconds since 1970.

-- Bumped by every transaction: whoever finds another number than it left has a changed database before it.
-- place: which file this is. In another one it is a copy, and its sessions may have gone on elsewhere.
CREATE TABLE generation (
  only INTEGER PRIMARY KEY CHECK (only = 1),
  number INTEGER NOT NULL,
  place TEXT
) STRICT;
INSERT INTO generation VALUES (1, 0, NULL);

-- Who we are. The columns of the second line are there when the server has answered the registration.
CREATE TABLE profile (
  only INTEGER PRIMARY KEY CHECK (only = 1),
  server TEXT NOT NULL, name TEXT NOT NULL,
  trust_root BLOB, account BLOB, device INTEGER, token BLOB,
  identity BLOB NOT NULL, registration_id INTEGER NOT NULL, access_key BLOB NOT NULL,
  certificate BLOB,
  last_sent_ms INTEGER NOT NULL DEFAULT 0,
  next_one_time INTEGER NOT NULL DEFAULT 1,
  next_kem INTEGER NOT NULL DEFAULT 1,
  next_signed INTEGER NOT NULL DEFAULT 1
) STRICT;

-- state: 0 to be uploaded, 1 uploaded.
CREATE TABLE one_time_prekey (
  id INTEGER PRIMARY KEY,
  private BLOB NOT NULL,
  state INTEGER NOT NULL DEFAULT 0
) STRICT;

-- The newest one is the published one; the others stay for late messages.
CREATE TABLE signed_prekey (
  id INTEGER PRIMARY KEY,
  private BLOB NOT NULL, signature BLOB NOT NULL, created_ms INTEGER NOT NULL
) STRICT;

-- use: 0 one-time, 1 last resort.
CREATE TABLE kem_prekey (
  id INTEGER PRIMARY KEY,
  secret BLOB NOT NULL, signature BLOB NOT NULL, created_ms INTEGER NOT NULL,
  use INTEGER NOT NULL,
  state INTEGER NOT NULL DEFAULT 0
) STRICT;

-- What a last-resort key has seen: it opens no session twice.
CREATE TABLE base_key_seen (
  kem INTEGER NOT NULL REFERENCES kem_prekey (id) ON DELETE CASCADE,
  signed INTEGER NOT NULL,
  base_key BLOB NOT NULL,
  PRIMARY KEY (kem, signed, base_key)
) STRICT, WITHOUT ROWID;

-- offered: an identity key that is not the known one. decision: 0 none is needed, 1 waited for, 2 rejected.
-- verified: whether a person has compared the safety number of the known one.
CREATE TABLE peer (
  account BLOB PRIMARY KEY,
  username TEXT, claimed_name TEXT,
  identity BLOB, offered BLOB,
  decision INTEGER NOT NULL DEFAULT 0,
  access_key BLOB,
  verified INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE TABLE device (
  account BLOB NOT NULL REFERENCES peer (account),
  device INTEGER NOT NULL,
  registration_id INTEGER NOT NULL,
  session BLOB NOT NULL,
  sent_stream INTEGER NOT NULL DEFAULT 0,
  sent INTEGER NOT NULL DEFAULT 0,
  next_stream INTEGER NOT NULL DEFAULT 0,
  next INTEGER NOT NULL DEFAULT 1,
  PRIMARY KEY (account, device)
) STRICT, WITHOUT ROWID;

-- A message on its way out, and afterwards for a while, so that it can be sent again.
-- state: 0 not encrypted for every device, 1 encrypted, 2 refused, 3 at the relay: the content is sealed.
-- form: 0 numbered content, 1 content outside the order, 2 plaintext for one device, 3 numbered content that the
-- app does not know of, 4 a message to a group, whose ciphertext has the device 0, 5 content for now or never.
-- chat: the group. device: the one that it is for, if not for all; resent: how often it was taken up again.
-- receipt: 0 none, 1 delivered, 2 read.
CREATE TABLE outbox (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  account BLOB REFERENCES peer (account),
  chat BLOB REFERENCES chat_group (id),
  state INTEGER NOT NULL DEFAULT 0,
  form INTEGER NOT NULL DEFAULT 0,
  device INTEGER,
  submission_id BLOB,
  resent INTEGER NOT NULL DEFAULT 0,
  sent_ms INTEGER NOT NULL DEFAULT 0,
  timestamp_ms INTEGER NOT NULL DEFAULT 0,
  receipt INTEGER NOT NULL DEFAULT 0,
  content BLOB NOT NULL
) STRICT;
CREATE INDEX outbox_waiting ON outbox (account, id) WHERE state < 2;
CREATE INDEX outbox_log ON outbox (account, id) WHERE state = 3;
CREATE INDEX outbox_timestamp ON outbox (timestamp_ms) WHERE form IN (0, 4);

-- A message has one number for each device, however often it is encrypted. The body goes when it has left.
CREATE TABLE ciphertext (
  message INTEGER NOT NULL REFERENCES outbox (id) ON DELETE CASCADE,
  device INTEGER NOT NULL,
  registration_id INTEGER NOT NULL,
  kind INTEGER NOT NULL,
  stream INTEGER NOT NULL,
  sequence INTEGER NOT NULL,
  digest BLOB NOT NULL,
  session BLOB, -- base key of the session it was encrypted in
  body BLOB,
  PRIMARY KEY (message, device)
) STRICT, WITHOUT ROWID;

-- Whom a message to a group is for. state: 0 the upload for all, 1 it has left, 2 a message of its own instead.
CREATE TABLE recipient (
  message INTEGER NOT NULL REFERENCES outbox (id) ON DELETE CASCADE,
  account BLOB NOT NULL,
  state INTEGER NOT NULL,
  receipt INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (message, account)
) STRICT, WITHOUT ROWID;

-- standing: 0 we are in it, 1 not any more. key: ours, for what we write; gone when the members change.
CREATE TABLE chat_group (
  id BLOB PRIMARY KEY,
  name TEXT NOT NULL,
  revision INTEGER NOT NULL,
  standing INTEGER NOT NULL,
  key BLOB
) STRICT, WITHOUT ROWID;

-- told: whether our key was handed out to them.
CREATE TABLE group_member (
  id BLOB NOT NULL REFERENCES chat_group (id),
  account BLOB NOT NULL,
  told INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (id, account)
) STRICT, WITHOUT ROWID;

-- The keys with which others write to groups.
CREATE TABLE sender_key (
  position INTEGER PRIMARY KEY AUTOINCREMENT,
  account BLOB NOT NULL,
  device INTEGER NOT NULL,
  distribution BLOB NOT NULL,
  record BLOB NOT NULL,
  UNIQUE (account, device, distribution)
) STRICT;

-- Uploads of files that were begun: the same bytes are made again to go on.
CREATE TABLE upload (
  position INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL,
  size INTEGER NOT NULL, modified BLOB NOT NULL,
  keys BLOB NOT NULL, iv BLOB NOT NULL,
  upload TEXT NOT NULL, download TEXT NOT NULL
) STRICT;

-- Messages that the relay has taken. way: 0 by access key, 1 by token.
CREATE TABLE statistic (
  way INTEGER PRIMARY KEY,
  count INTEGER NOT NULL
) STRICT;

-- A message that the app may read, in the order of the ids, until the app acknowledges it.
CREATE TABLE inbox (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  account BLOB NOT NULL,
  device INTEGER NOT NULL,
  sent_ms INTEGER NOT NULL,
  missing INTEGER NOT NULL,
  content BLOB NOT NULL
) STRICT;

-- A message that waits for an earlier one.
CREATE TABLE early (
  account BLOB NOT NULL,
  device INTEGER NOT NULL,
  sequence INTEGER NOT NULL,
  since_ms INTEGER NOT NULL,
  sent_ms INTEGER NOT NULL,
  content BLOB,
  PRIMARY KEY (account, device, sequence)
) STRICT, WITHOUT ROWID;
CREATE INDEX early_since ON early (since_ms);

-- Numbers that are waited for no more: what comes late is news only if it has one of them.
CREATE TABLE missing (
  account BLOB NOT NULL,
  device INTEGER NOT NULL,
  sequence INTEGER NOT NULL,
  PRIMARY KEY (account, device, sequence)
) STRICT, WITHOUT ROWID;

-- What a device is asked for again, and what it asks for. want: 0 nothing, 1 what is missing, 2 what failed,
-- 3 what failed, asked in a new session. failed: digests of what failed; ratchet_key, failed_ms: of the first.
-- next_ms: not before; asked_ms, answered_ms: the last times.
CREATE TABLE retry (
  account BLOB NOT NULL,
  device INTEGER NOT NULL,
  want INTEGER NOT NULL DEFAULT 0,
  failed BLOB, ratchet_key BLOB, failed_ms INTEGER NOT NULL DEFAULT 0,
  attempts INTEGER NOT NULL DEFAULT 0,
  asked_ms INTEGER NOT NULL DEFAULT 0,
  next_ms INTEGER NOT NULL DEFAULT 0,
  answered_ms INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (account, device)
) STRICT, WITHOUT ROWID;
CREATE INDEX retry_due ON retry (next_ms) WHERE want > 0;

-- Envelopes that were dealt with, and digests of session messages that were read: either may come again.
CREATE TABLE seen (
  position INTEGER PRIMARY KEY AUTOINCREMENT,
  id BLOB NOT NULL UNIQUE
) STRICT;

-- Envelopes under an identity key that waits for a decision.
CREATE TABLE held (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  account BLOB NOT NULL,
  identity BLOB NOT NULL,
  server_ms INTEGER NOT NULL,
  content BLOB NOT NULL
) STRICT;
CREATE INDEX held_account ON held (account, id);

-- Envelopes that gave no message, counted. account is empty when the sender is not known.
CREATE TABLE failure (
  account BLOB NOT NULL,
  reason INTEGER NOT NULL,
  count INTEGER NOT NULL,
  last_ms INTEGER NOT NULL,
  PRIMARY KEY (account, reason)
) STRICT, WITHOUT ROWID;
