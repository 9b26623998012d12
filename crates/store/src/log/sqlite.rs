//! The log in SQLite: one file with a write-ahead log, every commit on the disk before it returns.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::TryStreamExt;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection, Row};
use tokio::sync::{MappedMutexGuard, Mutex, MutexGuard};
use wire::{Seq, Term};

use super::{LogError, LogStore};
use crate::limits;

/// A log in an SQLite file.
///
/// Dropping the future of an append leaves open whether the block is there; [`LogStore::last`] tells.
#[derive(Debug)]
pub struct SqliteLog {
    path: PathBuf,
    /// Appends and changes; with a connection of its own, so that nobody who reads holds it up.
    writer: Mutex<Option<SqliteConnection>>,
    reader: Mutex<Option<SqliteConnection>>,
    /// Held while the store is open, so that a second process is told at once.
    lock: std::sync::Mutex<Option<File>>,
}

/// Layout of the tables; another number is another program's.
const LAYOUT: i64 = 1;
/// Marks the file as ours ("shol").
const APPLICATION: i64 = 0x7368_6f6c;
/// Files up to this are checked as a whole when they are opened, bytes; larger ones as they are read.
const CHECKED_BYTES: u64 = 256 << 20;
/// Wait for another connection's write to end.
const BUSY: Duration = Duration::from_secs(5);

const TABLES: &str = "
    BEGIN IMMEDIATE;
    CREATE TABLE block (seq INTEGER PRIMARY KEY, bytes BLOB NOT NULL) STRICT;
    CREATE TABLE reign (only INTEGER PRIMARY KEY CHECK (only = 0), term INTEGER NOT NULL) STRICT;
    CREATE TABLE state (key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT;
    INSERT INTO reign VALUES (0, 0);
    PRAGMA user_version = 1;
    PRAGMA application_id = 1936224108;
    COMMIT;
";

/// Appends if the term reigns and the block follows; as one statement it is one transaction and one fsync.
const APPEND: &str = "
    INSERT INTO block (seq, bytes) SELECT ?1, ?2
    WHERE (SELECT term FROM reign) = ?3 AND ?1 = (SELECT coalesce(max(seq) + 1, 0) FROM block)
";

impl SqliteLog {
    /// Opens the log at `path`; file and folder are made if need be.
    pub async fn open(path: impl Into<PathBuf>) -> Result<Self, LogError> {
        let path = path.into();
        let io = |doing| {
            let path = &path;
            move |error: io::Error| LogError::Backend { doing, place: place(path), reason: error.to_string() }
        };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(io("making the log's folder"))?;
        }
        let lock_path = path.with_extension("lock");
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(lock_path);
        let lock = lock.map_err(io("opening the log's lock"))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => LogError::InUse { place: place(&path) },
            TryLockError::Error(error) => io("locking the log")(error),
        })?;
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY)
            .disable_statement_logging();
        let connect =
            async || options.connect().await.map_err(|error| failed("opening the log", &path, &error));
        let mut writer = connect().await?;
        prepare(&mut writer, &path).await?;
        let reader = connect().await?;
        Ok(Self {
            writer: Mutex::new(Some(writer)),
            reader: Mutex::new(Some(reader)),
            lock: std::sync::Mutex::new(Some(lock)),
            path,
        })
    }

    /// Opens a log to read it, also while another process writes it; what that one appends is seen. Whatever would change it
    /// fails as on a closed log. None if whoever made the file has written nothing yet.
    pub async fn read_only(path: impl Into<PathBuf>) -> Result<Option<Self>, LogError> {
        let path = path.into();
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .read_only(true)
            .busy_timeout(BUSY)
            .disable_statement_logging();
        let opening = |error: sqlx::Error| failed("opening the log", &path, &error);
        let mut reader = options.connect().await.map_err(opening)?;
        let tables = number(&mut reader, "SELECT count(*) FROM sqlite_schema").await.map_err(opening)?;
        if tables == 0 {
            return Ok(None);
        }
        let application = number(&mut reader, "PRAGMA application_id").await.map_err(opening)?;
        let layout = number(&mut reader, "PRAGMA user_version").await.map_err(opening)?;
        if application != APPLICATION {
            let reason = "it is not a log of this program".to_owned();
            return Err(LogError::Corrupt { place: place(&path), reason });
        }
        if layout != LAYOUT {
            return Err(LogError::Layout { place: place(&path), found: layout, known: LAYOUT });
        }
        let (writer, lock) = (Mutex::new(None), std::sync::Mutex::new(None));
        Ok(Some(Self { writer, reader: Mutex::new(Some(reader)), lock, path }))
    }

    async fn writer(&self) -> Result<MappedMutexGuard<'_, SqliteConnection>, LogError> {
        open(&self.writer).await
    }

    async fn reader(&self) -> Result<MappedMutexGuard<'_, SqliteConnection>, LogError> {
        open(&self.reader).await
    }

    fn failed<'a>(&'a self, doing: &'static str) -> impl Fn(sqlx::Error) -> LogError + 'a {
        move |error| failed(doing, &self.path, &error)
    }

    fn corrupt(&self, reason: String) -> LogError {
        LogError::Corrupt { place: place(&self.path), reason }
    }
}

