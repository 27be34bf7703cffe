//! A number beside the database that says how far the database had come. It is written after each commit and
//! not waited for: behind the database it says nothing, ahead of it that an earlier database was put back.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};

#[derive(Debug)]
pub(super) struct Witness(File);

impl Witness {
    pub(super) fn new(file: File) -> Self {
        Self(file)
    }

    /// The number that was written last; 0 when there is none.
    pub(super) fn number(&self) -> i64 {
        let mut bytes = [0; 8];
        let read = (&self.0).rewind().and_then(|()| (&self.0).read_exact(&mut bytes));
        read.map_or(0, |()| i64::from_le_bytes(bytes))
    }

    /// What cannot be written is not witnessed: the commit stands.
    pub(super) fn write(&self, number: i64) {
        let bytes = number.to_le_bytes();
        let at = (&self.0).seek(SeekFrom::Start(0));
        if let Err(error) = at.and_then(|_| (&self.0).write_all(&bytes)) {
            tracing::warn!(%error, "generation");
        }
    }
}
