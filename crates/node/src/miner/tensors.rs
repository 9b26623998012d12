//! The tensors of items under way, by item and direction, and for a while those of items that are done: a validator may
//! ask for them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use model::config::Message;
use swarm::miner::Item;
use wire::{Direction, Epoch, FrameHeader, MicroBatch, Receipt, SignedFrame};

use super::send::Output;
use crate::limits;
use crate::rpc::{Opened, OpenedFrame};

/// One frame with what was signed for it.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    frame: SignedFrame,
    receipt: Receipt,
    /// Encoded tensor; only of what came in.
    payload: Option<Bytes>,
}

/// One direction of an item.
#[derive(Debug, Default)]
struct Way {
    input: Option<Arc<Message>>,
    /// Bytes of an input that is kept only encoded, as long as nothing was computed from it.
    spared: usize,
    output: Option<Arc<Output>>,
    came: Option<Kept>,
    went: Option<Kept>,
}

/// An item's tensors.
#[derive(Debug, Default)]
struct Entry {
    epoch: Epoch,
    forward: Way,
    backward: Way,
}

impl Entry {
    fn way(&mut self, direction: Direction) -> &mut Way {
        match direction {
            Direction::Forward => &mut self.forward,
            Direction::Backward => &mut self.backward,
        }
    }

    fn bytes(&self) -> usize {
        let came = [&self.forward.came, &self.backward.came];
        came.into_iter().flatten().filter_map(|kept| kept.payload.as_ref()).map(Bytes::len).sum()
    }
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Tensors {
    open: BTreeMap<Item, Entry>,
    done: VecDeque<(Instant, Item, Entry)>,
    done_bytes: usize,
}

impl Tensors {
    /// A frame was taken.
    pub(super) fn came(
        &mut self,
        item: Item,
        frame: SignedFrame,
        receipt: Receipt,
        message: Message,
        payload: Bytes,
        keep_encoded: bool,
    ) {
        let entry = self.open.entry(item).or_default();
        entry.epoch = frame.header.epoch;
        let way = entry.way(frame.header.direction);
        if keep_encoded && frame.header.direction == Direction::Forward {
            way.spared = message.bytes.len();
        } else {
            way.input = Some(Arc::new(message));
        }
        way.came = Some(Kept { frame, receipt, payload: Some(payload) });
    }

    /// What the item's job needs.
    pub(super) fn input(&mut self, item: &Item, direction: Direction) -> Option<Arc<Message>> {
        self.open.get_mut(item)?.way(direction).input.take()
    }

    /// The forward input as it came, where it is kept so: its frame's header and the encoded tensor.
    pub(super) fn encoded_input(&mut self, item: &Item) -> Option<(FrameHeader, Bytes)> {
        let way = &mut self.open.get_mut(item)?.forward;
        way.spared = 0;
        let came = way.came.as_ref()?;
        Some((came.frame.header.clone(), came.payload.clone()?))
    }

    /// Bytes of decoded inputs that are not held because they are kept encoded.
    pub(super) fn spared(&self) -> usize {
        self.open.values().map(|entry| entry.forward.spared).sum()
    }

    /// What the item's job gave.
    pub(super) fn computed(&mut self, epoch: Epoch, item: Item, direction: Direction, message: Message) {
        let entry = self.open.entry(item).or_default();
        entry.epoch = epoch;
        entry.way(direction).output = Some(Arc::new(Output::new(message)));
    }

    /// What is to be sent.
    pub(super) fn output(&mut self, item: &Item, direction: Direction) -> Option<Arc<Output>> {
        self.open.get_mut(item)?.way(direction).output.clone()
    }

    /// A frame was accepted by its receiver.
    pub(super) fn went(&mut self, item: &Item, frame: SignedFrame, receipt: Receipt) {
        let direction = frame.header.direction;
        let done = self.done.iter_mut().rev().find(|(_, other, _)| other == item).map(|(_, _, entry)| entry);
        let Some(entry) = self.open.get_mut(item).or(done) else { return };
        let way = entry.way(direction);
        way.output = None;
        way.went = Some(Kept { frame, receipt, payload: None });
    }

    /// The item is done.
    pub(super) fn release(&mut self, item: Item) {
        if let Some(mut entry) = self.open.remove(&item) {
            for way in [&mut entry.forward, &mut entry.backward] {
                way.input = None;
                way.output = None;
            }
            self.done_bytes += entry.bytes();
            self.done.push_back((Instant::now(), item, entry));
        }
    }

    /// Forgets what is done for longer than `hold`, and the oldest beyond a limit.
    pub(super) fn forget(&mut self, hold: Duration) {
        while let Some((at, _, entry)) = self.done.front() {
            let crowded = self.done_bytes > limits::ARCHIVE_BYTES || self.done.len() > limits::ARCHIVE_ITEMS;
            if at.elapsed() < hold && !crowded {
                return;
            }
            self.done_bytes -= entry.bytes();
            self.done.pop_front();
        }
    }

    /// Shows an item to a validator, with the payloads of what came in.
    pub(super) fn show(
        &self,
        epoch: Epoch,
        micro_batch: MicroBatch,
        direction: Direction,
    ) -> Option<(Opened, Vec<Bytes>)> {
        let of = |item: &Item, entry: &Entry| item.micro_batch == micro_batch && entry.epoch == epoch;
        let open = self.open.iter().rev().find(|(item, entry)| of(item, entry)).map(|(_, entry)| entry);
        let done =
            || self.done.iter().rev().find(|(_, item, entry)| of(item, entry)).map(|(_, _, entry)| entry);
        let entry = open.or_else(done)?;
        let mut payloads = Vec::new();
        let mut show = |kept: &Option<Kept>| {
            let kept = kept.as_ref()?;
            let len = kept.payload.as_ref().map_or(0, Bytes::len) as u64;
            payloads.extend(kept.payload.clone());
            Some(OpenedFrame { frame: kept.frame.clone(), receipt: kept.receipt.clone(), len })
        };
        let mut opened = Opened {
            forward_in: show(&entry.forward.came),
            forward_out: show(&entry.forward.went),
            ..Opened::default()
        };
        if direction == Direction::Backward {
            opened.backward_in = show(&entry.backward.came);
            opened.backward_out = show(&entry.backward.went);
        }
        Some((opened, payloads))
    }
}
