//! Nodes of a run: who they are, whether they are there, what they hold.

use std::collections::BTreeSet;

use ledger::fold::Last;
use serde::{Deserialize, Serialize};
use wire::{Epoch, Hash, Millis, StageIndex};

use crate::record::{Join, Role, Traffic};

/// A node that joined at some time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Node {
    /// Its own words about itself; [`Join::stage`] is a wish.
    pub join: Join,
    /// Stage that it was assigned; miners only.
    pub stage: Option<StageIndex>,
    /// Whether it is there.
    pub presence: Presence,
    /// Time of its last accepted statement (moved on by [`crate::record::Control::Resumed`]).
    pub seen: Millis,
    /// Its last accepted statement.
    pub(super) last: Option<Last>,
    /// What it holds, if it said so since the last opening.
    pub ready: Option<Ready>,
    /// Measured capacity in its stage, micro-batches per 1000 s; `None` before the first epoch.
    pub measured: Option<u64>,
    /// Cells that it reported without a right to.
    pub strikes: u64,
    /// Cells merged under its name, all epochs.
    pub merged: u64,
    /// Outcomes of audits of its work.
    pub verdicts: Verdicts,
    /// Signed "busy" answers that others report of it.
    pub busy: u64,
    /// Failed connections that others report of it.
    pub failed: u64,
    /// Bytes, all epochs.
    pub traffic: Traffic,
    /// Pinned components that it said it can run, since it joined.
    pub codecs: BTreeSet<Hash>,
}

impl Node {
    /// Whether it is there.
    pub fn present(&self) -> bool {
        self.presence == Presence::Present
    }

    /// Whether it is a miner that is there.
    pub fn present_miner(&self) -> bool {
        self.present() && self.join.role == Role::Miner
    }
}

/// Whether a node is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Presence {
    /// Joined and heard of.
    Present,
    /// Silent for too long.
    Lost,
    /// Said goodbye.
    Left,
}

/// State of a stage that a node says it holds; checked against what the run agreed on as far as that is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// Epoch that these weights open.
    pub epoch: Epoch,
    /// State hash per shard.
    pub states: Vec<Hash>,
}

/// Counts of audit outcomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdicts {
    /// Equal.
    pub pass: u64,
    /// Not equal.
    pub fail: u64,
    /// Of another device class.
    pub other_class: u64,
    /// Not opened.
    pub not_opened: u64,
}
