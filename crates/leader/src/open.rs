//! Opening a log: the first block of a new one, or the whole fold of an old one and the word that it goes on.

use std::collections::BTreeMap;
use std::sync::Arc;

use ledger::commit;
use ledger::fold::{Record, RecordOf, Signatures};
use ledger::verify::Replay;
use ledger::{Chain, Fold};
use store::LogStore;
use tokio::sync::mpsc;
use wire::{Head, NodeId, RunId, Seq, SigningKey, Term};

use crate::{Audience, Clock, Leader, LeaderError, Pending};

/// A log that is open for this process alone. Nothing is written yet.
pub struct Opened<F: Fold> {
    key: SigningKey,
    store: Arc<dyn LogStore>,
    term: Term,
    chain: Chain,
    state: F,
    /// Records of the first block; none where the log has one.
    first: Option<Vec<RecordOf<F>>>,
    acknowledged: BTreeMap<NodeId, Seq>,
    clock: Arc<Clock>,
}

/// Takes the log in `store` over from whoever wrote it before, and folds it; a log without a block will begin with
/// `genesis`. `look` sees every block that was there, with the state behind it.
///
/// # Errors
/// The store failed, or the log is not the one of `run` that `key` signs.
pub async fn open<F: Fold>(
    run: RunId,
    key: SigningKey,
    store: Arc<dyn LogStore>,
    genesis: impl FnOnce() -> F::Control,
    mut look: impl FnMut(&F, Seq, &[RecordOf<F>]),
) -> Result<Opened<F>, LeaderError<F>> {
    // From here on no other process appends.
    let term = store.term().await?.next();
    store.take_term(term).await?;
    let mut replay = Replay::<F>::new(run, key.node_id());
    let mut acknowledged = BTreeMap::new();
    loop {
        let blocks = store.read(replay.next_seq(), store::limits::READ_BLOCKS).await?;
        if blocks.is_empty() {
            break;
        }
        for bytes in blocks {
            let seq = replay.next_seq();
            // Envelopes were checked when they came in, and the block's signature is this key's.
            let records =
                replay.push(&bytes, Signatures::Trust).map_err(|fault| LeaderError::Log(Box::new(fault)))?;
            for record in &records {
                if let Record::Stated(envelope) = record {
                    acknowledged.insert(envelope.sender, seq);
                }
            }
            if let Some(state) = replay.state() {
                look(state, seq, &records);
            }
        }
        tokio::task::yield_now().await;
    }
    let (mut chain, state) = replay.into_parts();
    while chain.term() < term {
        chain.begin_term();
    }
    let (state, first, clock) = if let Some(state) = state {
        let clock = Clock::from(state.tip().now());
        (state, None, clock)
    } else {
        let clock = Clock::default();
        let (state, records) = commit::genesis(run, clock.now(), genesis()).map_err(LeaderError::Genesis)?;
        (state, Some(records), clock)
    };
    Ok(Opened { key, store, term, chain, state, first, acknowledged, clock: Arc::new(clock) })
}

impl<F: Fold> Opened<F> {
    /// State of the log; of a new one the state behind its first block, which is still to be written.
    pub fn state(&self) -> &F {
        &self.state
    }

    /// Newest durable block.
    pub fn head(&self) -> Option<Head> {
        self.chain.head()
    }

    /// A clock that shows no time before the log's.
    pub fn clock(&self) -> Arc<Clock> {
        Arc::clone(&self.clock)
    }

    /// Leads the log: writes its first block, or that it goes on and open deadlines move (protocol §6 "Restart"). A fold
    /// that is over refuses to go on, and stays as it is.
    ///
    /// # Errors
    /// The store or the audience failed.
    pub async fn lead<A: Audience<F>>(
        self,
        inputs: mpsc::Receiver<Pending<F>>,
        audience: A,
    ) -> Result<Leader<F, A>, LeaderError<F>> {
        let Self { key, store, term, chain, state, first, acknowledged, clock } = self;
        let checked = state.tip().now();
        let last_block = None;
        let mut leader = Leader {
            state,
            chain,
            term,
            key,
            store,
            clock,
            inputs,
            audience,
            acknowledged,
            checked,
            last_block,
        };
        if let Some(records) = first {
            leader.write(records).await?;
        } else {
            let down = leader.clock.now().since(leader.state.tip().now());
            // Refused by a fold that is over.
            drop(leader.control(F::resumed(down)).await?);
        }
        Ok(leader)
    }
}

impl<F: Fold> std::fmt::Debug for Opened<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened").field("head", &self.head()).finish_non_exhaustive()
    }
}
