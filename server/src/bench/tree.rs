//! Processor time of processes with all that they have started, from `/proc`. The bench beside other brokers
//! (`benches/relay`) reads it with this file too.

use std::collections::HashMap;
use std::time::Duration;

/// Of the kernel, for the times in `/proc`.
const TICKS_A_SECOND: u64 = 100;

/// Processor time that these processes and all below them have used, also those below that have ended.
pub(super) fn cpu(roots: &[u32]) -> Duration {
    let all = processes();
    let ticks: u64 = below(&all, roots).iter().filter_map(|id| Some(all.get(id)?.ticks)).sum();
    Duration::from_millis(ticks.saturating_mul(1000 / TICKS_A_SECOND))
}

/// A process and the time of it and of its children that have ended.
struct Entry {
    parent: u32,
    ticks: u64,
}

fn processes() -> HashMap<u32, Entry> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter_map(|id| Some((id, entry(id)?))).collect()
}

fn entry(id: u32) -> Option<Entry> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // Behind the name in brackets: state, parent; times are the 14th to 17th field of the line.
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let times = fields.get(11..15)?.iter().map(|ticks| ticks.parse::<u64>().unwrap_or(0));
    Some(Entry { parent: fields.get(1)?.parse().ok()?, ticks: times.sum() })
}

/// The roots and whatever has one of them above it.
fn below(all: &HashMap<u32, Entry>, roots: &[u32]) -> Vec<u32> {
    let under_root = |id: u32| {
        let above = std::iter::successors(Some(id), |id| Some(all.get(id)?.parent));
        above.take_while(|&id| id > 1).any(|id| roots.contains(&id))
    };
    all.keys().copied().filter(|&id| under_root(id)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn time_of_a_child_counts_while_it_lives_and_when_it_has_ended() {
        let spin = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; echo; read line";
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("sh -c '{spin}'; read line")]);
        shell.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut shell = shell.spawn().unwrap();
        let mut said = [0];
        std::io::Read::read_exact(shell.stdout.as_mut().unwrap(), &mut said).unwrap();
        let while_living = cpu(&[shell.id()]);
        assert!(while_living > Duration::from_millis(20), "{while_living:?}");
        let mut stdin = shell.stdin.take().unwrap();
        std::io::Write::write_all(&mut stdin, b"\n").unwrap();
        while below(&processes(), &[shell.id()]).len() > 1 {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(cpu(&[shell.id()]) >= while_living);
        drop(stdin);
        shell.wait().unwrap();
        assert_eq!(cpu(&[shell.id()]), Duration::ZERO);
    }
}
