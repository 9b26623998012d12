//! Opening the log: the first block of a new arena, or the whole fold of an old one and the word that it goes on.

use std::collections::BTreeMap;
use std::sync::Arc;

use arena::record::{Control, Input, Record};
use arena::state::State;
use arena::{Fold, commit, verify};
use ledger::{Block, Chain};
use store::LogStore;
use tokio::sync::mpsc;
use wire::{Head, Millis, NodeId, Seq};

use super::driver::Driver;
use super::shared::{Pending, Shared, View};
use super::{HostError, Parts};
use crate::clock::Clock;

/// The log as it was found.
struct Found {
    chain: Chain,
    view: Option<View>,
    acknowledged: BTreeMap<NodeId, Seq>,
}

/// A driver over the log in `parts`, whose newest block is durable.
pub(super) async fn driver(parts: &Parts, inputs: mpsc::Receiver<Pending>) -> Result<Driver, HostError> {
    let Parts { key, spec, log, .. } = parts;
    // From here on no other process appends.
    let term = log.term().await?.next();
    log.take_term(term).await?;
    let run = spec.run_id();
    let mut found =
        Found { chain: Chain::genesis(run, key.node_id()), view: None, acknowledged: BTreeMap::new() };
    found.read(log.as_ref()).await?;
    let Found { mut chain, view, acknowledged } = found;
    let head = chain.head();
    while chain.term() < term {
        chain.begin_term();
    }
    let assemble = |state: State, view: View, head: Option<Head>, clock: Clock| Driver {
        checked: state.now(),
        state,
        chain,
        term,
        key: key.clone(),
        store: Arc::clone(log),
        shared: Arc::new(Shared::new(Arc::clone(log), head, view, clock)),
        inputs,
        acknowledged,
        last_block: None,
    };
    if let Some(view) = view {
        let clock = Clock::from(view.state.now());
        let mut driver = assemble(view.state.clone(), view, head, clock);
        driver.resume().await?;
        return Ok(driver);
    }
    let clock = Clock::default();
    let now = clock.now();
    let genesis = Control::Genesis { spec: spec.canonical(), host: key.node_id() };
    let (state, records) = commit::genesis::<State>(run, now, genesis.clone())?;
    // The served copy begins with the genesis alone and is shown the block when it is durable.
    let mut first = State::genesis(run, &genesis)?;
    first.advance(now);
    let mut driver = assemble(state, View::new(first), None, clock);
    driver.write(records).await?;
    Ok(driver)
}

impl Found {
    async fn read(&mut self, log: &dyn LogStore) -> Result<(), HostError> {
        let misfit = |reason: String| HostError::Log { reason };
        loop {
            let blocks = log.read(self.chain.next_seq(), store::limits::READ_BLOCKS).await?;
            if blocks.is_empty() {
                return Ok(());
            }
            for bytes in blocks {
                let block: Block = wire::from_bytes(&bytes).map_err(|error| misfit(error.to_string()))?;
                self.chain.check(&block).map_err(|error| misfit(error.to_string()))?;
                let (seq, time) = (block.header().seq, block.header().time);
                let records = verify::records(&block.records)
                    .map_err(|(index, error)| misfit(format!("block {seq}, record {index}: {error}")))?;
                self.fold(seq, time, &records).map_err(|reason| misfit(format!("block {seq}: {reason}")))?;
            }
            tokio::task::yield_now().await;
        }
    }

    fn fold(&mut self, seq: Seq, time: Millis, records: &[Record]) -> Result<(), String> {
        for record in records {
            if let Record::Stated(envelope) = record {
                self.acknowledged.insert(envelope.sender, seq);
            }
        }
        if let Some(view) = &mut self.view {
            return view.fold(seq, time, records);
        }
        let state = verify::start(self.chain.run(), time, records).map_err(|lie| lie.to_string())?;
        let mut view = View::new(state);
        view.note(seq, records);
        self.view = Some(view);
        Ok(())
    }
}

impl Driver {
    /// Writes that the host was away and is back: open deadlines move.
    async fn resume(&mut self) -> Result<(), HostError> {
        let now = self.shared.clock.now();
        let down = Millis(now.since(self.state.now()).0);
        let resumed = Input::Control(Control::Resumed { down });
        let committed = commit::commit(&mut self.state, now, vec![resumed]);
        if !committed.records.is_empty() {
            self.write(committed.records).await?;
        }
        Ok(())
    }
}
