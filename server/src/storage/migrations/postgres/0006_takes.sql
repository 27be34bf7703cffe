-- Answers to requests for bundles, kept a short while: the same request gets the same answer and takes nothing again.
CREATE TABLE taken_answer (
    request uuid PRIMARY KEY,            -- 16 bytes of a hash over caller, target and request id
    at_ms   bigint NOT NULL,
    answer  bytea NOT NULL
);
CREATE INDEX taken_answer_age ON taken_answer (at_ms);
-- Keys do not compress.
ALTER TABLE taken_answer ALTER COLUMN answer SET STORAGE EXTERNAL;

-- When the budget of one-time prekeys is full again (kind 1 alone).
ALTER TABLE prekey_state ADD COLUMN full_ms bigint NOT NULL DEFAULT 0;
