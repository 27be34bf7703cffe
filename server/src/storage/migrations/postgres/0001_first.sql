-- The first schema, in the shape of that for SQLite. Plain SQL: no extension, no function, no trigger.
-- Nothing here names the sender of an envelope.

CREATE TABLE account (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    aci          bytea NOT NULL UNIQUE,  -- 16 bytes
    username     text NOT NULL UNIQUE,
    identity_key bytea NOT NULL,         -- 33 bytes
    access_hash  bytea NOT NULL          -- SHA-256 of the access key
);

CREATE TABLE device (
    id              bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, -- also the number of its mailbox
    account         bigint NOT NULL REFERENCES account (id),
    device          smallint NOT NULL,   -- 1..127
    registration_id integer NOT NULL,
    token_hash      bytea NOT NULL,      -- SHA-256 of the token
    registered_keys bytea NOT NULL,      -- digest of the keys it registered with
    last_upload     bytea NOT NULL,      -- digest of the latest upload: the same again is a repetition
    UNIQUE (account, device)
);

-- kind: 1 elliptic curve, 2 KEM
CREATE TABLE prekey_once (
    device    bigint NOT NULL REFERENCES device (id),
    kind      smallint NOT NULL,
    id        bigint NOT NULL,
    key       bytea NOT NULL,
    signature bytea NOT NULL,            -- empty for kind 1
    PRIMARY KEY (device, kind, id)
);

-- The signed prekey (kind 1) and the last-resort KEM prekey (kind 2).
CREATE TABLE prekey_fixed (
    device    bigint NOT NULL REFERENCES device (id),
    kind      smallint NOT NULL,
    id        bigint NOT NULL,
    key       bytea NOT NULL,
    signature bytea NOT NULL,
    PRIMARY KEY (device, kind)
);

-- Whoever takes or uploads one-time prekeys locks the row first.
CREATE TABLE prekey_state (
    device           bigint NOT NULL REFERENCES device (id),
    kind             smallint NOT NULL,
    high_water       bigint NOT NULL DEFAULT 0, -- largest one-time id ever taken in
    remaining        bigint NOT NULL DEFAULT 0,
    last_resort_uses bigint NOT NULL DEFAULT 0, -- kind 2 alone
    PRIMARY KEY (device, kind)
) WITH (fillfactor = 50);

-- Half the page is left free: the row changes with every envelope, and then stays in its page.
CREATE TABLE mailbox (
    device   bigint PRIMARY KEY REFERENCES device (id),
    next_seq bigint NOT NULL DEFAULT 1,
    count    bigint NOT NULL DEFAULT 0,
    bytes    bigint NOT NULL DEFAULT 0,
    dropped  bigint NOT NULL DEFAULT 0,  -- lost unread, and the device has not been told yet
    node     bigint,                     -- where the device is connected, if it is
    epoch    bigint NOT NULL DEFAULT 0,  -- counts connections: the latest one has the mailbox
    generation bigint NOT NULL DEFAULT 0 -- counts registrations of the account's devices
) WITH (fillfactor = 50);

CREATE TABLE envelope (
    mailbox     bigint NOT NULL,
    seq         bigint NOT NULL,
    received_ms bigint NOT NULL,
    expires_ms  bigint NOT NULL,
    size        bigint NOT NULL,         -- of the whole envelope, in bytes
    payload     bigint,                  -- the end of the envelope, if it shares that with others
    body        bytea NOT NULL,          -- all of it, or what stands before the payload
    PRIMARY KEY (mailbox, seq, expires_ms) -- (mailbox, seq) alone is unique, as the mailbox numbers them
) PARTITION BY RANGE (expires_ms);

-- The partitions, envelope_<id>; the server makes them and takes them away.
CREATE TABLE envelope_part (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    from_ms    bigint NOT NULL,          -- first expires_ms
    to_ms      bigint NOT NULL,          -- first one after it
    cleared_to bigint                    -- detached; the counts of mailboxes up to this one are right again
);

-- What the envelopes of one submission for many recipients have in common.
CREATE TABLE payload (
    id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    hash bytea NOT NULL UNIQUE,          -- SHA-256 of the body
    refs bigint NOT NULL,                -- envelopes that end with it; the row goes with the last of them
    body bytea NOT NULL
);

-- Sealed bodies do not compress.
ALTER TABLE envelope ALTER COLUMN body SET STORAGE EXTERNAL;
ALTER TABLE payload ALTER COLUMN body SET STORAGE EXTERNAL;

-- Submissions that were accepted: 16 bytes of SHA-256(submission id || recipient).
CREATE TABLE submission (
    key   uuid PRIMARY KEY,              -- compared faster than bytea
    at_ms bigint NOT NULL
);
CREATE INDEX submission_age ON submission (at_ms);
