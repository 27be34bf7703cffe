//! An allocator that looks through all memory that is given back for bytes that must not be in it. It is no part of the
//! library: `tests/` asks it what the library leaves behind.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// Most secrets that are sought at once.
const MAX_SOUGHT: usize = 1 << 15;

static LOOKING: AtomicBool = AtomicBool::new(false);
static SOUGHT: [AtomicU64; MAX_SOUGHT] = [const { AtomicU64::new(0) }; MAX_SOUGHT];
static COUNT: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, looking while [`most_in_one_block`] runs. A block that grows is given back, too.
pub struct LookingAllocator;

// SAFETY: the system's allocator does the work, with the layouts that it is given.
unsafe impl GlobalAlloc for LookingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // Zeros, so that there is nothing in a block that was never written, and nothing of an earlier one.
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if LOOKING.load(Ordering::Relaxed) {
            // SAFETY: the block is the caller's until it is given back below, and was zeroed when it was made.
            let bytes = unsafe { std::slice::from_raw_parts(block, layout.size()) };
            MOST.fetch_max(sought_in(bytes), Ordering::Relaxed);
        }
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(block, layout) }
    }
}

/// How many of these secrets, told by their first eight bytes, lie in one block of memory that an operation gives back, at
/// most. Nothing else may run meanwhile.
pub fn most_in_one_block(secrets: &[[u8; 8]], operation: impl FnOnce()) -> usize {
    assert!(secrets.len() <= MAX_SOUGHT, "more secrets than there is room for");
    let mut numbers: Vec<u64> = secrets.iter().map(|it| u64::from_le_bytes(*it)).collect();
    numbers.sort_unstable();
    for (place, number) in SOUGHT.iter().zip(&numbers) {
        place.store(*number, Ordering::Relaxed);
    }
    COUNT.store(numbers.len(), Ordering::Relaxed);
    MOST.store(0, Ordering::Relaxed);
    LOOKING.store(true, Ordering::SeqCst);
    operation();
    LOOKING.store(false, Ordering::SeqCst);
    MOST.load(Ordering::Relaxed)
}

/// Allocates nothing: the allocator itself asks.
fn sought_in(bytes: &[u8]) -> usize {
    let sought = &SOUGHT[..COUNT.load(Ordering::Relaxed)];
    let is_sought = |window: &&[u8]| {
        let number = window.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte));
        number != 0 && sought.binary_search_by_key(&number, |it| it.load(Ordering::Relaxed)).is_ok()
    };
    bytes.windows(8).filter(is_sought).count()
}
