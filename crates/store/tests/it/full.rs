//! A disk without space, as a small file system of its own; it needs root and Linux, elsewhere the tests say so and end.

use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use shoal_store::{BlobError, Blobs, Durability, FolderBlobs, LogError, LogStore, SqliteLog, limits};
use tempfile::TempDir;
use wire::{Hash, Seq, Term};

/// A file system of 4 MiB.
struct SmallDisk(TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let folder = TempDir::new().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"])
            .arg(folder.path())
            .output()
            .is_ok_and(|output| output.status.success());
        if !mounted {
            _ = writeln!(
                std::io::stderr(),
                "skipped: a small file system cannot be mounted here (it needs root)"
            );
            return None;
        }
        Some(Self(folder))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.0.path()).output();
    }
}

fn files(folder: &Path) -> usize {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { files(&path) } else { 1 }).sum()
}

#[tokio::test]
async fn a_full_disk_refuses_blobs_and_keeps_no_halves() {
    let Some(disk) = SmallDisk::mount() else { return };
    let blobs = FolderBlobs::open(disk.path(), Durability::Cached).await.unwrap();
    let small = blobs.put(Bytes::from_static(b"small")).await.unwrap();
    let error = blobs.put(vec![1; 6 << 20].into()).await.unwrap_err();
    assert!(matches!(error, BlobError::Full { .. }), "{error:?}");
    assert!(error.to_string().contains("disk full at"), "{error}");

    let mut writer = blobs.create().await.unwrap();
    let mut full = None;
    for _ in 0..8 {
        if let Err(error) = writer.write(vec![2; limits::CHUNK_BYTES].into()).await {
            full = Some(error);
            break;
        }
    }
    assert!(matches!(full, Some(BlobError::Full { .. })), "{full:?}");
    drop(writer);
    // The writer's file is removed by a task of its own, and its pages are freed a moment after its name is gone.
    let room = async {
        while let Err(error) = blobs.put(vec![3; 1 << 20].into()).await {
            assert!(matches!(error, BlobError::Full { .. }), "{error:?}");
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), room).await.expect("the space comes back soon");
    let hash = Hash::of(&vec![3; 1 << 20]);
    assert!(blobs.has(hash).await.unwrap() && blobs.has(small).await.unwrap());
    assert_eq!(files(disk.path()), 2);
}

#[tokio::test]
async fn a_full_disk_stops_the_log_and_loses_nothing() {
    let Some(disk) = SmallDisk::mount() else { return };
    let path = disk.path().join("log.sqlite");
    let log = SqliteLog::open(&path).await.unwrap();
    log.take_term(Term(1)).await.unwrap();
    let mut seq = 0;
    let error = loop {
        match log.append(Term(1), Seq(seq), vec![seq as u8; 100_000].into()).await {
            Ok(()) => seq += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, LogError::Full { .. }), "{error:?}");
    assert!(seq > 3);
    assert_eq!(log.last().await.unwrap(), Some(Seq(seq - 1)));
    let blocks = log.read(Seq(0), 1000).await.unwrap();
    assert!(blocks.iter().enumerate().all(|(at, block)| *block == vec![at as u8; 100_000]));
    assert_eq!(blocks.len() as u64, seq);
}
