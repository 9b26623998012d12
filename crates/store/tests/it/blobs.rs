//! What every blob store promises, run against each; and what only a folder can get wrong.

use std::fs;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use shoal_store::{BlobError, Blobs, Durability, FolderBlobs, MemoryBlobs, limits};
use tempfile::TempDir;
use wire::Hash;

struct Made {
    blobs: Arc<dyn Blobs>,
    _folder: Option<TempDir>,
}

async fn memory() -> Made {
    Made { blobs: Arc::new(MemoryBlobs::default()), _folder: None }
}

async fn folder() -> Made {
    let folder = TempDir::new().unwrap();
    let blobs = FolderBlobs::open(folder.path(), Durability::Cached).await.unwrap();
    Made { blobs: Arc::new(blobs), _folder: Some(folder) }
}

async fn synced_folder() -> Made {
    let folder = TempDir::new().unwrap();
    let blobs = FolderBlobs::open(folder.path(), Durability::Synced).await.unwrap();
    Made { blobs: Arc::new(blobs), _folder: Some(folder) }
}

macro_rules! contract {
    ($($name:ident),* $(,)?) => {
        contract!(@ memory: $($name)*);
        contract!(@ folder: $($name)*);
        contract!(@ synced_folder: $($name)*);
    };
    (@ $store:ident: $($name:ident)*) => {
        mod $store {
            $(#[tokio::test]
            async fn $name() {
                let made = super::$store().await;
                super::$name(made.blobs.as_ref()).await;
            })*
        }
    };
}

contract!(
    what_is_put_comes_back,
    a_blob_is_put_once,
    bytes_under_another_name_are_refused,
    what_is_missing_is_named,
    a_deleted_blob_is_gone,
    all_are_listed_in_order,
    a_large_blob_streams_in_and_out,
    a_dropped_writer_leaves_nothing,
    a_streamed_blob_under_another_name_is_refused,
    many_write_at_once,
);

fn pattern(len: usize, seed: usize) -> Bytes {
    (0..len).map(|at| (at * 31 + at / 251 + seed) as u8).collect::<Vec<_>>().into()
}

async fn what_is_put_comes_back(blobs: &dyn Blobs) {
    for len in [0, 1, 1000, limits::CHUNK_BYTES, 3 * limits::CHUNK_BYTES + 5] {
        let bytes = pattern(len, 0);
        let hash = blobs.put(bytes.clone()).await.unwrap();
        assert_eq!(hash, Hash::of(&bytes));
        assert_eq!(blobs.get(hash).await.unwrap(), bytes);
        assert_eq!(blobs.size(hash).await.unwrap(), Some(len as u64));
        assert!(blobs.has(hash).await.unwrap());
    }
}

async fn a_blob_is_put_once(blobs: &dyn Blobs) {
    let bytes = pattern(100, 0);
    let hash = blobs.put(bytes.clone()).await.unwrap();
    assert_eq!(blobs.put(bytes.clone()).await.unwrap(), hash);
    blobs.put_at(hash, bytes).await.unwrap();
    assert_eq!(blobs.list().await.unwrap(), [hash]);
}

async fn bytes_under_another_name_are_refused(blobs: &dyn Blobs) {
    let (expected, found) = (Hash::of(b"one"), Hash::of(b"other"));
    let error = blobs.put_at(expected, Bytes::from_static(b"other")).await.unwrap_err();
    assert!(matches!(error, BlobError::Mismatch { expected: e, found: f } if (e, f) == (expected, found)));
    assert_eq!(blobs.list().await.unwrap(), []);
}

async fn what_is_missing_is_named(blobs: &dyn Blobs) {
    let hash = Hash::of(b"nowhere");
    assert!(matches!(blobs.get(hash).await, Err(BlobError::Missing(named)) if named == hash));
    assert!(matches!(blobs.open(hash).await, Err(BlobError::Missing(named)) if named == hash));
    assert!(!blobs.has(hash).await.unwrap());
    let line = blobs.get(hash).await.unwrap_err().to_string();
    assert_eq!(line, format!("blob {hash} is not in the store: fetch it from a peer that has it"));
}

