//! A host's log whose durable list of entrusted seals fails, or waits, where a test says so.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use store::{LogError, LogStore, SqliteLog};
use tokio::sync::Notify;
use wire::{Seq, Term};

/// What becomes of the list when it is written the next time.
#[derive(Clone, Copy)]
pub(crate) enum Fate {
    Fails,
    /// Until the gate is opened.
    Waits,
}

#[derive(Default)]
pub(crate) struct Gate {
    next: Mutex<Option<Fate>>,
    /// A write waits.
    pub(crate) waiting: Notify,
    pub(crate) open: Notify,
}

impl Gate {
    pub(crate) fn next(&self, fate: Fate) {
        *self.next.lock().unwrap() = Some(fate);
    }
}

pub(crate) struct GatedLog {
    pub(crate) log: SqliteLog,
    pub(crate) gate: Arc<Gate>,
}

#[async_trait]
impl LogStore for GatedLog {
    async fn term(&self) -> Result<Term, LogError> {
        self.log.term().await
    }

    async fn take_term(&self, term: Term) -> Result<(), LogError> {
        self.log.take_term(term).await
    }

    async fn append(&self, term: Term, seq: Seq, block: Bytes) -> Result<(), LogError> {
        self.log.append(term, seq, block).await
    }

    async fn read(&self, from: Seq, limit: u32) -> Result<Vec<Bytes>, LogError> {
        self.log.read(from, limit).await
    }

    async fn last(&self) -> Result<Option<Seq>, LogError> {
        self.log.last().await
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>, LogError> {
        self.log.get(key).await
    }

    async fn put(&self, key: &str, value: Bytes) -> Result<(), LogError> {
        let fate = if key == "custody" { self.gate.next.lock().unwrap().take() } else { None };
        match fate {
            None => {}
            Some(Fate::Fails) => return Err(LogError::Full { place: "the test".to_owned() }),
            Some(Fate::Waits) => {
                self.gate.waiting.notify_one();
                self.gate.open.notified().await;
            }
        }
        self.log.put(key, value).await
    }

    async fn remove(&self, key: &str) -> Result<(), LogError> {
        self.log.remove(key).await
    }

    async fn close(&self) {
        self.log.close().await;
    }
}
