//! What all targets share: seeds written before the first run, and a bound on memory. What each target
//! asserts is in `checks/`, which `interop/tests/fuzz.rs` replays as ordinary tests.

pub mod checks;
pub use libfuzzer_sys;

use peak_alloc::PeakAlloc;
use std::path::Path;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// A target by the name of its check.
///
/// A target that only decodes may use this many bytes for each byte of its input, and
/// [`ALWAYS`]; the others keep parties and sessions, and have a fixed bound.
#[macro_export]
macro_rules! target {
    ($name:ident, bytes_per_byte = $factor:expr) => {
        $crate::libfuzzer_sys::fuzz_target!(
            init: $crate::write_seeds(stringify!($name)),
            |data: &[u8]| {
                let bound = $crate::ALWAYS + $factor * data.len();
                $crate::within(bound, || $crate::checks::$name(data));
            }
        );
    };
    ($name:ident, mebibytes = $bound:expr) => {
        $crate::libfuzzer_sys::fuzz_target!(
            init: $crate::write_seeds(stringify!($name)),
            |data: &[u8]| $crate::within($bound << 20, || $crate::checks::$name(data))
        );
    };
}

/// Bytes that a decoder's target may use whatever its input is: the largest key is 3 KiB, and each is
/// written and read again.
pub const ALWAYS: usize = 32 * 1024;

/// Writes what the target begins with to its corpus folder, where libFuzzer looks next.
pub fn write_seeds(target: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    std::fs::create_dir_all(&folder).expect("the corpus folder can be made");
    for (place, seed) in checks::seeds::of(target).iter().enumerate() {
        std::fs::write(folder.join(format!("seed-{place:04}")), seed).expect("a seed is written");
    }
}

/// Runs a check and fails when it held more memory at once than this, in bytes.
pub fn within(bound: usize, check: impl FnOnce()) {
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    check();
    let used = MEMORY.peak_usage().saturating_sub(before);
    assert!(used <= bound, "{used} bytes of memory, {bound} allowed");
}