async fn a_deleted_blob_is_gone(blobs: &dyn Blobs) {
    let hash = blobs.put(pattern(10, 0)).await.unwrap();
    blobs.delete(hash).await.unwrap();
    assert!(!blobs.has(hash).await.unwrap());
    blobs.delete(hash).await.unwrap();
}

async fn all_are_listed_in_order(blobs: &dyn Blobs) {
    let mut hashes = Vec::new();
    for seed in 0..50 {
        hashes.push(blobs.put(pattern(20, seed)).await.unwrap());
    }
    hashes.sort_unstable();
    assert_eq!(blobs.list().await.unwrap(), hashes);
}

async fn a_large_blob_streams_in_and_out(blobs: &dyn Blobs) {
    for (len, step) in [(0, 1), (7, 3), (5 * limits::CHUNK_BYTES + 3, 700_001)] {
        let bytes = pattern(len, len);
        let mut writer = blobs.create().await.unwrap();
        for at in (0..len).step_by(step) {
            writer.write(bytes.slice(at..len.min(at + step))).await.unwrap();
        }
        let hash = writer.finish(Some(Hash::of(&bytes))).await.unwrap();
        let (mut reader, mut all) = (blobs.open(hash).await.unwrap(), BytesMut::new());
        while let Some(chunk) = reader.next().await.unwrap() {
            assert!(chunk.len() <= limits::CHUNK_BYTES);
            all.extend_from_slice(&chunk);
        }
        assert!(all == bytes);
        assert!(reader.next().await.unwrap().is_none());
        assert_eq!(blobs.get(hash).await.unwrap(), bytes);
    }
}

async fn a_dropped_writer_leaves_nothing(blobs: &dyn Blobs) {
    let mut writer = blobs.create().await.unwrap();
    writer.write(pattern(3 * limits::CHUNK_BYTES, 1)).await.unwrap();
    drop(writer);
    assert_eq!(blobs.list().await.unwrap(), []);
}

async fn a_streamed_blob_under_another_name_is_refused(blobs: &dyn Blobs) {
    let mut writer = blobs.create().await.unwrap();
    writer.write(pattern(2 * limits::CHUNK_BYTES, 1)).await.unwrap();
    let error = writer.finish(Some(Hash::of(b"another"))).await.unwrap_err();
    assert!(matches!(error, BlobError::Mismatch { .. }), "{error}");
    assert_eq!(blobs.list().await.unwrap(), []);
}

async fn many_write_at_once(blobs: &dyn Blobs) {
    let writes = (0..40).map(|index| {
        let bytes = pattern(50_000 + index % 3, index % 5);
        async move {
            let hash = if index % 2 == 0 {
                blobs.put(bytes.clone()).await.unwrap()
            } else {
                let mut writer = blobs.create().await.unwrap();
                writer.write(bytes.clone()).await.unwrap();
                writer.finish(None).await.unwrap()
            };
            assert_eq!(blobs.get(hash).await.unwrap(), bytes);
        }
    });
    futures_util::future::join_all(writes).await;
    assert_eq!(blobs.list().await.unwrap().len(), 15);
}

