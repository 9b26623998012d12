//! One merge at one node: upload, inputs of own shards, claims, results, outcome (protocol §1.2 steps 1–9).

mod outcome;
mod owner;

use std::collections::{BTreeMap, BTreeSet};

use wire::{Epoch, Hash, Millis, NodeId};

use super::fetches::Fetches;
use super::io::{Action, Event, Fetched, Want};
use super::{Outbox, Settings};
use crate::miner::limits;
use crate::record::{ShardClaim, Statement, UploadCommit, nonce_hash};
use crate::state::{MergeStep, StageMerge, State};
use outcome::Outcome;

/// One merge.
#[derive(Debug)]
pub(super) struct Round {
    epoch: Epoch,
    upload: Upload,
    revealed: bool,
    serving: bool,
    fetches: Fetches,
    /// Verified uploads, with their sums of squares.
    uploads: BTreeMap<(u16, NodeId), f64>,
    /// Bitmaps stated, by shard.
    stated: BTreeMap<u16, u64>,
    /// When waiting for others ends in the step under way.
    patience: Option<(MergeStep, Millis)>,
    /// Reductions that are out.
    reducing: BTreeSet<u16>,
    claims: BTreeMap<u16, ShardClaim>,
    blinded: Option<Vec<ShardClaim>>,
    opened: bool,
    /// Shards claimed as a further witness.
    witnessed: BTreeSet<u16>,
    outcome: Outcome,
}

/// Where this node's upload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Upload {
    /// It has not trained, or not yet.
    None,
    /// Trained.
    Trained { steps: u32 },
    /// Being encoded.
    Making { steps: u32 },
    /// Encoded.
    Made { steps: u32, base: Hash, upload: Hash, residual: Hash },
    /// Committed to.
    Committed,
}

impl Round {
    pub(super) fn new(epoch: Epoch) -> Self {
        Self {
            epoch,
            upload: Upload::None,
            revealed: false,
            serving: false,
            fetches: Fetches::default(),
            uploads: BTreeMap::new(),
            stated: BTreeMap::new(),
            patience: None,
            reducing: BTreeSet::new(),
            claims: BTreeMap::new(),
            blinded: None,
            opened: false,
            witnessed: BTreeSet::new(),
            outcome: Outcome::default(),
        }
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub(super) fn next_deadline(&self) -> Option<Millis> {
        let patience = self.patience.map(|(_, at)| at);
        [self.fetches.next_deadline(), patience, self.outcome.next_deadline()].into_iter().flatten().min()
    }

    pub(super) fn on_event(&mut self, now: Millis, event: Event) {
        if event.epoch() != Some(self.epoch) {
            return;
        }
        match event {
            Event::Trained { steps, .. } => self.upload = Upload::Trained { steps },
            Event::UploadMade { base, upload, residual, .. } => {
                if let Upload::Making { steps } = self.upload {
                    self.upload = Upload::Made { steps, base, upload, residual };
                }
            }
            Event::Fetched { want, from, outcome } => {
                let wanted = self.fetches.on_fetched(now, &want, from, outcome);
                match (want, outcome) {
                    (Want::Upload { shard, of, .. }, Fetched::Held { square_sum }) if wanted => {
                        self.uploads.insert((shard.index, of), square_sum);
                    }
                    (Want::Result { shard, hash, .. }, Fetched::Held { .. }) if wanted => {
                        self.outcome.on_held(now, shard.index, hash);
                    }
                    _ => {}
                }
            }
            Event::Reduced { claim, .. } => {
                self.reducing.remove(&claim.shard);
                self.claims.insert(claim.shard, claim);
            }
            _ => {}
        }
    }

    /// `holds_opening`: this node's weights are those that the epoch opened with.
    pub(super) fn advance(
        &mut self,
        now: Millis,
        settings: &Settings,
        state: &State,
        merge: &StageMerge,
        holds_opening: bool,
        out: &mut Outbox,
    ) {
        let live = state.is_live_member(&settings.node);
        if live && merge.step < MergeStep::Done {
            self.upload(settings, merge, out);
            self.own(now, settings, state, merge, out);
        } else {
            self.patience = None;
        }
        if merge.step > MergeStep::Reveal && !std::mem::replace(&mut self.serving, true) {
            out.push(Action::Serve { epoch: self.epoch });
        }
        if holds_opening || self.outcome.was_applied() {
            self.finish(now, settings, state, merge, out);
        }
        let done = merge.step == MergeStep::Done;
        self.fetches.retain(|want| matches!(want, Want::Result { .. }) || !done);
        self.fetches.advance(now, |action| out.push(action));
    }

    /// Steps 1 and 2: encode, commit, reveal.
    fn upload(&mut self, settings: &Settings, merge: &StageMerge, out: &mut Outbox) {
        let (epoch, stage) = (self.epoch, merge.stage.0);
        match self.upload {
            // Who took no step has nothing to add.
            Upload::Trained { steps } if merge.step == MergeStep::Commit && steps > 0 => {
                out.push(Action::MakeUpload { epoch });
                self.upload = Upload::Making { steps };
            }
            Upload::Made { steps, base, upload, residual } if merge.step == MergeStep::Commit => {
                let nonce_commit = nonce_hash(&nonce(settings, epoch, stage, "upload"));
                let commit = UploadCommit { epoch, base, upload, residual, nonce_commit, steps };
                out.state(Statement::Upload(commit));
                self.upload = Upload::Committed;
            }
            _ => {}
        }
        let called = merge.step == MergeStep::Reveal && merge.committed.contains(&settings.node);
        if called && !std::mem::replace(&mut self.revealed, true) {
            out.state(Statement::Reveal { epoch, nonce: nonce(settings, epoch, stage, "upload") });
        }
    }

    /// Waiting for others ends after part of a step's time: what is not there then is left out.
    fn patience_is_over(&mut self, now: Millis, state: &State, merge: &StageMerge) -> bool {
        use crate::limits::{CLAIM_PERCENT, FETCH_PERCENT};
        let end = match merge.step {
            MergeStep::Fetch => merge.clock.at(FETCH_PERCENT),
            MergeStep::Claim => merge.clock.at(CLAIM_PERCENT),
            _ => {
                self.patience = None;
                return false;
            }
        };
        let (step, at) = *self.patience.get_or_insert_with(|| (merge.step, patience(now, state, end)));
        if step != merge.step {
            self.patience = Some((merge.step, patience(now, state, end)));
            return false;
        }
        now >= at
    }
}

/// Own clock's time at which part of the span to `end` (of the log) is over.
fn patience(now: Millis, state: &State, end: Millis) -> Millis {
    let left = end.since(state.now());
    now.plus(Millis(left.0 * limits::PATIENCE_PERCENT / 100))
}

/// A nonce of this node: derived, never drawn, so that a restart reveals the same (protocol §1.2 step 2).
fn nonce(settings: &Settings, epoch: Epoch, stage: u16, what: &str) -> Hash {
    let parts: [&[u8]; 5] =
        [&settings.secret.0, &settings.run.0, &epoch.0.to_le_bytes(), &stage.to_le_bytes(), what.as_bytes()];
    Hash::of_parts("shoal 2026-11 merge nonce", &parts)
}
