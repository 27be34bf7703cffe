//! The program `tuckseal-server`: settings, log, server.

use std::process::ExitCode;

use clap::Parser;
use tuckseal_server::{Arguments, Config, serve, start_log};

/// Threads for readings of the database and checks of signatures; more would only wait for each other.
const BLOCKING_THREADS: usize = 16;

/// Key distribution and message relay for tuckseal.
///
/// Every setting can be given as a flag, in the environment, or in a file (--config). The file has the names of
/// the flags with _ for -, the limits in a table [limits]. The first start makes the database and the keys.
#[derive(Parser)]
#[command(name = "tuckseal-server", version)]
struct Command {
    #[command(flatten)]
    arguments: Arguments,
}

fn main() -> ExitCode {
    match run(Command::parse().arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tuckseal-server: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::load(arguments)?;
    start_log(&config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()?;
    runtime.block_on(serve(config))?;
    Ok(())
}
