//! What one machine cannot measure, simulated for `docs/scaling.md`: how unevenly accounts load the shards, what a group
//! commit makes of load, what comes when a node with its streams is lost. Seeded: two runs print the same.

/// SplitMix64: enough for a simulation, and the file builds alone with `rustc -O`.
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to below 1.
    fn part(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Accounts of which each stands for ten: 100 million.
const ACCOUNTS: usize = 10_000_000;

fn main() {
    let mut rng = Random(1);
    shards(&mut rng);
    commits(&mut rng);
    reconnects(&mut rng);
}

/// Accounts are put on shards by a hash; what they get is spread like income: a few get much. The busiest shard counts.
fn shards(rng: &mut Random) {
    println!(
        "busiest shard over the mean, accounts by hash, messages an account by a Pareto law (a = 1.5, at most 1000 times the least)"
    );
    let mut loads: Vec<Vec<f64>> = [16, 64, 256].map(|count| vec![0.0; count]).into();
    for _ in 0..ACCOUNTS {
        let messages = rng.part().max(1e-9).powf(-1.0 / 1.5).min(1000.0);
        let hash = rng.bits();
        for shards in &mut loads {
            let place = (hash % shards.len() as u64) as usize;
            shards[place] += messages;
        }
    }
    for shards in loads {
        let mean = shards.iter().sum::<f64>() / shards.len() as f64;
        let most = shards.iter().fold(0.0f64, |most, load| most.max(*load));
        println!("  {:4} shards  {:.3}", shards.len(), most / mean);
    }
}

/// One writer: takes what waits, up to 256, and is busy for the disk and for each message.
fn commits(rng: &mut Random) {
    println!(
        "one writer, 1 ms to the disk and its synchronous standby, 20 us a message, at most 256 a commit"
    );
    for rate in [1_000.0, 5_000.0, 10_000.0, 20_000.0, 30_000.0, 36_000.0] {
        let (mut arrivals, mut now) = (Vec::new(), 0.0);
        while arrivals.len() < 400_000 {
            now += -rng.part().max(1e-12).ln() / rate;
            arrivals.push(now);
        }
        let (mut next, mut free, mut waits, mut groups) = (0, 0.0f64, Vec::new(), 0);
        while next < arrivals.len() {
            let begin = free.max(arrivals[next]);
            let waiting = arrivals[next..].iter().take(256).take_while(|at| **at <= begin).count();
            free = begin + 0.001 + 20e-6 * waiting as f64;
            waits.extend(arrivals[next..next + waiting].iter().map(|at| (free - at) * 1000.0));
            next += waiting;
            groups += 1;
        }
        waits.sort_unstable_by(f64::total_cmp);
        let at = |share: f64| waits[(waits.len() as f64 * share) as usize];
        let group = waits.len() / groups;
        println!(
            "  {rate:6.0}/s  p50 {:6.2} ms  p99 {:6.2} ms  {group:3} a commit",
            at(0.5),
            at(0.99)
        );
    }
}

/// A node dies with its streams. Devices come again after a pause drawn from a window; a connect costs the others time.
fn reconnects(rng: &mut Random) {
    println!(
        "a node with 500,000 streams is lost; the others have 20 cores for connects of 300 us"
    );
    for (name, from, to) in
        [("at once", 0.0, 1.0), ("over 10 s", 0.0, 10.0), ("over 30 s", 0.0, 30.0)]
    {
        let mut times: Vec<f64> = (0..500_000).map(|_| from + (to - from) * rng.part()).collect();
        times.sort_unstable_by(f64::total_cmp);
        let (mut free, mut worst) = (0.0f64, 0.0f64);
        for at in times {
            free = free.max(at) + 300e-6 / 20.0;
            worst = worst.max(free - at);
        }
        println!("  {name:10} longest wait {worst:5.2} s, all there after {free:5.2} s");
    }
}
