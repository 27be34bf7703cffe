-- Names of devices, encrypted by these, and the days on which they were made, since 1970, in UTC (0: not known).
ALTER TABLE device ADD COLUMN name BLOB NOT NULL DEFAULT x'';
ALTER TABLE device ADD COLUMN made_day INTEGER NOT NULL DEFAULT 0;

-- The largest number of a device that is gone: none that comes later has it, nor the mailbox.
CREATE TABLE device_mark (
    last INTEGER NOT NULL
) STRICT;
INSERT INTO device_mark (last) VALUES (0);

-- Leave to link a device, for a short while. An account has one that is open.
CREATE TABLE device_link (
    id           BLOB PRIMARY KEY,       -- 16 bytes
    account      INTEGER NOT NULL REFERENCES account (id),
    token_hash   BLOB NOT NULL UNIQUE,   -- SHA-256 of the linking token
    expires_ms   INTEGER NOT NULL,
    device       INTEGER REFERENCES device (id), -- that was made with it
    registration BLOB                    -- SHA-256 of what that registered with: the same again is a repetition
) STRICT;
CREATE INDEX device_link_account ON device_link (account);
CREATE INDEX device_link_age ON device_link (expires_ms);

-- Kept answers end with the devices of which they tell. Those that are there have less than a minute left, and go.
DROP TABLE taken_answer;
CREATE TABLE taken_answer (
    account INTEGER NOT NULL,            -- whose devices it tells of
    request BLOB NOT NULL,               -- 16 bytes of a hash over caller, target and request id
    at_ms   INTEGER NOT NULL,
    answer  BLOB NOT NULL,
    PRIMARY KEY (account, request)
) STRICT;
CREATE INDEX taken_answer_age ON taken_answer (at_ms);
