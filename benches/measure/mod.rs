//! An operation beside the primitives that it cannot avoid: criterion times both, and the ratio
//! comes from samples taken in turn, by the clock of the thread, so that a busy machine hits both.

use criterion::{BatchSize, Criterion};
use rustix::time::{ClockId, clock_gettime};
use std::hint::black_box;
use std::time::Duration;

/// Samples of each side; the ratio is that of their medians.
const SAMPLES: usize = 21;

/// Times `operation` and `floor`, each on fresh input from its setup, and prints their ratio.
pub fn beside<A, B, R, S>(
    criterion: &mut Criterion,
    name: &str,
    (mut setup, mut operation): (impl FnMut() -> A, impl FnMut(A) -> R),
    (mut floor_setup, mut floor): (impl FnMut() -> B, impl FnMut(B) -> S),
) {
    let mut group = criterion.benchmark_group(name);
    group.bench_function("operation", |bencher| {
        bencher.iter_batched(&mut setup, &mut operation, BatchSize::SmallInput);
    });
    group.bench_function("primitives", |bencher| {
        bencher.iter_batched(&mut floor_setup, &mut floor, BatchSize::SmallInput);
    });
    group.finish();
    compare(Clock::Thread, SAMPLES, name, (setup, operation), (floor_setup, floor));
}

/// What an operation is timed by.
#[derive(Clone, Copy)]
#[allow(dead_code, reason = "each bench uses a part of it")]
pub enum Clock {
    /// The work of this thread.
    Thread,
    /// The work of all threads.
    Process,
    /// The time that passes.
    Wall,
}

/// Prints the ratio alone, from so many samples of each side taken in turn.
pub fn compare<A, B, R, S>(
    clock: Clock,
    samples: usize,
    name: &str,
    (mut setup, mut operation): (impl FnMut() -> A, impl FnMut(A) -> R),
    (mut floor_setup, mut floor): (impl FnMut() -> B, impl FnMut(B) -> S),
) {
    let batch = batch_size(&mut setup, &mut operation);
    let (mut taken, mut least) = (Vec::new(), Vec::new());
    for _ in 0..samples {
        taken.push(sample(clock, batch, &mut setup, &mut operation));
        least.push(sample(clock, batch, &mut floor_setup, &mut floor));
    }
    let (taken, least) = (median(taken), median(least));
    println!(
        "{name}: {:.2} us, primitives {:.2} us, ratio {:.2}\n",
        taken / 1000.0,
        least / 1000.0,
        taken / least
    );
}

/// Enough operations for about two milliseconds.
fn batch_size<A, R>(setup: &mut impl FnMut() -> A, operation: &mut impl FnMut(A) -> R) -> usize {
    let once = sample(Clock::Wall, 1, setup, operation).max(100.0);
    ((2_000_000.0 / once) as usize).clamp(1, 2_000)
}

/// Nanoseconds an operation takes.
fn sample<A, R>(
    clock: Clock,
    batch: usize,
    setup: &mut impl FnMut() -> A,
    operation: &mut impl FnMut(A) -> R,
) -> f64 {
    let inputs: Vec<A> = (0..batch).map(|_| setup()).collect();
    let mut results = Vec::with_capacity(batch);
    let before = time(clock);
    for input in inputs {
        results.push(black_box(operation(black_box(input))));
    }
    let spent = time(clock) - before;
    drop(results);
    spent.as_nanos() as f64 / batch as f64
}

fn time(clock: Clock) -> Duration {
    let now = clock_gettime(match clock {
        Clock::Thread => ClockId::ThreadCPUTime,
        Clock::Process => ClockId::ProcessCPUTime,
        Clock::Wall => ClockId::Monotonic,
    });
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}
