//! Messages and the log.

use ledger::{Block, Fold as _, LogReader};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::str::FromStr;
use swarm::record::{Control, Record, Statement, run_id};
use wire::{Envelope, FrameHeader, NodeId, Receipt, RunId, SignedFrame};

/// What decodes must encode to the same bytes, or two nodes could hash one message differently.
pub(crate) fn canonical<T: DeserializeOwned + Serialize>(input: &[u8]) -> Option<T> {
    let value: T = wire::from_bytes(input).ok()?;
    let again = wire::to_bytes(&value);
    let value_again: T = wire::from_bytes(&again).expect("own bytes decode");
    assert_eq!(wire::to_bytes(&value_again), again);
    Some(value)
}

/// Any bytes as the messages that cross between nodes.
pub(crate) fn wire_messages(input: &[u8]) {
    if let Some(envelope) = canonical::<Envelope>(input) {
        let _ = envelope.signature.verify(&envelope.sender, &envelope.body);
    }
    canonical::<FrameHeader>(input);
    canonical::<Receipt>(input);
    if let Some(frame) = canonical::<SignedFrame>(input) {
        let header = &frame.header;
        let _ = frame.verify(&header.run, &header.to, &header.from, b"payload");
    }
    if let Ok(text) = std::str::from_utf8(input) {
        let _ = NodeId::from_str(text);
        let _ = RunId::from_str(text);
    }
}

/// Any bytes as the file of a log, and as a block.
pub(crate) fn ledger_log(input: &[u8]) {
    if let Ok(reader) = LogReader::new(input) {
        let read = reader.count();
        assert!(read <= input.len() / 4, "a block has at least its length");
    }
    if let Some(block) = canonical::<Block>(input) {
        let again = ledger::file::block_bytes(&block);
        assert_eq!(again.len(), wire::to_bytes(&block).len() + 4);
    }
}

/// Any bytes as what stands in a run's log.
pub(crate) fn swarm_records(input: &[u8]) {
    canonical::<Statement>(input);
    if let Some(Record::Control(control @ Control::Genesis { .. })) = canonical::<Record>(input) {
        let Control::Genesis { run_spec, .. } = &control else { return };
        if let Ok(mut state) = swarm::State::genesis(run_id(run_spec), &control) {
            while let Some(due) = state.due() {
                state.apply(&due);
            }
        }
    }
}
