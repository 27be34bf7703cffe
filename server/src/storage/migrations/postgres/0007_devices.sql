-- Names of devices, encrypted by these, and the days on which they were made, since 1970, in UTC (0: not known).
ALTER TABLE device ADD COLUMN name bytea NOT NULL DEFAULT '', ADD COLUMN made_day bigint NOT NULL DEFAULT 0;

-- Leave to link a device, for a short while. An account has one that is open.
CREATE TABLE device_link (
    id           bytea PRIMARY KEY,      -- 16 bytes
    account      bigint NOT NULL REFERENCES account (id),
    token_hash   bytea NOT NULL UNIQUE,  -- SHA-256 of the linking token
    expires_ms   bigint NOT NULL,
    device       bigint REFERENCES device (id), -- that was made with it
    registration bytea                   -- SHA-256 of what that registered with: the same again is a repetition
);
CREATE INDEX device_link_account ON device_link (account);
CREATE INDEX device_link_device ON device_link (device);
CREATE INDEX device_link_age ON device_link (expires_ms);

-- Kept answers end with the devices of which they tell: whose these are. A node of the version before writes none.
ALTER TABLE taken_answer ADD COLUMN account bigint NOT NULL DEFAULT 0;
ALTER TABLE taken_answer DROP CONSTRAINT taken_answer_pkey, ADD PRIMARY KEY (account, request);
