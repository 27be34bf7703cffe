-- Where a device is woken: its registration as it came. Nothing is known of it but whose device it is.
CREATE TABLE push (
    device       INTEGER PRIMARY KEY REFERENCES device (id),
    registration BLOB NOT NULL
) STRICT;
