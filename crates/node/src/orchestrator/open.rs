//! Opening the log: the first block of a new run, or the whole fold of an old one and the word that it goes on.

use std::collections::BTreeMap;
use std::sync::Arc;

use ledger::Chain;
use store::LogStore;
use swarm::commit;
use swarm::record::{Control, Input, Record};
use swarm::state::State;
use tokio::sync::mpsc;
use wire::{Head, Millis, NodeId, Seq, Term};

use super::driver::Driver;
use super::shared::{Pending, Shared};
use super::{OrchestratorError, Parts};
use crate::clock::Clock;
use crate::follow::Fold;

/// A driver over the log in `parts`, whose newest block is durable.
pub(super) async fn driver(
    parts: &Parts,
    inputs: mpsc::Receiver<Pending>,
) -> Result<Driver, OrchestratorError> {
    let Parts { key, spec, log, .. } = parts;
    // From here on no other process appends.
    let term = log.term().await?.next();
    log.take_term(term).await?;
    let run = spec.run_id();
    let mut fold = Fold::new(run, key.node_id());
    let mut acknowledged = BTreeMap::new();
    read(log.as_ref(), &mut fold, &mut acknowledged).await?;
    let (chain, view) = fold.into_parts();
    let mut driver = if let Some(view) = view {
        let clock = Clock::from(view.state.now());
        driver_of(parts, inputs, term, chain, view.state, Some(view.head), acknowledged, clock)
    } else {
        let clock = Clock::default();
        let genesis = Control::Genesis {
            spec: spec.swarm_spec(),
            run_spec: spec.canonical().into_bytes(),
            orchestrator: key.node_id(),
        };
        let (state, records) = commit::genesis::<State>(run, clock.now(), genesis)?;
        let mut driver = driver_of(parts, inputs, term, chain, state, None, acknowledged, clock);
        driver.write(&records).await?;
        driver.show();
        return Ok(driver);
    };
    driver.resume().await?;
    Ok(driver)
}

async fn read(
    log: &dyn LogStore,
    fold: &mut Fold,
    acknowledged: &mut BTreeMap<NodeId, Seq>,
) -> Result<(), OrchestratorError> {
    loop {
        let blocks = log.read(fold.next(), store::limits::READ_BLOCKS).await?;
        if blocks.is_empty() {
            return Ok(());
        }
        for bytes in blocks {
            let seq = fold.next();
            let records =
                fold.push(&bytes).map_err(|source| OrchestratorError::Log { source: Box::new(source) })?;
            for record in records {
                if let Record::Stated(envelope) = record {
                    acknowledged.insert(envelope.sender, seq);
                }
            }
        }
        tokio::task::yield_now().await;
    }
}

#[expect(clippy::too_many_arguments, reason = "everything a driver owns")]
fn driver_of(
    parts: &Parts,
    inputs: mpsc::Receiver<Pending>,
    term: Term,
    mut chain: Chain,
    state: State,
    head: Option<Head>,
    acknowledged: BTreeMap<NodeId, Seq>,
    clock: Clock,
) -> Driver {
    while chain.term() < term {
        chain.begin_term();
    }
    let shared = Arc::new(Shared::new(Arc::clone(&parts.log), head, state.clone()));
    Driver {
        checked: state.now(),
        state,
        chain,
        term,
        key: parts.key.clone(),
        store: Arc::clone(&parts.log),
        shared,
        inputs,
        acknowledged,
        clock,
        last_block: None,
        shown: None,
        unshown: false,
    }
}

impl Driver {
    /// Writes that the orchestrator was away and is back: open deadlines move (protocol §6 "Restart"), a drained run
    /// goes on. A run that is over refuses it, and stays as it is.
    async fn resume(&mut self) -> Result<(), OrchestratorError> {
        let now = self.clock.now();
        let down = Millis(now.since(self.state.now()).0);
        let resumed = Input::Control(Control::Resumed { down });
        let committed = commit::commit(&mut self.state, now, vec![resumed]);
        if !committed.records.is_empty() {
            self.write(&committed.records).await?;
        }
        self.show();
        Ok(())
    }
}
