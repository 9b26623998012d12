//! A log in memory: for tests. Clones share it, as two processes share a file.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use wire::{Seq, Term};

use super::{LogError, LogStore};
use crate::limits;

/// A log in memory. A clone is another open handle on the same content.
#[derive(Debug, Default)]
pub struct MemoryLog {
    content: Arc<Mutex<Content>>,
    closed: AtomicBool,
}

impl Clone for MemoryLog {
    fn clone(&self) -> Self {
        Self { content: Arc::clone(&self.content), closed: AtomicBool::new(false) }
    }
}

#[derive(Debug, Default)]
struct Content {
    term: Term,
    blocks: Vec<Bytes>,
    state: BTreeMap<String, Bytes>,
}

impl MemoryLog {
    fn content(&self) -> Result<MutexGuard<'_, Content>, LogError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(LogError::Closed);
        }
        Ok(self.content.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[async_trait]
impl LogStore for MemoryLog {
    async fn term(&self) -> Result<Term, LogError> {
        Ok(self.content()?.term)
    }

    async fn take_term(&self, term: Term) -> Result<(), LogError> {
        let mut content = self.content()?;
        if term <= content.term {
            return Err(LogError::TermTaken { wanted: term, current: content.term });
        }
        content.term = term;
        Ok(())
    }

    async fn append(&self, term: Term, seq: Seq, block: Bytes) -> Result<(), LogError> {
        super::check_block(&block)?;
        let mut content = self.content()?;
        if term != content.term {
            return Err(LogError::TakenOver { ours: term, current: content.term });
        }
        let next = Seq(content.blocks.len() as u64);
        if seq != next {
            return Err(LogError::OutOfOrder { seq, next });
        }
        content.blocks.push(block);
        Ok(())
    }

    async fn read(&self, from: Seq, limit: u32) -> Result<Vec<Bytes>, LogError> {
        let content = self.content()?;
        let from = usize::try_from(from.0).unwrap_or(usize::MAX).min(content.blocks.len());
        let mut left = limits::READ_BYTES;
        let mut blocks = Vec::new();
        for block in content.blocks[from..].iter().take(limit.min(limits::READ_BLOCKS) as usize) {
            if block.len() > left && !blocks.is_empty() {
                break;
            }
            left = left.saturating_sub(block.len());
            blocks.push(block.clone());
        }
        Ok(blocks)
    }

    async fn last(&self) -> Result<Option<Seq>, LogError> {
        Ok(self.content()?.blocks.len().checked_sub(1).map(|last| Seq(last as u64)))
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>, LogError> {
        super::check_key(key)?;
        Ok(self.content()?.state.get(key).cloned())
    }

    async fn put(&self, key: &str, value: Bytes) -> Result<(), LogError> {
        super::check_key(key)?;
        super::check_value(&value)?;
        self.content()?.state.insert(key.to_owned(), value);
        Ok(())
    }

    async fn remove(&self, key: &str) -> Result<(), LogError> {
        super::check_key(key)?;
        self.content()?.state.remove(key);
        Ok(())
    }

    async fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }
}
