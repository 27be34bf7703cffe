//! What the tests run on: SQLite in a folder of its own, PostgreSQL in a database of its own, a NATS or Redis server of its own.

use std::process::Stdio;
use std::sync::Arc;

use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio_postgres::NoTls;
use tuckseal_server::storage::Store;
use tuckseal_server::storage::postgres::PostgresStore;
use tuckseal_server::storage::sqlite::SqliteStore;

/// A server whose user may make databases.
const VARIABLE: &str = "TUCKSEAL_TEST_POSTGRES";
const USUAL: &str = "postgresql://postgres@127.0.0.1:5432/postgres";

/// A database that goes when this is dropped.
pub(crate) struct Database {
    server: String,
    name: String,
}

impl Database {
    pub(crate) async fn create() -> Self {
        let server = std::env::var(VARIABLE).unwrap_or_else(|_| USUAL.into());
        let name = format!("tuckseal_test_{:032x}", u128::from_be_bytes(crate::world::random()));
        let database = Self { server, name };
        database.execute(&format!("CREATE DATABASE {}", database.name)).await;
        database
    }

    /// Another one with all that is in this one, to which nobody may be connected.
    pub(crate) async fn copy(&self) -> Self {
        let name = format!("tuckseal_test_{:032x}", u128::from_be_bytes(crate::world::random()));
        let copy = Self { server: self.server.clone(), name };
        self.execute(&format!("CREATE DATABASE {} TEMPLATE {}", copy.name, self.name)).await;
        copy
    }

    /// The setting that opens it.
    pub(crate) fn setting(&self) -> String {
        let (server, _) = self.server.rsplit_once('/').expect("postgresql://user@host:port/name");
        format!("{server}/{}", self.name)
    }

    async fn execute(&self, sql: &str) {
        let (client, connection) =
            tokio_postgres::connect(&self.server, NoTls).await.unwrap_or_else(|error| {
                panic!(
                    "no PostgreSQL at {} ({error}): start one (./test does, with apt-get install postgresql), \
                     or name one whose user may make databases in {VARIABLE}",
                    self.server
                )
            });
        let connection = tokio::spawn(connection);
        client.execute(sql, &[]).await.unwrap();
        drop(client);
        connection.await.unwrap().unwrap();
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        let dropping = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let database = std::mem::ManuallyDrop::new(Self { server, name });
            let sql = format!("DROP DATABASE {} WITH (FORCE)", database.name);
            runtime.block_on(database.execute(&sql));
        });
        // A panic there has been printed.
        let _ = dropping.join();
    }
}

enum Place {
    Folder(TempDir),
    Database(Database),
}

/// An open store and where it lies.
pub(crate) struct Opened {
    place: Place,
    pub(crate) store: Arc<dyn Store>,
}

impl Opened {
    pub(crate) async fn sqlite() -> Self {
        Self::at(Place::Folder(tempfile::tempdir().unwrap())).await
    }

    pub(crate) async fn postgres() -> Self {
        Self::at(Place::Database(Database::create().await)).await
    }

    async fn at(place: Place) -> Self {
        let store = open(&place).await;
        Self { place, store }
    }

    /// Closes it and opens it again.
    pub(crate) async fn reopen(&mut self) {
        self.store.close().await.unwrap();
        self.store = open(&self.place).await;
    }

    /// A second node on the same database; the same store where there is one node alone.
    pub(crate) async fn second_node(&self) -> Arc<dyn Store> {
        match &self.place {
            Place::Folder(_) => Arc::clone(&self.store),
            Place::Database(_) => open(&self.place).await,
        }
    }

    /// What a statement counts, read past the store.
    pub(crate) async fn number(&self, sql: &str) -> i64 {
        match &self.place {
            Place::Folder(folder) => {
                let db = rusqlite::Connection::open(folder.path().join("db")).unwrap();
                db.query_row(sql, [], |row| row.get(0)).unwrap()
            }
            Place::Database(database) => {
                let setting = database.setting();
                let (client, connection) = tokio_postgres::connect(&setting, NoTls).await.unwrap();
                tokio::spawn(connection);
                client.query_one(sql, &[]).await.unwrap().get(0)
            }
        }
    }

    pub(crate) fn setting(&self) -> String {
        let Place::Database(database) = &self.place else { panic!("no database") };
        database.setting()
    }
}

async fn open(place: &Place) -> Arc<dyn Store> {
    match place {
        Place::Folder(folder) => Arc::new(SqliteStore::open(&folder.path().join("db")).unwrap()),
        Place::Database(database) => {
            Arc::new(PostgresStore::open(&database.setting()).await.unwrap())
        }
    }
}

/// A server of notices between nodes, on a free port; killed when this is dropped.
pub(crate) struct BusServer {
    kind: Kind,
    port: u16,
    child: Child,
}

#[derive(Clone, Copy)]
enum Kind {
    Nats,
    Redis,
}

impl BusServer {
    pub(crate) async fn nats() -> Self {
        Self::on(Kind::Nats, free_port(), &[]).await
    }

    pub(crate) async fn redis() -> Self {
        Self::redis_with(&[]).await
    }

    pub(crate) async fn redis_with(settings: &[&str]) -> Self {
        Self::on(Kind::Redis, free_port(), settings).await
    }

    async fn on(kind: Kind, port: u16, settings: &[&str]) -> Self {
        let (program, usual) = match kind {
            Kind::Nats => ("nats-server", &["-a", "127.0.0.1", "-p"][..]),
            Kind::Redis => ("redis-server", &["--bind", "127.0.0.1", "--save", "", "--port"][..]),
        };
        let mut command = Command::new(program);
        command.args(usual).arg(port.to_string()).args(settings).kill_on_drop(true);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child.unwrap_or_else(|error| {
            panic!("{program} cannot be started ({error}): apt-get install {program}")
        });
        while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        Self { kind, port, child }
    }

    /// Kills it and starts another one in its place.
    pub(crate) async fn restart(&mut self) {
        self.child.kill().await.unwrap();
        *self = Self::on(self.kind, self.port, &[]).await;
    }

    pub(crate) fn socket(&self) -> std::net::SocketAddr {
        ([127, 0, 0, 1], self.port).into()
    }

    pub(crate) fn address(&self) -> String {
        match self.kind {
            Kind::Nats => format!("nats://127.0.0.1:{}", self.port),
            Kind::Redis => format!("redis://127.0.0.1:{}", self.port),
        }
    }
}

fn free_port() -> u16 {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    free.local_addr().unwrap().port()
}
