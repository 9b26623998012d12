//! What every log store promises, run against each; and what only a file can get wrong.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use shoal_store::{LogError, LogStore, MemoryLog, SqliteLog, limits};
use tempfile::TempDir;
use wire::{Seq, Term};

/// A place that a log is opened at, again and again.
enum Place {
    Memory(MemoryLog),
    Folder(TempDir),
}

impl Place {
    async fn open(&self) -> Arc<dyn LogStore> {
        match self {
            Self::Memory(log) => Arc::new(log.clone()),
            Self::Folder(folder) => {
                Arc::new(SqliteLog::open(folder.path().join("log.sqlite")).await.unwrap())
            }
        }
    }
}

macro_rules! contract {
    ($($name:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test]
            async fn $name() {
                super::$name(&super::Place::Memory(super::MemoryLog::default())).await;
            })*
        }
        mod sqlite {
            $(#[tokio::test]
            async fn $name() {
                super::$name(&super::Place::Folder(super::TempDir::new().unwrap())).await;
            })*
        }
    };
}

contract!(
    blocks_come_back_in_order,
    a_log_is_there_after_reopening,
    only_the_reigning_term_appends,
    a_term_is_taken_once,
    a_gap_or_a_repeat_is_refused,
    long_reads_come_in_pieces,
    over_the_limit_is_refused,
    state_is_kept_by_key,
    appends_at_once_give_one_winner,
    a_closed_log_says_so,
);

fn block(seq: u64) -> Bytes {
    format!("block {seq}").into_bytes().into()
}

async fn blocks_come_back_in_order(place: &Place) {
    let log = place.open().await;
    assert_eq!(log.last().await.unwrap(), None);
    assert_eq!(log.read(Seq(0), 10).await.unwrap(), Vec::<Bytes>::new());
    log.take_term(Term(1)).await.unwrap();
    for seq in 0..20 {
        log.append(Term(1), Seq(seq), block(seq)).await.unwrap();
        assert_eq!(log.last().await.unwrap(), Some(Seq(seq)));
    }
    log.append(Term(1), Seq(20), Bytes::new()).await.unwrap();
    let expected: Vec<Bytes> = (5..12).map(block).collect();
    assert_eq!(log.read(Seq(5), 7).await.unwrap(), expected);
    assert_eq!(log.read(Seq(19), 7).await.unwrap(), [block(19), Bytes::new()]);
    for past in [21, 1 << 40, u64::MAX] {
        assert!(log.read(Seq(past), 7).await.unwrap().is_empty());
    }
}

async fn a_log_is_there_after_reopening(place: &Place) {
    let log = place.open().await;
    log.take_term(Term(3)).await.unwrap();
    log.append(Term(3), Seq(0), block(0)).await.unwrap();
    log.put("epoch", Bytes::from_static(b"7")).await.unwrap();
    log.close().await;
    let log = place.open().await;
    assert_eq!(log.term().await.unwrap(), Term(3));
    assert_eq!(log.read(Seq(0), 9).await.unwrap(), [block(0)]);
    assert_eq!(log.get("epoch").await.unwrap().as_deref(), Some(&b"7"[..]));
    log.append(Term(3), Seq(1), block(1)).await.unwrap();
}

async fn only_the_reigning_term_appends(place: &Place) {
    let log = place.open().await;
    log.take_term(Term(1)).await.unwrap();
    log.append(Term(1), Seq(0), block(0)).await.unwrap();
    log.take_term(Term(2)).await.unwrap();
    for term in [0, 1, 3] {
        let error = log.append(Term(term), Seq(1), block(1)).await.unwrap_err();
        assert_eq!(error, LogError::TakenOver { ours: Term(term), current: Term(2) });
    }
    let line = log.append(Term(1), Seq(1), block(1)).await.unwrap_err().to_string();
    assert_eq!(line, "another orchestrator took over: term 2 reigns, ours is 1; stop this one");
    assert_eq!(log.last().await.unwrap(), Some(Seq(0)));
    log.append(Term(2), Seq(1), block(1)).await.unwrap();
}

async fn a_term_is_taken_once(place: &Place) {
    let log = place.open().await;
    assert_eq!(log.term().await.unwrap(), Term(0));
    log.take_term(Term(5)).await.unwrap();
    for term in [0, 4, 5] {
        let error = log.take_term(Term(term)).await.unwrap_err();
        assert_eq!(error, LogError::TermTaken { wanted: Term(term), current: Term(5) });
    }
    let takers = (0..8).map(|_| log.take_term(Term(6)));
    let taken = futures_util::future::join_all(takers).await;
    assert_eq!(taken.iter().filter(|result| result.is_ok()).count(), 1);
}

async fn a_gap_or_a_repeat_is_refused(place: &Place) {
    let log = place.open().await;
    log.take_term(Term(1)).await.unwrap();
    for seq in [1, 7, u64::MAX >> 1] {
        let error = log.append(Term(1), Seq(seq), block(seq)).await.unwrap_err();
        assert_eq!(error, LogError::OutOfOrder { seq: Seq(seq), next: Seq(0) });
    }
    log.append(Term(1), Seq(0), block(0)).await.unwrap();
    let error = log.append(Term(1), Seq(0), block(9)).await.unwrap_err();
    assert_eq!(error, LogError::OutOfOrder { seq: Seq(0), next: Seq(1) });
    assert_eq!(log.read(Seq(0), 9).await.unwrap(), [block(0)]);
}

