//! Statements of a merge (protocol §1.2): each is due in one step, from one set of nodes, once.

use wire::{NodeId, StageIndex};

use super::accept::{limit, not_now, require};
use super::merge::{MergeStep, StageMerge, Standing};
use super::work::MemberWork;
use super::{Phase, State};
use crate::record::{HaveShard, ShardClaim, Statement, UploadCommit, blind_hash, nonce_hash};
use crate::refusal::Refusal;

impl State {
    pub(super) fn check_merge(&self, sender: &NodeId, statement: &Statement) -> Result<(), Refusal> {
        let epoch = match statement {
            Statement::Upload(upload) => upload.epoch,
            Statement::Reveal { epoch, .. }
            | Statement::Have { epoch, .. }
            | Statement::Blind { epoch, .. }
            | Statement::Claims { epoch, .. }
            | Statement::Holds { epoch, .. } => *epoch,
            _ => return Err(not_now("not a statement of a merge")),
        };
        self.check_epoch(epoch)?;
        let Phase::Merging { .. } = self.phase else { return Err(not_now("training goes on")) };
        let member = self.work.get(sender).filter(|work| work.live).ok_or(Refusal::NotMember)?;
        let merge = self.merge(member.member.stage).ok_or(Refusal::NotMember)?;
        let step = |due: MergeStep| {
            require(merge.step == due, || {
                not_now(&format!("this merge is at {:?}, this belongs to {due:?}", merge.step))
            })
        };
        match statement {
            Statement::Upload(upload) => {
                step(MergeStep::Commit)?;
                check_upload(merge, member, upload)
            }
            Statement::Reveal { nonce, .. } => {
                step(MergeStep::Reveal)?;
                let commit = merge.commits.get(sender).filter(|_| merge.committed.contains(sender));
                let commit = commit.ok_or(Refusal::NotMember)?;
                if merge.nonces.contains_key(sender) {
                    return Err(Refusal::Repeated { what: "reveal".to_owned() });
                }
                let opens = nonce_hash(nonce) == commit.nonce_commit;
                require(opens, || Refusal::WrongOpening { what: "nonce".to_owned() })
            }
            Statement::Have { shards, .. } => {
                step(MergeStep::Fetch)?;
                self.check_have(merge, sender, shards)
            }
            Statement::Blind { .. } => {
                step(MergeStep::Claim)?;
                if merge.blinds.contains_key(sender) {
                    return Err(Refusal::Repeated { what: "blind claim".to_owned() });
                }
                require(!self.owned_shards(merge.stage, sender).is_empty(), || Refusal::NotOwner { shard: 0 })
            }
            Statement::Claims { nonce, shards, .. } => {
                step(MergeStep::Check)?;
                check_claims(merge, sender, nonce, shards)
            }
            Statement::Holds { shards, .. } => {
                step(MergeStep::Check)?;
                ascending(merge, shards.iter().copied())?;
                let settles =
                    |shard: &u16| matches!(self.standing(merge.stage, *shard), Standing::Settles { .. });
                require(shards.iter().all(settles), || not_now("a shard has no agreed result"))
            }
            _ => Err(not_now("not a statement of a merge")),
        }
    }

    fn check_have(&self, merge: &StageMerge, sender: &NodeId, shards: &[HaveShard]) -> Result<(), Refusal> {
        ascending(merge, shards.iter().map(|have| have.shard))?;
        let count = merge.set.len();
        let live = self.live_set(merge);
        let position = merge.position(sender).ok_or(Refusal::NotMember)?;
        for have in shards {
            if !merge.owners(have.shard, live).any(|owner| usize::from(owner) == position) {
                return Err(Refusal::NotOwner { shard: have.shard });
            }
            if have.square_sums.len() != count {
                let (found, expected) = (have.square_sums.len() as u64, count as u64);
                return Err(Refusal::Length { what: "square sums".to_owned(), found, expected });
            }
            if count < 64 && have.bitmap >> count != 0 {
                return Err(Refusal::Number { what: "bitmap".to_owned() });
            }
            let possible = have.square_sums.iter().enumerate().all(|(index, sum)| {
                let held = have.bitmap >> index & 1 == 1;
                sum.is_finite() && *sum >= 0.0 && (held || sum.to_bits() == 0)
            });
            if !possible {
                return Err(Refusal::Number { what: "sum of squares".to_owned() });
            }
            let before = merge.haves.get(&(have.shard, position as u8));
            if before.is_some_and(|before| before.bitmap & !have.bitmap != 0) {
                return Err(Refusal::Repeated { what: format!("have of shard {}, with less", have.shard) });
            }
        }
        Ok(())
    }