async fn open(
    connection: &Mutex<Option<SqliteConnection>>,
) -> Result<MappedMutexGuard<'_, SqliteConnection>, LogError> {
    MutexGuard::try_map(connection.lock().await, Option::as_mut).map_err(|_| LogError::Closed)
}

fn place(path: &Path) -> String {
    path.display().to_string()
}

/// Makes the tables of a new file, or checks those of an old one.
async fn prepare(connection: &mut SqliteConnection, path: &Path) -> Result<(), LogError> {
    let opening = |error: sqlx::Error| failed("opening the log", path, &error);
    let corrupt = |reason: String| LogError::Corrupt { place: place(path), reason };
    let tables = number(connection, "SELECT count(*) FROM sqlite_schema").await.map_err(opening)?;
    let application = number(connection, "PRAGMA application_id").await.map_err(opening)?;
    let layout = number(connection, "PRAGMA user_version").await.map_err(opening)?;
    if (tables, application, layout) == (0, 0, 0) {
        sqlx::raw_sql(TABLES)
            .execute(connection)
            .await
            .map_err(|error| failed("making the log", path, &error))?;
        return Ok(());
    }
    if application != APPLICATION {
        return Err(corrupt("it is not a log of this program".to_owned()));
    }
    if layout != LAYOUT {
        return Err(LogError::Layout { place: place(path), found: layout, known: LAYOUT });
    }
    if std::fs::metadata(path).is_ok_and(|data| data.len() <= CHECKED_BYTES) {
        let verdict: String = sqlx::query("PRAGMA quick_check(1)")
            .fetch_one(connection)
            .await
            .and_then(|row| row.try_get(0))
            .map_err(opening)?;
        if verdict != "ok" {
            return Err(corrupt(one_line(&verdict)));
        }
    }
    Ok(())
}

async fn number(connection: &mut SqliteConnection, query: &'static str) -> Result<i64, sqlx::Error> {
    sqlx::query(query).fetch_one(connection).await?.try_get(0)
}

/// SQLite's words may have several lines.
fn one_line(words: &str) -> String {
    words.lines().map(str::trim).collect::<Vec<_>>().join("; ")
}

/// Sorts the back end's errors by what their reader can do about them.
fn failed(doing: &'static str, path: &Path, error: &sqlx::Error) -> LogError {
    let place = place(path);
    let code = match error {
        sqlx::Error::Database(error) => error.code().and_then(|code| code.parse::<u32>().ok()).unwrap_or(0),
        _ => 0,
    };
    let reason = one_line(&error.to_string());
    // The low byte is the primary result code (sqlite.org/rescode.html).
    match code & 0xff {
        5 | 6 => LogError::InUse { place },
        11 | 26 => LogError::Corrupt { place, reason },
        13 => LogError::Full { place },
        _ => LogError::Backend { doing, place, reason },
    }
}

/// SQLite's integers are signed; counters beyond that do not occur.
fn signed(part: &'static str, value: u64) -> Result<i64, LogError> {
    let limit = i64::MAX as usize;
    i64::try_from(value).map_err(|_| LogError::TooLarge { part, len: value as usize, limit })
}

#[async_trait]
impl LogStore for SqliteLog {
    async fn term(&self) -> Result<Term, LogError> {
        let mut reader = self.reader().await?;
        let term =
            number(&mut reader, "SELECT term FROM reign").await.map_err(self.failed("reading the term"))?;
        Ok(Term(term as u64))
    }

