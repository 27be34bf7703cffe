-- The first schema. An account's public id and name stand in `account` alone; every other table
-- speaks of row numbers, so that storing an envelope never rewrites a page that holds an id.
-- Nothing here names the sender of an envelope.

CREATE TABLE account (
    id           INTEGER PRIMARY KEY,
    aci          BLOB NOT NULL UNIQUE,   -- 16 bytes
    username     TEXT NOT NULL UNIQUE,
    identity_key BLOB NOT NULL,          -- 33 bytes
    access_hash  BLOB NOT NULL           -- SHA-256 of the access key
) STRICT;

CREATE TABLE device (
    id              INTEGER PRIMARY KEY, -- also the number of its mailbox
    account         INTEGER NOT NULL REFERENCES account (id),
    device          INTEGER NOT NULL,    -- 1..127
    registration_id INTEGER NOT NULL,
    token_hash      BLOB NOT NULL,       -- SHA-256 of the token
    registered_keys BLOB NOT NULL,       -- digest of the keys it registered with
    last_upload     BLOB NOT NULL,       -- digest of the latest upload: the same again is a repetition
    UNIQUE (account, device)
) STRICT;

-- kind: 1 elliptic curve, 2 KEM
CREATE TABLE prekey_once (
    row       INTEGER PRIMARY KEY,
    device    INTEGER NOT NULL REFERENCES device (id),
    kind      INTEGER NOT NULL,
    id        INTEGER NOT NULL,
    key       BLOB NOT NULL,
    signature BLOB NOT NULL              -- empty for kind 1
) STRICT;
CREATE UNIQUE INDEX prekey_once_id ON prekey_once (device, kind, id);

-- The signed prekey (kind 1) and the last-resort KEM prekey (kind 2).
CREATE TABLE prekey_fixed (
    device    INTEGER NOT NULL REFERENCES device (id),
    kind      INTEGER NOT NULL,
    id        INTEGER NOT NULL,
    key       BLOB NOT NULL,
    signature BLOB NOT NULL,
    PRIMARY KEY (device, kind)
) STRICT;

CREATE TABLE prekey_state (
    device           INTEGER NOT NULL REFERENCES device (id),
    kind             INTEGER NOT NULL,
    high_water       INTEGER NOT NULL DEFAULT 0, -- largest one-time id ever taken in
    remaining        INTEGER NOT NULL DEFAULT 0,
    last_resort_uses INTEGER NOT NULL DEFAULT 0, -- kind 2 alone
    PRIMARY KEY (device, kind)
) STRICT;

CREATE TABLE mailbox (
    device   INTEGER PRIMARY KEY REFERENCES device (id),
    next_seq INTEGER NOT NULL DEFAULT 1,
    count    INTEGER NOT NULL DEFAULT 0,
    bytes    INTEGER NOT NULL DEFAULT 0,
    dropped  INTEGER NOT NULL DEFAULT 0  -- lost unread, and the device has not been told yet
) STRICT;

-- In order of arrival, so that one commit writes neighbouring pages.
CREATE TABLE envelope (
    id          INTEGER PRIMARY KEY,
    mailbox     INTEGER NOT NULL,
    seq         INTEGER NOT NULL,
    received_ms INTEGER NOT NULL,
    expires_ms  INTEGER NOT NULL,
    size        INTEGER NOT NULL,        -- of the whole envelope, in bytes
    payload     INTEGER,                 -- the end of the envelope, if it shares that with others
    body        BLOB NOT NULL            -- all of it, or what stands before the payload
) STRICT;
CREATE UNIQUE INDEX envelope_seq ON envelope (mailbox, seq);

-- What the envelopes of one submission for many recipients have in common.
CREATE TABLE payload (
    id   INTEGER PRIMARY KEY,
    hash BLOB NOT NULL UNIQUE,           -- SHA-256 of the body
    refs INTEGER NOT NULL,               -- envelopes that end with it; the row goes with the last of them
    body BLOB NOT NULL
) STRICT;

-- Submissions that were accepted, in order of arrival: a log without an index (sqlite/accepted.rs).
CREATE TABLE submission (
    id    INTEGER PRIMARY KEY,
    key   BLOB NOT NULL,                 -- 16 bytes of SHA-256(submission id || recipient)
    at_ms INTEGER NOT NULL
) STRICT;