async fn long_reads_come_in_pieces(place: &Place) {
    let log = place.open().await;
    log.take_term(Term(1)).await.unwrap();
    let big = Bytes::from(vec![7; limits::BLOCK_BYTES]);
    let count = limits::READ_BYTES / limits::BLOCK_BYTES + 2;
    for seq in 0..count {
        log.append(Term(1), Seq(seq as u64), big.clone()).await.unwrap();
    }
    let first = log.read(Seq(0), u32::MAX).await.unwrap();
    assert_eq!(first.len(), limits::READ_BYTES / limits::BLOCK_BYTES);
    assert_eq!(log.read(Seq(first.len() as u64), u32::MAX).await.unwrap().len(), 2);
    assert!(log.read(Seq(0), 0).await.unwrap().is_empty());
}

async fn over_the_limit_is_refused(place: &Place) {
    let log = place.open().await;
    log.take_term(Term(1)).await.unwrap();
    let big = Bytes::from(vec![7; limits::BLOCK_BYTES + 1]);
    let error = log.append(Term(1), Seq(0), big).await.unwrap_err();
    assert!(matches!(error, LogError::TooLarge { part: "block", .. }), "{error}");
    let key = "k".repeat(limits::KEY_BYTES + 1);
    assert!(matches!(log.get(&key).await, Err(LogError::TooLarge { part: "key", .. })));
    assert!(matches!(log.put(&key, Bytes::new()).await, Err(LogError::TooLarge { part: "key", .. })));
    let value = Bytes::from(vec![7; limits::VALUE_BYTES + 1]);
    assert!(matches!(log.put("k", value).await, Err(LogError::TooLarge { part: "value", .. })));
}

async fn state_is_kept_by_key(place: &Place) {
    let log = place.open().await;
    assert_eq!(log.get("a").await.unwrap(), None);
    log.put("a", Bytes::from_static(b"1")).await.unwrap();
    log.put("b", Bytes::new()).await.unwrap();
    log.put("a", Bytes::from_static(b"2")).await.unwrap();
    assert_eq!(log.get("a").await.unwrap().as_deref(), Some(&b"2"[..]));
    assert_eq!(log.get("b").await.unwrap().as_deref(), Some(&b""[..]));
    log.remove("a").await.unwrap();
    log.remove("a").await.unwrap();
    assert_eq!(log.get("a").await.unwrap(), None);
}

async fn appends_at_once_give_one_winner(place: &Place) {
    let log = place.open().await;
    log.take_term(Term(1)).await.unwrap();
    let appends = (0..16).map(|index| log.append(Term(1), Seq(0), block(index)));
    let results = futures_util::future::join_all(appends).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    let winner = results.iter().position(Result::is_ok).unwrap();
    assert_eq!(log.read(Seq(0), 9).await.unwrap(), [block(winner as u64)]);
}

async fn a_closed_log_says_so(place: &Place) {
    let log = place.open().await;
    log.close().await;
    assert_eq!(log.term().await, Err(LogError::Closed));
    assert_eq!(log.append(Term(0), Seq(0), block(0)).await, Err(LogError::Closed));
    log.close().await;
}

fn path_in(folder: &TempDir) -> std::path::PathBuf {
    folder.path().join("run").join("log.sqlite")
}

#[tokio::test]
async fn a_second_opener_is_told_at_once() {
    let folder = TempDir::new().unwrap();
    let path = path_in(&folder);
    let first = SqliteLog::open(&path).await.unwrap();
    let error = SqliteLog::open(&path).await.unwrap_err();
    assert_eq!(error, LogError::InUse { place: path.display().to_string() });
    let line = format!(
        "{} is in use by another process: stop it, or give this one a folder of its own",
        path.display()
    );
    assert_eq!(error.to_string(), line);
    first.close().await;
    let second = SqliteLog::open(&path).await.unwrap();
    drop(second);
    SqliteLog::open(&path).await.unwrap();
}

#[tokio::test]
async fn a_log_in_use_can_be_read_and_not_written() {
    let folder = TempDir::new().unwrap();
    let path = path_in(&folder);
    assert!(SqliteLog::read_only(&path).await.is_err(), "there is none, and none is made");
    assert!(!path.exists());
    // Its maker has made the file, and not yet what is in it.
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, b"").unwrap();
    assert!(SqliteLog::read_only(&path).await.unwrap().is_none());
    let writer = SqliteLog::open(&path).await.unwrap();
    writer.take_term(Term(1)).await.unwrap();
    writer.append(Term(1), Seq(0), block(0)).await.unwrap();
    let reader = SqliteLog::read_only(&path).await.unwrap().expect("it has blocks");
    assert_eq!(reader.read(Seq(0), 10).await.unwrap(), [block(0)]);
    // What is appended meanwhile is seen; the writer is held up by nobody.
    writer.append(Term(1), Seq(1), block(1)).await.unwrap();
    assert_eq!((reader.last().await.unwrap(), reader.term().await.unwrap()), (Some(Seq(1)), Term(1)));
    assert_eq!(reader.append(Term(1), Seq(2), block(2)).await, Err(LogError::Closed));
    assert_eq!(reader.put("key", Bytes::from_static(b"value")).await, Err(LogError::Closed));
    reader.close().await;
    writer.append(Term(1), Seq(2), block(2)).await.unwrap();
    // A reader does not keep a writer out.
    writer.close().await;
    let reader = SqliteLog::read_only(&path).await.unwrap().expect("it has blocks");
    let writer = SqliteLog::open(&path).await.unwrap();
    assert_eq!(reader.last().await.unwrap(), writer.last().await.unwrap());
}

