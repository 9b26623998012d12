//! What an owner of shards does: fetch the uploads, say what is held, reduce, claim (protocol §1.2 steps 3–6).

use wire::{Hash, Millis, NodeId};

use super::{Action, Outbox, Round, Settings, Want, nonce};
use crate::miner::merger::io::Summand;
use crate::miner::merger::shard_of;
use crate::miner::reduce::{self, Share};
use crate::record::{HaveShard, ShardClaim, Statement, blind_hash};
use crate::spec::Outer;
use crate::state::{MergeStep, StageMerge, State};

impl Round {
    /// Does an owner's work of the step under way.
    pub(super) fn own(
        &mut self,
        now: Millis,
        settings: &Settings,
        state: &State,
        merge: &StageMerge,
        out: &mut Outbox,
    ) {
        let over = self.patience_is_over(now, state, merge);
        let me = settings.node;
        let owned: Vec<u16> = match merge.step {
            MergeStep::Fetch | MergeStep::Claim | MergeStep::Check => (0..merge.shard_count())
                .filter(|shard| state.owners(merge.stage, *shard).contains(&me))
                .collect(),
            _ => return,
        };
        if merge.step == MergeStep::Fetch {
            for shard in &owned {
                self.want_uploads(now, &me, merge, *shard, u64::MAX);
            }
            self.have(merge, &owned, over, out);
            return;
        }
        let filled = |shard: &u16| merge.inputs.get(usize::from(*shard)).is_some_and(|bitmap| *bitmap != 0);
        let referred = |shard: &u16| {
            let view = merge.shards.get(usize::from(*shard));
            view.is_some_and(|view| view.referred.iter().any(|(node, _)| *node == me))
        };
        let asked: Vec<u16> = (0..merge.shard_count()).filter(referred).collect();
        let due: Vec<u16> = match merge.step {
            MergeStep::Claim => owned.into_iter().filter(filled).collect(),
            _ => asked.iter().copied().filter(filled).collect(),
        };
        for shard in &due {
            self.reduce(now, &me, state, merge, *shard, out);
        }
        match merge.step {
            MergeStep::Claim => self.blind(settings, merge, &due, over, out),
            _ => self.claim(settings, merge, &asked, out),
        }
    }

    /// Wants the uploads of a shard whose bits are set, each from its uploader first, then from other witnesses.
    fn want_uploads(&mut self, now: Millis, me: &NodeId, merge: &StageMerge, shard: u16, bitmap: u64) {
        let own = merge.position(me).map_or(0, |position| position + 1);
        let count = merge.set.len();
        // Each begins with the uploader after itself, so that not all ask the same one first.
        for index in (0..count).map(|offset| (own + offset) % count) {
            let upload = &merge.set[index];
            if bitmap >> index & 1 == 0 || self.uploads.contains_key(&(shard, upload.node)) {
                continue;
            }
            let others = merge.witness_order(shard).filter(|node| node != me && *node != upload.node);
            let sources = if upload.node == *me {
                vec![*me]
            } else {
                std::iter::once(upload.node).chain(others).collect()
            };
            let want = Want::Upload {
                epoch: self.epoch,
                shard: shard_of(&merge.partition, shard),
                of: upload.node,
                root: upload.upload,
            };
            self.fetches.want(now, want, sources);
        }
    }

