//! One operation, done by each contender in turn, timed by the clock of the thread.

use rustix::time::{ClockId, clock_gettime};
use std::hint::black_box;
use std::time::Duration;

/// Samples of each contender; a figure is their median.
const SAMPLES: usize = 21;
/// About how long a sample shall take.
const SAMPLE_NANOS: f64 = 2_000_000.0;

/// A contender: does the operation so many times and tells how long it took.
pub type Contender<'a> = Box<dyn FnMut(usize) -> Duration + 'a>;

/// A contender that makes the input of each operation beforehand, off the clock.
pub fn contender<'a, A, R>(
    mut setup: impl FnMut() -> A + 'a,
    mut operation: impl FnMut(A) -> R + 'a,
) -> Contender<'a> {
    Box::new(move |times| {
        let inputs: Vec<A> = (0..times).map(|_| setup()).collect();
        let mut results = Vec::with_capacity(times);
        let before = thread_time();
        for input in inputs {
            results.push(black_box(operation(black_box(input))));
        }
        let spent = thread_time() - before;
        drop(results);
        spent
    })
}

/// Measures an operation and prints a row: microseconds of each, and the ratio to the floor. Words on the
/// command line choose the rows in whose names they are.
/// `per` is the number of messages that one operation stands for.
pub fn row(
    name: &str,
    per: usize,
    floor: Contender<'_>,
    ours: Contender<'_>,
    others: Vec<(&str, Contender<'_>)>,
) {
    let wanted = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    if wanted.is_some_and(|words| !name.contains(&words)) {
        return;
    }
    let mut names = vec!["floor", "tuckseal"];
    let mut all = vec![floor, ours];
    for (name, contender) in others {
        names.push(name);
        all.push(contender);
    }
    let batches: Vec<usize> = all
        .iter_mut()
        .map(|contender| {
            let once = (contender(3).as_nanos() as f64 / 3.0).max(100.0);
            ((SAMPLE_NANOS / once) as usize).clamp(1, 1_000)
        })
        .collect();
    let mut samples = vec![Vec::new(); all.len()];
    for round in 0..SAMPLES {
        for place in 0..all.len() {
            let who = (place + round) % all.len();
            let spent = all[who](batches[who]).as_nanos() as f64;
            samples[who].push(spent / (batches[who] * per) as f64 / 1_000.0);
        }
    }
    let medians: Vec<f64> = samples.into_iter().map(median).collect();
    let cell = |who: usize| format!("{} {:.2}", names[who], medians[who]);
    let others: Vec<String> = (2..names.len()).map(cell).collect();
    println!(
        "| {name} | {:.2} | {:.2} | **{:.2}** | {} |",
        medians[0],
        medians[1],
        medians[1] / medians[0],
        if others.is_empty() { "–".into() } else { others.join(", ") },
    );
}

fn thread_time() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}
