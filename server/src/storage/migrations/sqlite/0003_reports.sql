-- How often an account was reported as a sender of spam, by day. Who reported it stands nowhere.
CREATE TABLE report (
    account INTEGER NOT NULL REFERENCES account (id),
    day     INTEGER NOT NULL,            -- since 1970, in UTC
    count   INTEGER NOT NULL,
    PRIMARY KEY (account, day)
) STRICT;

-- Report tokens that were used, so that none counts twice. A number says nothing of the account: that was in the token.
CREATE TABLE report_token (
    id           BLOB PRIMARY KEY,       -- 16 bytes
    expires_day  INTEGER NOT NULL        -- the token is worth nothing from then on, and the row goes
) STRICT;
CREATE INDEX report_token_age ON report_token (expires_day);
CREATE INDEX report_age ON report (day);