async fn filled(path: &Path) {
    let log = SqliteLog::open(path).await.unwrap();
    log.take_term(Term(1)).await.unwrap();
    for seq in 0..50 {
        log.append(Term(1), Seq(seq), Bytes::from(vec![seq as u8; 5000])).await.unwrap();
    }
    log.close().await;
}

#[tokio::test]
async fn a_damaged_file_is_one_clear_line() {
    let folder = TempDir::new().unwrap();
    let path = path_in(&folder);
    filled(&path).await;
    let good = fs::read(&path).unwrap();

    // The head overwritten, pages of the middle overwritten, the end cut off.
    let mut head = good.clone();
    head[..100].fill(0x55);
    let mut middle = good.clone();
    let at = middle.len() / 2 / 4096 * 4096;
    middle[at..at + 3 * 4096].fill(0x55);
    let cut = good[..good.len() / 4096 / 3 * 4096].to_vec();
    let alien = b"this is a text, and no log at all ".repeat(100);
    for (what, bytes) in [("head", head), ("middle", middle), ("cut", cut), ("alien", alien)] {
        fs::write(&path, bytes).unwrap();
        let error = SqliteLog::open(&path).await.unwrap_err();
        assert!(matches!(error, LogError::Corrupt { .. }), "{what}: {error:?}");
        let line = error.to_string();
        assert!(line.contains(&path.display().to_string()) && line.contains("move the file away"), "{line}");
        assert!(!line.contains('\n'), "{line}");
    }
    fs::write(&path, good).unwrap();
    assert_eq!(SqliteLog::open(&path).await.unwrap().last().await.unwrap(), Some(Seq(49)));
}

#[tokio::test]
async fn a_newer_layout_is_refused() {
    let folder = TempDir::new().unwrap();
    let path = path_in(&folder);
    filled(&path).await;
    // The user version stands at byte 60 of the file (sqlite.org/fileformat.html).
    let mut file = fs::File::options().write(true).open(&path).unwrap();
    file.seek(SeekFrom::Start(60)).unwrap();
    file.write_all(&9u32.to_be_bytes()).unwrap();
    drop(file);
    let error = SqliteLog::open(&path).await.unwrap_err();
    assert!(matches!(error, LogError::Layout { found: 9, known: 1, .. }), "{error}");
}

/// Copies the files of a log at work, as a crash would leave them, and cuts or damages the end of the write-ahead log:
/// what was committed before is there, the torn end is not.
#[tokio::test]
async fn a_torn_end_is_dropped_and_appending_goes_on() {
    let folder = TempDir::new().unwrap();
    let path = path_in(&folder);
    let log = SqliteLog::open(&path).await.unwrap();
    log.take_term(Term(1)).await.unwrap();
    let name = |suffix: &str| folder.path().join("run").join(format!("log.sqlite{suffix}"));
    let mut ends = Vec::new();
    for seq in 0..10 {
        log.append(Term(1), Seq(seq), Bytes::from(vec![seq as u8; 3000])).await.unwrap();
        ends.push(fs::metadata(name("-wal")).unwrap().len() as usize);
    }
    let (main, journal) = (fs::read(&path).unwrap(), fs::read(name("-wal")).unwrap());
    drop(log);
    for (cut, expected) in [(ends[9], 9), (ends[9] - 1, 8), (ends[4] + 10, 4), (ends[6] - 100, 5)] {
        let copy = TempDir::new().unwrap();
        let copied = copy.path().join("log.sqlite");
        fs::write(&copied, &main).unwrap();
        fs::write(copy.path().join("log.sqlite-wal"), &journal[..cut]).unwrap();
        let log = SqliteLog::open(&copied).await.unwrap();
        assert_eq!(log.last().await.unwrap(), Some(Seq(expected)), "cut at {cut} of {ends:?}");
        log.append(Term(1), Seq(expected + 1), block(1)).await.unwrap();
    }
    let copy = TempDir::new().unwrap();
    let copied = copy.path().join("log.sqlite");
    fs::write(&copied, &main).unwrap();
    let mut damaged = journal.clone();
    damaged[ends[7] - 2000] ^= 1;
    fs::write(copy.path().join("log.sqlite-wal"), damaged).unwrap();
    assert_eq!(SqliteLog::open(&copied).await.unwrap().last().await.unwrap(), Some(Seq(6)));
}
