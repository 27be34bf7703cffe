//! What came out, as Markdown: lowest, middle and highest of the rounds.

use std::time::Duration;

use crate::Load;
use crate::engine::Engine;
use crate::part::Figures;
use crate::server::NotInstalled;

/// All rounds of one.
pub(crate) struct Row {
    pub(crate) engine: Engine,
    pub(crate) version: Result<String, NotInstalled>,
    pub(crate) rounds: Vec<Vec<Figures>>,
}

impl Row {
    /// One figure of one part, a round each.
    fn of(&self, part: &str, figure: fn(&Figures) -> f64) -> Vec<f64> {
        let parts = self.rounds.iter().filter_map(|round| round.iter().find(|f| f.part == part));
        parts.map(figure).collect()
    }
}

fn rate(figures: &Figures) -> f64 {
    figures.per_second
}

fn cpu(figures: &Figures) -> f64 {
    figures.cpu_us
}

pub(crate) fn print(rows: &[Row], load: Load, syncs: Vec<Duration>) {
    let Load { messages, size, senders, mailboxes } = load;
    println!(
        "{messages} messages of {size} B, {senders} senders that each wait for the acceptance, {mailboxes} mailboxes. \
         This disk has 4 KiB synced in {} ms: who accepts sooner does not sync.\n",
        spread(syncs.iter().map(|sync| sync.as_secs_f64() * 1000.0).collect(), 2)
    );
    rates(rows);
    processor(rows);
    let measured = |ours: bool| {
        rows.iter().filter(move |row| row.engine.is_ours() == ours && !row.rounds.is_empty())
    };
    let theirs: Vec<_> = measured(false).collect();
    for ours in measured(true).filter(|_| !theirs.is_empty()) {
        ratios(ours, &theirs);
    }
}

fn rates(rows: &[Row]) {
    println!(
        "| | accepted | one sender alone, p50 ms | store /s | drain /s | online /s | p50 / p99 ms of *store* |"
    );
    println!("|---|---|---|---|---|---|---|");
    for row in rows {
        let Row { engine, version, .. } = row;
        match version {
            Ok(version) => println!(
                "| {} ({version}) | {} | {} | {} | {} | {} | {} / {} |",
                engine.title(),
                engine.accepted(),
                spread(row.of("alone", |figures| figures.p50_ms), 2),
                spread(row.of("store", rate), 0),
                spread(row.of("drain", rate), 0),
                spread(row.of("online", rate), 0),
                spread(row.of("store", |figures| figures.p50_ms), 1),
                spread(row.of("store", |figures| figures.p99_ms), 1),
            ),
            Err(missing) => println!("| {} | | not measured: {missing} | | | | |", engine.title()),
        }
    }
}

fn processor(rows: &[Row]) {
    println!("\n| processor of all its processes, µs a message | store | drain | online |");
    println!("|---|---|---|---|");
    for row in rows.iter().filter(|row| row.version.is_ok()) {
        let parts = ["store", "drain", "online"].map(|part| spread(row.of(part, cpu), 1));
        println!("| {} | {} |", row.engine.title(), parts.join(" | "));
    }
}

/// Of the same round, as a machine is not the same in all of them.
fn ratios(ours: &Row, theirs: &[&Row]) {
    println!(
        "\n| {} beside | store rate | store processor | online rate | online processor |",
        ours.engine.title()
    );
    println!("|---|---|---|---|---|");
    for theirs in theirs {
        let ratio = |part: &str, figure: fn(&Figures) -> f64| {
            let pairs = ours.of(part, figure).into_iter().zip(theirs.of(part, figure));
            spread(pairs.map(|(ours, theirs)| ours / theirs).collect(), 2)
        };
        println!(
            "| {} | {} | {} | {} | {} |",
            theirs.engine.title(),
            ratio("store", rate),
            ratio("store", cpu),
            ratio("online", rate),
            ratio("online", cpu),
        );
    }
}

/// Lowest, middle, highest.
fn spread(mut of: Vec<f64>, digits: usize) -> String {
    of.sort_unstable_by(f64::total_cmp);
    match (of.first(), of.get(of.len() / 2), of.last()) {
        (Some(lowest), Some(middle), Some(highest)) if of.len() > 1 => {
            format!("{lowest:.digits$}–**{middle:.digits$}**–{highest:.digits$}")
        }
        (Some(only), ..) => format!("**{only:.digits$}**"),
        _ => "–".to_owned(),
    }
}
