-- Answers to requests for bundles, kept a short while: the same request gets the same answer and takes nothing again.
CREATE TABLE taken_answer (
    request BLOB PRIMARY KEY,            -- 16 bytes of a hash over caller, target and request id
    at_ms   INTEGER NOT NULL,
    answer  BLOB NOT NULL
) STRICT;
CREATE INDEX taken_answer_age ON taken_answer (at_ms);

-- When the budget of one-time prekeys is full again (kind 1 alone).
ALTER TABLE prekey_state ADD COLUMN full_ms INTEGER NOT NULL DEFAULT 0;
