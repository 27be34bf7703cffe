//! Reaching PostgreSQL and bringing its schema up to date, also when several nodes start at once.

use std::str::FromStr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use deadpool_postgres::{
    Manager, ManagerConfig, Object, Pool, PoolConfig, QueueMode, RecyclingMethod, Runtime, Timeouts,
};
use tokio_postgres::{Config, NoTls};

use crate::metrics;
use crate::storage::StoreError;

/// One step each, in order; `schema_version` counts those that were taken.
const MIGRATIONS: [&str; 6] = [
    include_str!("../migrations/postgres/0001_first.sql"),
    include_str!("../migrations/postgres/0002_push.sql"),
    include_str!("../migrations/postgres/0003_reports.sql"),
    include_str!("../migrations/postgres/0005_life.sql"),
    include_str!("../migrations/postgres/0006_takes.sql"),
    include_str!("../migrations/postgres/0007_devices.sql"),
];
const KNOWN: i32 = MIGRATIONS.len() as i32;
/// "tuckseal" as a number: the advisory lock under which one node at a time migrates.
const MIGRATION_LOCK: i64 = 0x7475_636b_7365_616c;
/// Connections of one node: the writers, the deletions and what reads or takes at the same time.
const CONNECTIONS: usize = 12;
const CONNECT: Duration = Duration::from_secs(5);
/// After this a connection is given up whose other side is gone.
const SILENCE: Duration = Duration::from_secs(15);
/// A node that hangs in the middle of a transaction must not hold its locks; the setting may say otherwise. The statements
/// are few, short and prepared: planning them again each time would cost more than carrying them out, and a plan that was
/// made while tables were small must do when they are large.
const OPTIONS: &str = "-c statement_timeout=15s -c idle_in_transaction_session_timeout=15s \
                       -c plan_cache_mode=force_generic_plan -c enable_seqscan=off -c enable_hashjoin=off \
                       -c enable_mergejoin=off -c jit=off";
/// By how much the clocks of a node and of PostgreSQL may differ where something is taken for expired.
const CLOCKS: Duration = Duration::from_secs(5 * 60);
/// How long a request waits for a connection that is free.
const WAIT: Duration = Duration::from_secs(5);

/// Why a PostgreSQL database cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PostgresOpenError {
    /// The setting cannot be read.
    #[error(
        "the PostgreSQL setting cannot be read ({0}); write it as postgresql://user@host:port/database"
    )]
    Setting(#[source] tokio_postgres::Error),
    /// Nobody answers, or the server refuses.
    #[error(
        "PostgreSQL cannot be reached ({0}); check that it runs, that the database exists and that the user may log in"
    )]
    Unreachable(#[source] Box<deadpool_postgres::PoolError>),
    /// A migration failed; the schema is as it was.
    #[error("the schema cannot be brought up to date ({0}); check that the user may create tables")]
    Migration(#[from] tokio_postgres::Error),
    /// A newer server has written it.
    #[error(
        "the database has schema {found}, this server knows {known}; use the newer server or a backup"
    )]
    Newer {
        /// In the database.
        found: i32,
        /// The last one known.
        known: i32,
    },
    /// The pool cannot be made.
    #[error("the connections cannot be set up ({0})")]
    Pool(#[from] deadpool_postgres::BuildError),
}

/// A pool on a database whose schema is up to date.
pub(super) async fn open(setting: &str) -> Result<Pool, PostgresOpenError> {
    let pool = pool(setting)?;
    let mut db = pool.get().await.map_err(|e| PostgresOpenError::Unreachable(Box::new(e)))?;
    migrate(&mut db).await?;
    Ok(pool)
}

/// PostgreSQL's clock, in milliseconds.
const CLOCK: &str = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint";

