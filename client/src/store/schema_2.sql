-- The profile's database, version 2: where the device is woken.

-- registration: PushRegistration, or none when the server is to forget the one it has. secret: of the
-- subscription, if its keys are ours. told: whether the server has it so.
CREATE TABLE push (
  only INTEGER PRIMARY KEY CHECK (only = 1),
  registration BLOB,
  secret BLOB,
  told INTEGER NOT NULL
) STRICT;
