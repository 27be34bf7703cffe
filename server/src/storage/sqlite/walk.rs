//! A slow walk through a table, a slice each time and then from its beginning: it comes to what is behind a row that stays.

use std::sync::atomic::{AtomicI64, Ordering};

/// How far it has come, by row number. In memory alone.
#[derive(Default)]
pub(super) struct Walk(AtomicI64);

impl Walk {
    /// The next slice is after this row.
    pub(super) fn after(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }

    /// The last row of the slice; none where the table has ended.
    pub(super) fn came_to(&self, row: Option<i64>) {
        self.0.store(row.unwrap_or(0), Ordering::Relaxed);
    }
}
