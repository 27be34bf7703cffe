//! Our own relay: `tuckseal-server bench` makes its own nodes and does the work, we read its figures.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::Load;
use crate::broker::Outcome;
use crate::part::Figures;

const LONGEST: Duration = Duration::from_secs(1800);

/// Database, bus and how many nodes; whose processor time counts beside theirs.
pub(crate) struct Scaled {
    pub(crate) database: String,
    pub(crate) bus: String,
    pub(crate) nodes: usize,
    pub(crate) servers: Vec<u32>,
}

/// The figures of its parts, in a folder of its own.
pub(crate) async fn measure(
    program: &Path,
    folder: &Path,
    load: Load,
    scaled: Option<Scaled>,
) -> Outcome<Vec<Figures>> {
    let mut command = Command::new(program);
    if let Some(scaled) = &scaled {
        command.args(["--database", &scaled.database, "--bus", &scaled.bus]);
    }
    command.args(["bench", "--json", "--pace", "0", "--takes", "0", "--idle", "0"]);
    for (flag, number) in [
        ("--messages", load.messages),
        ("--size", load.size),
        ("--senders", load.senders),
        ("--mailboxes", load.mailboxes),
    ] {
        command.args([flag, &number.to_string()]);
    }
    if let Some(scaled) = &scaled {
        command.args(["--nodes", &scaled.nodes.to_string()]);
        let ids = scaled.servers.iter().map(u32::to_string);
        command.args(ids.flat_map(|id| ["--with-pid".to_owned(), id]));
    }
    command.env("TMPDIR", folder).stdin(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true);
    let output = tokio::time::timeout(LONGEST, command.output()).await??;
    if !output.status.success() {
        return Err(format!("{} bench failed: {}", program.display(), output.status).into());
    }
    let lines = String::from_utf8(output.stdout)?;
    Ok(lines.lines().map(serde_json::from_str).collect::<Result<_, _>>()?)
}
