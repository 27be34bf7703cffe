//! What the disk of the folder can do: who accepts faster than it syncs does not sync.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::broker::Outcome;

const WRITES: usize = 200;
/// Of a file system in memory.
const IN_MEMORY: [i64; 2] = [0x0102_1994, 0x8584_58f6];

/// The middle of the times that 4 KiB appended to a file take to be on disk.
pub(crate) fn sync_time(folder: &Path) -> Outcome<Duration> {
    if IN_MEMORY.contains(&rustix::fs::statfs(folder)?.f_type) {
        let folder = folder.display();
        return Err(format!("{folder} is in memory: set TMPDIR to a folder on disk").into());
    }
    let mut file = File::create(folder.join("sync"))?;
    let mut times = Vec::with_capacity(WRITES);
    for _ in 0..WRITES {
        let begun = Instant::now();
        file.write_all(&[1; 4096])?;
        file.sync_data()?;
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    Ok(times.get(WRITES / 2).copied().unwrap_or_default())
}
