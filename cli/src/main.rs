//! The command `tuckseal`: thin over the client and the server. What a person types is in `commands/`,
//! the story that proves the whole path is in `demo/`.

mod commands;
mod demo;

use clap::{Parser, Subcommand};
use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::ExitCode;

/// Chat over an encrypted layer that speaks libsignal's wire formats.
///
/// Try `tuckseal demo`. To chat: `tuckseal serve` in one terminal, then in two others
/// `tuckseal --profile alice register alice`, `tuckseal --profile alice chat bob`, and the same for bob.
#[derive(Parser)]
#[command(name = "tuckseal", version)]
struct Arguments {
    /// Folder of your keys and messages; one process at a time [default: .tuckseal in your home]
    #[arg(long, short, value_name = "FOLDER", env = "TUCKSEAL_PROFILE", global = true)]
    profile: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Play and check the whole path: two people and a relay, killed in the middle
    Demo(demo::Options),
    /// Run the key server and relay
    Serve(Box<tuckseal_server::Arguments>),
    /// Take a name at a server and make your keys
    Register(commands::register::Options),
    /// Make this a further device of an account that you have
    Link(commands::link::Options),
    /// Your devices: list, link, name, remove
    #[command(subcommand)]
    Devices(commands::devices::Options),
    /// Whom to trust with the server's certificate: a file of its own authority, or the system's
    Ca(commands::ca::Options),
    /// List who you know
    Contacts,
    /// Send one message; it is kept and sent later if the server is away
    Send(commands::send::Options),
    /// Print messages as they come, until interrupted
    Listen(commands::listen::Options),
    /// Write and read in one terminal
    Chat(commands::chat::Options),
    /// Where to be woken when a message waits: web, apns, fcm, off, show
    #[command(subcommand)]
    Push(commands::push::Options),
    /// A push came: fetch and print what waits, and end
    Wake(commands::wake::Options),
    /// Groups: create, rename, add, remove, leave, send, list
    #[command(subcommand)]
    Group(commands::group::Options),
    /// Show the number to compare with somebody, as digits and as a QR code
    Safety(commands::safety::Safety),
    /// Say that you have compared it, and found it the same
    Verify(commands::safety::Verify),
    /// Trust the new identity key of somebody whose key has changed
    Accept(commands::identity::Options),
    /// Refuse the new identity key of somebody whose key has changed
    Reject(commands::identity::Options),
    /// Tell the server that somebody has sent spam
    Report(commands::report::Options),
    /// One side of the demo, driven by lines of JSON
    #[command(hide = true)]
    Person,
    /// The push service of the demo
    #[command(hide = true)]
    PushService,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        // Who reads no further has what they wanted.
        Err(commands::Error::Terminal(error)) if error.kind() == ErrorKind::BrokenPipe => {
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("tuckseal: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<(), commands::Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(commands::Error::Terminal)?;
    let folder = || commands::profile(arguments.profile.clone());
    runtime.block_on(async {
        match arguments.command {
            Command::Demo(options) => demo::run(options).await.map_err(commands::Error::Demo),
            Command::Serve(settings) => commands::serve::run(*settings).await,
            Command::Register(options) => commands::register::run(&folder()?, options).await,
            Command::Link(options) => commands::link::run(&folder()?, options).await,
            Command::Devices(options) => commands::devices::run(&folder()?, options).await,
            Command::Ca(options) => commands::ca::run(&folder()?, options).await,
            Command::Contacts => commands::contacts::run(&folder()?).await,
            Command::Send(options) => commands::send::run(&folder()?, options).await,
            Command::Listen(options) => commands::listen::run(&folder()?, options).await,
            Command::Chat(options) => commands::chat::run(&folder()?, options).await,
            Command::Push(options) => commands::push::run(&folder()?, options).await,
            Command::Wake(options) => commands::wake::run(&folder()?, options).await,
            Command::Group(options) => commands::group::run(&folder()?, options).await,
            Command::Safety(options) => commands::safety::show(&folder()?, options).await,
            Command::Verify(options) => commands::safety::verify(&folder()?, options).await,
            Command::Accept(options) => commands::identity::accept(&folder()?, options).await,
            Command::Reject(options) => commands::identity::reject(&folder()?, options).await,
            Command::Report(options) => commands::report::run(&folder()?, options).await,
            Command::PushService => demo::push_service::run().await,
            Command::Person => demo::person::run(&folder()?).await,
        }
    })
}