    async fn take_term(&self, term: Term) -> Result<(), LogError> {
        let wanted = signed("term", term.0)?;
        let mut writer = self.writer().await?;
        let done = sqlx::query("UPDATE reign SET term = ?1 WHERE term < ?1")
            .bind(wanted)
            .execute(&mut *writer)
            .await
            .map_err(self.failed("taking the term"))?;
        if done.rows_affected() == 1 {
            return Ok(());
        }
        let current = number(&mut writer, "SELECT term FROM reign").await;
        let current = Term(current.map_err(self.failed("reading the term"))? as u64);
        Err(LogError::TermTaken { wanted: term, current })
    }

    async fn append(&self, term: Term, seq: Seq, block: Bytes) -> Result<(), LogError> {
        super::check_block(&block)?;
        let mut writer = self.writer().await?;
        let done = sqlx::query(APPEND)
            .bind(signed("sequence number", seq.0)?)
            .bind(&block[..])
            .bind(signed("term", term.0)?)
            .execute(&mut *writer)
            .await
            .map_err(self.failed("appending a block"))?;
        if done.rows_affected() == 1 {
            return Ok(());
        }
        let current = number(&mut writer, "SELECT term FROM reign").await;
        let current = Term(current.map_err(self.failed("reading the term"))? as u64);
        if current != term {
            return Err(LogError::TakenOver { ours: term, current });
        }
        let next = number(&mut writer, "SELECT coalesce(max(seq) + 1, 0) FROM block").await;
        let next = Seq(next.map_err(self.failed("reading the log's end"))? as u64);
        Err(LogError::OutOfOrder { seq, next })
    }

    async fn read(&self, from: Seq, limit: u32) -> Result<Vec<Bytes>, LogError> {
        let Ok(first) = i64::try_from(from.0) else { return Ok(Vec::new()) };
        let mut reader = self.reader().await?;
        let mut rows = sqlx::query("SELECT seq, bytes FROM block WHERE seq >= ?1 ORDER BY seq LIMIT ?2")
            .bind(first)
            .bind(i64::from(limit.min(limits::READ_BLOCKS)))
            .fetch(&mut *reader);
        let (mut blocks, mut left) = (Vec::new(), limits::READ_BYTES);
        let reading = self.failed("reading the log");
        while let Some(row) = rows.try_next().await.map_err(&reading)? {
            let expected = first + blocks.len() as i64;
            if row.try_get::<i64, _>(0).map_err(&reading)? != expected {
                return Err(self.corrupt(format!("block {expected} is missing")));
            }
            let bytes: Vec<u8> = row.try_get(1).map_err(&reading)?;
            if bytes.len() > left && !blocks.is_empty() {
                break;
            }
            left = left.saturating_sub(bytes.len());
            blocks.push(bytes.into());
        }
        Ok(blocks)
    }

    async fn last(&self) -> Result<Option<Seq>, LogError> {
        let mut reader = self.reader().await?;
        let last = number(&mut reader, "SELECT coalesce(max(seq), -1) FROM block").await;
        Ok(u64::try_from(last.map_err(self.failed("reading the log's end"))?).ok().map(Seq))
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>, LogError> {
        super::check_key(key)?;
        let mut reader = self.reader().await?;
        let row =
            sqlx::query("SELECT value FROM state WHERE key = ?1").bind(key).fetch_optional(&mut *reader);
        let value = row.await.and_then(|row| row.map(|row| row.try_get::<Vec<u8>, _>(0)).transpose());
        Ok(value.map_err(self.failed("reading the node's state"))?.map(Bytes::from))
    }

    async fn put(&self, key: &str, value: Bytes) -> Result<(), LogError> {
        super::check_key(key)?;
        super::check_value(&value)?;
        let mut writer = self.writer().await?;
        sqlx::query("INSERT INTO state VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = ?2")
            .bind(key)
            .bind(&value[..])
            .execute(&mut *writer)
            .await
            .map_err(self.failed("writing the node's state"))?;
        Ok(())
    }

    async fn remove(&self, key: &str) -> Result<(), LogError> {
        super::check_key(key)?;
        let mut writer = self.writer().await?;
        let removed = sqlx::query("DELETE FROM state WHERE key = ?1").bind(key).execute(&mut *writer).await;
        removed.map_err(self.failed("writing the node's state"))?;
        Ok(())
    }

    async fn close(&self) {
        for connection in [&self.reader, &self.writer] {
            if let Some(connection) = connection.lock().await.take()
                && let Err(error) = connection.close().await
            {
                tracing::warn!(log = place(&self.path), %error, "closing the log");
            }
        }
        // Closing the file gives the lock back.
        drop(self.lock.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}
