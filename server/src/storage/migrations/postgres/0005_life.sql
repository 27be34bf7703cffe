-- Envelopes whose senders want them to end sooner than others.
ALTER TABLE envelope ADD COLUMN short boolean NOT NULL DEFAULT false;