    pub(super) fn fold_merge(&mut self, sender: NodeId, statement: Statement) {
        let Some(stage) = self.work.get(&sender).map(|work| work.member.stage) else { return };
        let owned: Vec<u16> = match statement {
            Statement::Blind { .. } => self.owned_shards(stage, &sender),
            _ => Vec::new(),
        };
        let Some(merge) = self.merges.get_mut(usize::from(stage.0)) else { return };
        match statement {
            Statement::Upload(upload) => {
                merge.commits.insert(sender, upload);
            }
            Statement::Reveal { nonce, .. } => {
                merge.nonces.insert(sender, nonce);
            }
            Statement::Have { shards, .. } => {
                let Some(position) = merge.position(&sender) else { return };
                merge.haves.extend(shards.into_iter().map(|have| ((have.shard, position as u8), have)));
            }
            Statement::Blind { hash, .. } => {
                merge.blinds.insert(sender, (hash, false));
                for shard in owned {
                    merge.shards[usize::from(shard)].blinded.insert(sender);
                }
            }
            Statement::Claims { nonce, shards, .. } => {
                if let Some((hash, opened)) = merge.blinds.get_mut(&sender) {
                    *opened |= *hash == blind_hash(&sender, &nonce, &shards);
                }
                for claim in shards {
                    merge.shards[usize::from(claim.shard)].claims.push((sender, claim));
                }
            }
            Statement::Holds { shards, .. } => {
                for shard in shards {
                    merge.shards[usize::from(shard)].holders.insert(sender);
                }
            }
            _ => {}
        }
    }

    /// What a miner of `stage` still has to do in the merge, if it is in the set: see [`StageMerge`].
    pub fn merge_step(&self, stage: StageIndex) -> Option<MergeStep> {
        self.merge(stage).map(|merge| merge.step)
    }
}

fn check_upload(merge: &StageMerge, member: &MemberWork, upload: &UploadCommit) -> Result<(), Refusal> {
    if merge.commits.contains_key(&member.member.node) {
        return Err(Refusal::Repeated { what: "upload".to_owned() });
    }
    if upload.steps != member.steps {
        let (found, expected) = (u64::from(upload.steps), u64::from(member.steps));
        return Err(Refusal::Length { what: "inner steps".to_owned(), found, expected });
    }
    if member.stepped == 0 {
        return Err(not_now("no micro-batch of this miner counts"));
    }
    let copied = merge.commits.values().any(|other| other.upload == upload.upload);
    require(!copied, || Refusal::CopiedUpload)
}

/// Shards exist and ascend, and there is at least one.
fn ascending(merge: &StageMerge, shards: impl ExactSizeIterator<Item = u16>) -> Result<(), Refusal> {
    limit("shards", shards.len(), usize::from(merge.shard_count()))?;
    let mut last = None;
    for shard in shards {
        if shard >= merge.shard_count() || last.is_some_and(|last| shard <= last) {
            return Err(Refusal::UnknownShard { shard });
        }
        last = Some(shard);
    }
    match last {
        Some(_) => Ok(()),
        None => Err(Refusal::Length { what: "shards".to_owned(), found: 0, expected: 1 }),
    }
}

/// An owner's claims open its blind hash; a witness's were asked for.
fn check_claims(
    merge: &StageMerge,
    sender: &NodeId,
    nonce: &wire::Hash,
    shards: &[ShardClaim],
) -> Result<(), Refusal> {
    ascending(merge, shards.iter().map(|claim| claim.shard))?;
    let view = |claim: &ShardClaim| &merge.shards[usize::from(claim.shard)];
    let claimed = |claim: &&ShardClaim| view(claim).claims.iter().any(|(node, _)| node == sender);
    if let Some(claim) = shards.iter().find(claimed) {
        return Err(Refusal::Repeated { what: format!("claim on shard {}", claim.shard) });
    }
    let blind = merge.blinds.get(sender).filter(|(_, opened)| !opened);
    if blind.is_some_and(|(hash, _)| *hash == blind_hash(sender, nonce, shards)) {
        let foreign = shards.iter().find(|claim| !view(claim).blinded.contains(sender));
        return foreign.map_or(Ok(()), |claim| Err(Refusal::NotOwner { shard: claim.shard }));
    }
    let unasked = shards.iter().find(|claim| view(claim).referred.iter().all(|(node, _)| node != sender));
    match unasked {
        None => Ok(()),
        Some(_) if blind.is_some() => Err(Refusal::WrongOpening { what: "blind claim".to_owned() }),
        Some(claim) => Err(Refusal::NotOwner { shard: claim.shard }),
    }
}
