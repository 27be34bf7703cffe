-- The profile's database, version 3: whom the profile trusts with the server's certificate.

-- DER, of authorities. None: those that the system trusts.
CREATE TABLE ca (certificate BLOB NOT NULL) STRICT;