    /// Says what is held: once all is there or out of reach, or patience is over; again if more came since.
    fn have(&mut self, merge: &StageMerge, owned: &[u16], over: bool, out: &mut Outbox) {
        let complete = !self.fetches.has_any(|want| {
            let of_own = matches!(want, Want::Upload { shard, .. } if owned.contains(&shard.index));
            of_own && !self.fetches.is_out_of_reach(want)
        });
        if !(complete || over) {
            return;
        }
        let mut shards = Vec::new();
        for shard in owned {
            let held = |node: &NodeId| self.uploads.get(&(*shard, *node));
            let positions = merge.set.iter().enumerate().filter(|(_, upload)| held(&upload.node).is_some());
            let bitmap = positions.fold(0_u64, |mask, (index, _)| mask | 1 << index);
            if self.stated.get(shard) == Some(&bitmap) {
                continue;
            }
            let square_sums =
                merge.set.iter().map(|upload| held(&upload.node).copied().unwrap_or(0.0)).collect();
            self.stated.insert(*shard, bitmap);
            shards.push(HaveShard { shard: *shard, bitmap, square_sums });
        }
        if !shards.is_empty() {
            out.state(Statement::Have { epoch: self.epoch, shards });
        }
    }

    /// Reduces a shard as soon as all its inputs are here.
    fn reduce(
        &mut self,
        now: Millis,
        me: &NodeId,
        state: &State,
        merge: &StageMerge,
        shard: u16,
        out: &mut Outbox,
    ) {
        if self.claims.contains_key(&shard) || self.reducing.contains(&shard) {
            return;
        }
        let bitmap = merge.inputs[usize::from(shard)];
        self.want_uploads(now, me, merge, shard, bitmap);
        let inputs = || merge.set.iter().enumerate().filter(|(index, _)| bitmap >> index & 1 == 1);
        if !inputs().all(|(_, upload)| self.uploads.contains_key(&(shard, upload.node))) {
            return;
        }
        let share = |(upload, clip): (&crate::state::SetUpload, &f64)| Share {
            batches: u64::from(upload.micro_batches),
            steps: upload.steps,
            clip: *clip,
        };
        let shares: Vec<Share> = merge.set.iter().zip(&merge.clip).map(share).collect();
        let weights = reduce::weights(&shares, bitmap);
        self.reducing.insert(shard);
        out.push(Action::Reduce {
            epoch: self.epoch,
            shard: shard_of(&merge.partition, shard),
            summands: inputs()
                .map(|(index, upload)| Summand { node: upload.node, weight: weights[index] })
                .collect(),
            seed: merge.seed,
            own: takes_own(state, merge),
        });
    }

    fn blind(&mut self, settings: &Settings, merge: &StageMerge, due: &[u16], over: bool, out: &mut Outbox) {
        let claims: Vec<ShardClaim> =
            due.iter().filter_map(|shard| self.claims.get(shard).copied()).collect();
        let ready = claims.len() == due.len() || over;
        if self.blinded.is_none() && ready && !claims.is_empty() {
            let nonce = nonce(settings, self.epoch, merge.stage.0, "claims");
            let hash = blind_hash(&settings.node, &nonce, &claims);
            out.state(Statement::Blind { epoch: self.epoch, hash });
            self.blinded = Some(claims);
        }
    }

    /// Opens the blind claims; claims as a further witness where asked.
    fn claim(&mut self, settings: &Settings, merge: &StageMerge, asked: &[u16], out: &mut Outbox) {
        let epoch = self.epoch;
        if let Some(shards) = &self.blinded
            && !self.opened
        {
            let nonce = nonce(settings, epoch, merge.stage.0, "claims");
            out.state(Statement::Claims { epoch, nonce, shards: shards.clone() });
            self.opened = true;
        }
        let fresh = asked.iter().filter(|shard| !self.witnessed.contains(shard));
        let claims: Vec<ShardClaim> = fresh.filter_map(|shard| self.claims.get(shard).copied()).collect();
        if !claims.is_empty() {
            self.witnessed.extend(claims.iter().map(|claim| claim.shard));
            out.state(Statement::Claims { epoch, nonce: Hash([0; 32]), shards: claims });
        }
    }
}

/// One uploader and no outer optimiser: its own weights are the outcome (protocol §1.1 item 13).
pub(super) fn takes_own(state: &State, merge: &StageMerge) -> bool {
    state.spec().merge.outer == Outer::Identity && merge.set.len() == 1
}
