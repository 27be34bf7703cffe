-- Envelopes whose senders want them to end sooner than others. Those that do not are in no index.
ALTER TABLE envelope ADD COLUMN short INTEGER; -- 1 or null
CREATE INDEX envelope_short ON envelope (expires_ms) WHERE short IS NOT NULL;
