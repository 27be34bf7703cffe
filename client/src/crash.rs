//! For tests alone: a process that dies at the n-th boundary of a commit.

use std::sync::atomic::{AtomicI64, Ordering};

/// Boundaries left; negative: never.
static LEFT: AtomicI64 = AtomicI64::new(-1);

/// From now on the `n`-th boundary, counted from 0, ends the process at once.
pub(crate) fn arm(n: i64) {
    LEFT.store(n, Ordering::SeqCst);
}

/// A boundary: just before a commit, or just after it.
pub(crate) fn point() {
    if LEFT.load(Ordering::SeqCst) >= 0 && LEFT.fetch_sub(1, Ordering::SeqCst) == 0 {
        std::process::abort();
    }
}