#[tokio::test]
async fn a_corrupt_file_is_named() {
    let folder = TempDir::new().unwrap();
    let blobs = FolderBlobs::open(folder.path(), Durability::Cached).await.unwrap();
    let bytes = pattern(2 * limits::CHUNK_BYTES + 9, 3);
    let hash = blobs.put(bytes.clone()).await.unwrap();
    let hex = hash.to_string();
    let path = folder.path().join(&hex[..2]).join(&hex[2..]);
    assert_eq!(path, blobs.path(hash));
    assert_eq!(fs::read(&path).unwrap(), bytes);

    let mut damaged = bytes.to_vec();
    damaged[limits::CHUNK_BYTES] ^= 1;
    fs::write(&path, &damaged).unwrap();
    let error = blobs.get(hash).await.unwrap_err();
    assert!(matches!(error, BlobError::Corrupt { hash: named, .. } if named == hash));
    assert!(error.to_string().starts_with(&format!("blob {hash} is corrupt")), "{error}");
    // A reader gets the first chunks, but never the last one.
    let (mut reader, mut read) = (blobs.open(hash).await.unwrap(), 0);
    let error = loop {
        match reader.next().await {
            Ok(chunk) => read += chunk.expect("an error before the end").len(),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, BlobError::Corrupt { .. }) && read < bytes.len());

    // A cut file is replaced by the next put; any damage by deleting first.
    fs::write(&path, &damaged[..100]).unwrap();
    assert!(matches!(blobs.get(hash).await, Err(BlobError::Corrupt { .. })));
    blobs.put(bytes.clone()).await.unwrap();
    assert_eq!(blobs.get(hash).await.unwrap(), bytes);
    fs::write(&path, &damaged).unwrap();
    blobs.delete(hash).await.unwrap();
    blobs.put(bytes.clone()).await.unwrap();
    assert_eq!(blobs.get(hash).await.unwrap(), bytes);
}

#[tokio::test]
async fn what_a_crash_left_behind_is_neither_listed_nor_kept() {
    let folder = TempDir::new().unwrap();
    let blobs = FolderBlobs::open(folder.path(), Durability::Cached).await.unwrap();
    let hash = blobs.put(pattern(10, 0)).await.unwrap();
    let half = blobs.path(Hash::of(b"half")).with_extension("#1");
    let half = half.with_file_name(format!("{}#1", Hash::of(b"half")));
    fs::create_dir_all(half.parent().unwrap()).unwrap();
    let incoming = folder.path().join("incoming");
    fs::create_dir_all(&incoming).unwrap();
    let left = [half, incoming.join("77-0#1"), incoming.join("77-1")];
    for path in &left {
        fs::write(path, b"half").unwrap();
    }
    assert_eq!(blobs.list().await.unwrap(), [hash]);
    // Young ones may belong to a process at work.
    FolderBlobs::open(folder.path(), Durability::Cached).await.unwrap();
    assert!(left.iter().all(|path| path.exists()));
    for path in &left {
        let old = SystemTime::now() - Duration::from_hours(2);
        fs::File::options().write(true).open(path).unwrap().set_modified(old).unwrap();
    }
    let blobs = FolderBlobs::open(folder.path(), Durability::Cached).await.unwrap();
    assert!(left.iter().all(|path| !path.exists()));
    assert_eq!(blobs.list().await.unwrap(), [hash]);
}

#[tokio::test]
async fn a_finish_that_is_dropped_half_way_leaves_no_unfinished_file() {
    let folder = TempDir::new().unwrap();
    let blobs = FolderBlobs::open(folder.path(), Durability::Synced).await.unwrap();
    let mut ended = false;
    for waits in 0.. {
        let mut writer = blobs.create().await.unwrap();
        writer.write(pattern(1000, waits)).await.unwrap();
        let (mut finish, mut left) = (writer.finish(None), waits);
        // Dropped where it waits for the disk once more than before.
        let done = poll_fn(|context| match finish.as_mut().poll(context) {
            Poll::Ready(hash) => Poll::Ready(Some(hash.unwrap())),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => {
                left -= 1;
                Poll::Pending
            }
        });
        ended = done.await.is_some();
        drop(finish);
        let left_behind = async {
            while fs::read_dir(folder.path().join("incoming")).unwrap().next().is_some() {
                tokio::task::yield_now().await;
            }
        };
        let gone = tokio::time::timeout(Duration::from_secs(10), left_behind).await;
        gone.unwrap_or_else(|_| panic!("a file stays where `finish` was dropped at wait {waits}"));
        if ended {
            break;
        }
    }
    assert!(ended);
    for hash in blobs.list().await.unwrap() {
        blobs.get(hash).await.unwrap();
    }
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_named() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, b"in the way").unwrap();
    let error = FolderBlobs::open(file.join("blobs"), Durability::Cached).await.unwrap_err();
    assert!(error.to_string().contains(&*file.to_string_lossy()), "{error}");
}
