-- The profile's database, version 5: devices of ours that we have perhaps not heard of.

-- Another device may come, or have come, up to this time, until a list from after it shows who is there. NULL: there is no
-- reason to think so.
ALTER TABLE profile ADD COLUMN unheard_until_ms INTEGER;
