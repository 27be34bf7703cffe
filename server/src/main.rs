//! The program `tuckseal-server`: settings, log, and the task.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use tuckseal_server::storage::sqlite::backup;
use tuckseal_server::{
    Arguments, BenchArguments, Config, Verdict, bench, check, make_keys, new_signer, serve,
    start_log,
};

/// Threads for readings of the database and checks of signatures; more would only wait for each other.
const BLOCKING_THREADS: usize = 16;

/// Key distribution and message relay for tuckseal. Without a task it serves.
///
/// Every setting can be given as a flag, in the environment, or in a file (--config). The file has the names of
/// the flags with _ for -, the limits in a table [limits]. The first start makes the database and the keys.
#[derive(Parser)]
#[command(name = "tuckseal-server", version)]
struct Command {
    #[command(flatten)]
    arguments: Arguments,
    #[command(subcommand)]
    task: Option<Task>,
}

#[derive(clap::Subcommand)]
enum Task {
    /// Print the settings that are in force, as a settings file, without passwords
    Config,
    /// See whether a start with these settings would work: files, keys, database, clocks, bus, certificate. `FAIL` has to be put
    /// right before it, and the status is 1; with `warn` alone it is 0, and a start works
    Check,
    /// Make the keys of a new relay where the settings have them, before its nodes start; keys that are there stay
    Keys,
    /// Copy the embedded database to a new file while the server runs (PostgreSQL: use its own tools)
    Backup {
        /// The new file
        to: PathBuf,
    },
    /// Make another server key and its certificate, where the private trust root is; the other files are not needed there
    Rotate {
        /// trust-root.private
        trust_root: PathBuf,
        /// Folder for server.private and server.certificate
        to: PathBuf,
    },
    /// Measure what a message costs, on servers of its own in a temporary folder
    Bench(BenchArguments),
}

fn main() -> ExitCode {
    run(Command::parse()).unwrap_or_else(|error| {
        eprintln!("tuckseal-server: {error}");
        ExitCode::FAILURE
    })
}

fn run(command: Command) -> Result<ExitCode, Box<dyn std::error::Error>> {
    if let Some(Task::Rotate { trust_root, to }) = &command.task {
        let number = new_signer(trust_root, to)?;
        println!("certificate {number}: put both files of {} in place on every node", to.display());
        return Ok(ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()?;
    if let Some(Task::Bench(task)) = command.task {
        runtime.block_on(bench(task, &command.arguments.settings))?;
        return Ok(ExitCode::SUCCESS);
    }
    let config = Config::load(command.arguments)?;
    match command.task {
        Some(Task::Config) => print!("{config}"),
        Some(Task::Check) if runtime.block_on(check(&config)) == Verdict::Bad => {
            return Ok(ExitCode::FAILURE);
        }
        Some(Task::Check) => {}
        Some(Task::Keys) => match make_keys(&config)? {
            Some(root) => println!(
                "made the keys; move {} to a safe place offline, no node needs it",
                root.display()
            ),
            None => println!("the keys are there and belong together"),
        },
        Some(Task::Backup { .. }) if config.database.is_some() => {
            return Err("backup is for the embedded database; use PostgreSQL's own tools".into());
        }
        Some(Task::Backup { to }) => backup(&config.data_dir.join("tuckseal.db"), &to)?,
        Some(Task::Bench(_) | Task::Rotate { .. }) | None => {
            start_log(&config)?;
            let served = runtime.block_on(serve(config));
            // A purge of files that is still under way has nothing that would be lost.
            runtime.shutdown_background();
            served?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
