//! A server process in a folder of its own, on a free port, ended by its own id.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::broker::Outcome;

/// Where Debian puts what is not on everybody's path.
const PLACES: [&str; 3] = ["/usr/sbin", "/usr/local/sbin", "/usr/lib/rabbitmq/bin"];
const STARTING: Duration = Duration::from_secs(90);

/// Somebody has to install it.
#[derive(Debug, thiserror::Error)]
#[error("{0} is not installed")]
pub(crate) struct NotInstalled(pub(crate) &'static str);

/// Where a program is.
pub(crate) fn program(name: &'static str) -> Result<PathBuf, NotInstalled> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let postgres = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut postgres: Vec<_> = postgres.map(|entry| entry.path().join("bin")).collect();
    postgres.sort();
    // RabbitMQ has a script on the path that changes user, environment and folder: its own comes first.
    let places = PLACES.iter().rev().map(PathBuf::from).chain(std::env::split_paths(&path));
    let mut files = places.chain(postgres.into_iter().rev()).map(|place| place.join(name));
    files.find(|file| file.is_file()).ok_or(NotInstalled(name))
}

/// The first version number in what a program says of itself.
pub(crate) fn version(program: &Path, flag: &str) -> String {
    let said = Command::new(program).arg(flag).stdin(Stdio::null()).output();
    let said = said.map(|output| output.stdout).unwrap_or_default();
    let said = String::from_utf8_lossy(&said).into_owned();
    let words = said.split(|c: char| !(c.is_ascii_digit() || c == '.'));
    let number = words.map(|word| word.trim_matches('.')).find(|word| word.contains('.'));
    number.unwrap_or("of unknown version").to_owned()
}

pub(crate) fn free_port() -> Outcome<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// A running server.
pub(crate) struct Server {
    child: Child,
    end: Signal,
    log: PathBuf,
}

impl Server {
    /// Starts it and waits until it listens. What it says goes to a file of the folder.
    pub(crate) async fn start(command: &mut Command, folder: &Path, port: u16) -> Outcome<Self> {
        let name = Path::new(command.get_program()).file_name().unwrap_or_default().to_owned();
        let log = folder.join(format!("{}-{port}.out", name.to_string_lossy()));
        let file = std::fs::File::create(&log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let mut server = Self { child: command.spawn()?, end: Signal::KILL, log };
        server.listening(port).await?;
        Ok(server)
    }

    /// Asks it to end by another signal: it leaves something of the system behind if it is killed.
    pub(crate) fn ended_by(self, end: Signal) -> Self {
        let mut this = self;
        this.end = end;
        this
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    async fn listening(&mut self, port: u16) -> Outcome<()> {
        let begun = std::time::Instant::now();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        while tokio::net::TcpStream::connect(address).await.is_err() {
            if self.child.try_wait()?.is_some() || begun.elapsed() > STARTING {
                let said = std::fs::read_to_string(&self.log).unwrap_or_default();
                return Err(format!("it does not start: {}", said.trim_end()).into());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let id = Pid::from_child(&self.child);
        // It has ended by itself.
        let _ = kill_process(id, self.end);
        let _ = self.child.wait();
    }
}