/// Whether this node may take something for expired: it does so for all, and its clock may be wrong.
pub(super) async fn compare_clocks(db: &Object) -> Result<(), StoreError> {
    let row = db.query_one(&db.prepare_cached(&format!("SELECT {CLOCK}")).await?, &[]).await?;
    let theirs = u64::try_from(row.try_get::<_, i64>(0)?).unwrap_or(0);
    let ours = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let difference = ours.abs_diff(Duration::from_millis(theirs));
    if difference > CLOCKS { Err(StoreError::Clocks(difference.as_secs())) } else { Ok(()) }
}

/// The schema, if there is one, and the clock; nothing is changed.
pub(super) async fn inspect(setting: &str) -> Result<(Option<i32>, i64), PostgresOpenError> {
    let pool = pool(setting)?;
    let db = pool.get().await.map_err(|e| PostgresOpenError::Unreachable(Box::new(e)))?;
    let sql = format!("SELECT to_regclass('schema_version') IS NOT NULL, {CLOCK}");
    let row = db.query_one(&sql, &[]).await?;
    let now: i64 = row.try_get(1)?;
    if !row.try_get::<_, bool>(0)? {
        return Ok((None, now));
    }
    let found: i32 = db.query_one("SELECT version FROM schema_version", &[]).await?.try_get(0)?;
    if found > KNOWN {
        return Err(PostgresOpenError::Newer { found, known: KNOWN });
    }
    Ok((Some(found), now))
}

/// How many rows there are, and how many that are none any more: a transaction that somebody leaves open keeps these.
pub(super) async fn count_rows(db: &Object) -> Result<(), StoreError> {
    let sql = "SELECT coalesce(sum(n_live_tup), 0)::bigint, coalesce(sum(n_dead_tup), 0)::bigint FROM pg_stat_user_tables \
               WHERE schemaname = current_schema()";
    let row = db.query_one(&db.prepare_cached(sql).await?, &[]).await?;
    metrics::ROWS.set(row.try_get(0)?);
    metrics::DEAD_ROWS.set(row.try_get(1)?);
    Ok(())
}

fn pool(setting: &str) -> Result<Pool, PostgresOpenError> {
    let mut config = Config::from_str(setting).map_err(PostgresOpenError::Setting)?;
    config.application_name("tuckseal-server").connect_timeout(CONNECT);
    config.keepalives_idle(SILENCE / 3).keepalives_interval(SILENCE / 3).keepalives_retries(2);
    config.tcp_user_timeout(SILENCE);
    if config.get_options().is_none() {
        config.options(OPTIONS);
    }
    let manager_config = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let manager = Manager::from_config(config, NoTls, manager_config);
    let timeouts = Timeouts { wait: Some(WAIT), create: Some(CONNECT), recycle: Some(CONNECT) };
    // The connection that was used last has what it needs at hand.
    let config = PoolConfig { max_size: CONNECTIONS, timeouts, queue_mode: QueueMode::Lifo };
    Ok(Pool::builder(manager).config(config).runtime(Runtime::Tokio1).build()?)
}

/// The lock ends with the transaction, however that ends.
async fn migrate(db: &mut Object) -> Result<(), PostgresOpenError> {
    let changing = db.transaction().await?;
    changing.execute("SELECT pg_advisory_xact_lock($1)", &[&MIGRATION_LOCK]).await?;
    changing
        .batch_execute("CREATE TABLE IF NOT EXISTS schema_version (version integer NOT NULL)")
        .await?;
    let row = changing.query_opt("SELECT version FROM schema_version", &[]).await?;
    let found = row.map_or(Ok(0), |row| row.try_get::<_, i32>(0))?;
    if found > KNOWN {
        return Err(PostgresOpenError::Newer { found, known: KNOWN });
    }
    for step in MIGRATIONS.iter().skip(usize::try_from(found).unwrap_or(0)) {
        changing.batch_execute(step).await?;
    }
    if found < KNOWN {
        changing.execute("DELETE FROM schema_version", &[]).await?;
        changing.execute("INSERT INTO schema_version VALUES ($1)", &[&KNOWN]).await?;
    }
    changing.commit().await?;
    Ok(())
}
