-- How often an account was reported as a sender of spam, by day. Who reported it stands nowhere.
CREATE TABLE report (
    account bigint NOT NULL REFERENCES account (id),
    day     bigint NOT NULL,             -- since 1970, in UTC
    count   bigint NOT NULL,
    PRIMARY KEY (account, day)
);

-- Report tokens that were used, so that none counts twice. A number says nothing of the account: that was in the token.
CREATE TABLE report_token (
    id          bytea PRIMARY KEY,       -- 16 bytes
    expires_day bigint NOT NULL          -- the token is worth nothing from then on, and the row goes
);
CREATE INDEX report_token_age ON report_token (expires_day);
CREATE INDEX report_age ON report (day);
