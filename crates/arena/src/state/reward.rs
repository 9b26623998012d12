//! What places are worth: weights at a moment, and what was earned over time. Integers that never add up to more than
//! there is.

use std::collections::BTreeMap;

use wire::{Millis, NodeId};

use super::State;
use super::competition::{BoardRow, Champion, Claim, Competition};
use super::entry::Role;
use super::round::Round;
use crate::limits;
use crate::number::{PPB, PPM, ppm_of};
use crate::record::EntryId;
use crate::spec::{Bounty, Rewards};

/// A day.
const DAY: Millis = Millis(86_400_000);

/// Weights of an arena at a moment, 10⁻⁹ of its rewards: `burned` and `keys` add up to one exactly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weights {
    /// By key.
    pub keys: BTreeMap<NodeId, u64>,
    /// What nobody gets.
    pub burned: u64,
}

/// Share that is burned when the champion has led for `age`, 10⁻⁶: from the base linearly to all of it.
pub fn burn_ppm(rewards: &Rewards, age: Millis) -> u64 {
    let base = u64::from(rewards.base_burn_ppm);
    if rewards.decay_s == 0 {
        return base;
    }
    let span = u128::from(rewards.decay_s) * 1000;
    let part = u128::from(PPM - base) * u128::from(age.0).min(span) / span;
    base + part as u64
}

/// ∫ of the unburned weight from age `from` to age `to`, 10⁻⁹ × milliseconds.
fn unburned(rewards: &Rewards, from: Millis, to: Millis) -> u128 {
    let weight = u128::from(rewards.weight_ppm) * u128::from(PPB / PPM);
    let start = weight * u128::from(PPM - u64::from(rewards.base_burn_ppm)) / u128::from(PPM);
    let decay = u128::from(rewards.decay_s) * 1000;
    if decay == 0 {
        return start * u128::from(to.since(from).0);
    }
    let (a, b) = (u128::from(from.0).min(decay), u128::from(to.0).min(decay));
    // ∫ (1 − t/D) dt = (b − a) − (b² − a²) / 2D
    start * (2 * decay * (b - a) - (b * b - a * a)) / (2 * decay)
}

impl Competition {
    fn age(&self, at: Millis) -> Millis {
        self.champion.map_or(Millis(0), |champion| at.since(champion.since))
    }

    /// Share of the competition's weight that is burned at a moment, 10⁻⁶; all of it without a champion.
    pub fn burn_ppm(&self, at: Millis) -> u64 {
        if self.champion.is_none() || self.completed_at.is_some() {
            return PPM;
        }
        burn_ppm(&self.spec.reward, self.age(at))
    }

    /// Who is paid, and their shares of what is not burned, 10⁻⁶.
    pub fn payees(&self) -> &BTreeMap<NodeId, u64> {
        &self.payees
    }

    /// How far each key's takeovers raised the bar, 10⁻⁶ of the better or worse score, whichever is larger, in all.
    pub fn contributions(&self) -> &BTreeMap<NodeId, u64> {
        &self.contributions
    }

    /// Counts a takeover: how much better the new champion is than the best of the bar on the same inputs, the score that the
    /// old champion had last, and what a champion that failed had reached, in parts of the larger of both. A champion that
    /// fails lowers the bar, and nobody is paid for what was reached before. Whoever leads already, and who had nothing to
    /// clear, counts nothing.
    pub(super) fn contribute(&mut self, entrant: NodeId, bar: Option<f64>, raw: f64) {
        let direction = self.spec.rule().direction();
        let leader = self.champion.map(|champion| champion.entrant);
        let last = self.champion.map(|champion| champion.scoring.score.raw);
        let from = [bar, last, self.reached].into_iter().flatten().min_by(|a, b| direction.order(*a, *b));
        self.reached = from.filter(|from| !direction.better(raw, *from));
        let Some(from) = from.filter(|from| direction.better(raw, *from)) else { return };
        if leader == Some(entrant) {
            return;
        }
        let gain = ((raw - from) / raw.abs().max(from.abs())).abs() * PPM as f64;
        // A float that is no number becomes 0, what is too large the largest.
        let gain = (gain as u64).min(limits::CONTRIBUTION_PPM_MAX);
        *self.contributions.entry(entrant).or_default() += gain;
        if self.contributions.len() > limits::CONTRIBUTORS_MAX {
            let least = self.contributions.iter().min_by_key(|(key, gain)| (**gain, **key));
            if let Some(least) = least.map(|(key, _)| *key) {
                self.contributions.remove(&least);
            }
        }
    }

    /// The spec's bounties, each with who has reached it.
    pub fn bounties(&self) -> impl Iterator<Item = (&Bounty, Option<Claim>)> {
        self.spec.reward.bounties.iter().zip(self.claims.iter().copied())
    }

    /// Counts a completed round for the bounties that are paid, and gives the champion those whose mark it has reached.
    pub(super) fn claim(&mut self) {
        let direction = self.spec.rule().direction();
        for (bounty, claim) in self.spec.reward.bounties.iter().zip(&mut self.claims) {
            let reached = |champion: &&Champion| !direction.better(bounty.raw, champion.scoring.score.raw);
            *claim = match *claim {
                Some(claim) => Some(Claim { rounds_left: claim.rounds_left.saturating_sub(1), ..claim }),
                None => self
                    .champion
                    .as_ref()
                    .filter(reached)
                    .map(|champion| Claim { entrant: champion.entrant, rounds_left: bounty.rounds }),
            };
        }
    }

    /// Shares of those who are paid whether or not they have a place, 10⁻⁶: first the bounties, then, of what they leave,
    /// those who raised the bar.
    fn standing(&self) -> BTreeMap<NodeId, u64> {
        let mut shares: BTreeMap<NodeId, u64> = BTreeMap::new();
        for (bounty, claim) in self.bounties() {
            if let Some(claim) = claim.filter(|claim| claim.rounds_left > 0) {
                *shares.entry(claim.entrant).or_default() += u64::from(bounty.share_ppm);
            }
        }
        let rest = PPM - shares.values().sum::<u64>();
        let weights: Vec<u64> = self.contributions.values().copied().collect();
        let parts = ledger::split::split(ppm_of(rest, self.spec.reward.contribution_ppm.into()), &weights);
        for (key, part) in self.contributions.keys().zip(parts) {
            *shares.entry(*key).or_default() += part;
        }
        shares
    }

    /// Earned with a share of what is not burned, from the last completed round until a moment, 10⁻⁹ × milliseconds.
    pub(super) fn paid_until(&self, at: Millis, share: u64) -> u128 {
        let paid = unburned(&self.spec.reward, self.age(self.paid_from), self.age(at.max(self.paid_from)));
        paid * u128::from(share) / u128::from(PPM)
    }

    /// What a key would earn here in the 24 hours from a moment on if nothing changed, burn and decay applied, 10⁻⁹ of the
    /// arena's rewards × milliseconds.
    pub fn daily(&self, key: NodeId, at: Millis) -> u128 {
        let share = self.payees.get(&key).filter(|_| self.completed_at.is_none());
        let (from, to) = (self.age(at), self.age(at.plus(DAY)));
        share.map_or(0, |share| unburned(&self.spec.reward, from, to) * u128::from(*share) / u128::from(PPM))
    }

    /// Earned by each payee since the last completed round, 10⁻⁹ × milliseconds.
    fn pending(&self, now: Millis) -> BTreeMap<NodeId, u128> {
        self.payees.iter().map(|(key, share)| (*key, self.paid_until(now, *share))).collect()
    }
}

impl State {
    /// Weights at a moment that is not before the newest block.
    pub fn weights(&self, at: Millis) -> Weights {
        let mut keys: BTreeMap<NodeId, u64> = BTreeMap::new();
        for competition in self.competitions.values().filter(|found| found.completed_at.is_none()) {
            let weight = u64::from(competition.spec.reward.weight_ppm) * (PPB / PPM);
            let paid = ppm_of(weight, PPM - competition.burn_ppm(at));
            for (key, share) in &competition.payees {
                *keys.entry(*key).or_default() += ppm_of(paid, *share);
            }
        }
        keys.retain(|_, weight| *weight > 0);
        let burned = PPB - keys.values().sum::<u64>();
        Weights { keys, burned }
    }

    /// What a key has earned, 10⁻⁹ of the arena's rewards × milliseconds.
    pub fn earned(&self, key: NodeId, at: Millis) -> u128 {
        let past = self.entrants.get(&key).map_or(0, |entrant| entrant.earned.total());
        let pending = |found: &Competition| found.pending(at).get(&key).copied().unwrap_or(0);
        past + self.competitions.values().map(pending).sum::<u128>()
    }

    /// What every key has earned, 10⁻⁹ of the arena's rewards × milliseconds.
    pub fn earnings(&self, at: Millis) -> BTreeMap<NodeId, u128> {
        let past = self.entrants.iter().map(|(key, entrant)| (*key, entrant.earned.total()));
        let mut all: BTreeMap<NodeId, u128> = past.filter(|(_, amount)| *amount > 0).collect();
        for (key, amount) in self.competitions.values().flat_map(|found| found.pending(at)) {
            *all.entry(key).or_default() += amount;
        }
        all
    }

    /// Places of a completed round and their shares. The champion is first; behind it the board's makers, each once,
    /// without copies and without what does not beat the baseline.
    pub(super) fn payees(
        &self,
        competition: &Competition,
        round: &Round,
        board: &[BoardRow],
    ) -> BTreeMap<NodeId, u64> {
        let Some(champion) = competition.champion else { return BTreeMap::new() };
        let direction = competition.spec.rule().direction();
        let floor = round.baseline.and_then(|id| round.scoring(id)).map(|scoring| scoring.score.raw);
        let mut places: Vec<(NodeId, EntryId)> = vec![(champion.entrant, champion.entry)];
        for row in board {
            let baseline = self.entry(row.entry).is_none_or(|entry| entry.role == Role::Baseline);
            let beats = floor.is_none_or(|floor| direction.better(row.scoring.score.raw, floor));
            let new = places.iter().all(|(entrant, _)| *entrant != row.entrant);
            if !baseline && beats && new && row.echo_of.is_none() {
                places.push((row.entrant, row.entry));
            }
        }
        let rewards = &competition.spec.reward;
        let mut shares = competition.standing();
        let rest = PPM - shares.values().sum::<u64>();
        for ((entrant, entry), share) in places.into_iter().zip(&rewards.split_ppm) {
            let share = ppm_of((*share).into(), rest);
            let parents = self.parents_of(entry, entrant);
            let lineage = if parents.is_empty() { 0 } else { ppm_of(share, rewards.lineage_ppm.into()) };
            *shares.entry(entrant).or_default() += share - lineage;
            for (parent, part) in parents.iter().zip(ledger::split::split(lineage, &vec![1; parents.len()])) {
                *shares.entry(*parent).or_default() += part;
            }
        }
        shares.retain(|_, share| *share > 0);
        shares
    }

    /// Makers of the entries that an entry names as its parents, without its own maker.
    fn parents_of(&self, id: EntryId, entrant: NodeId) -> Vec<NodeId> {
        let first = self.entry(id).and_then(|entry| entry.origin).unwrap_or(id);
        let parents = self.entry(first).map_or(&[][..], |entry| &entry.parents);
        parents
            .iter()
            .filter_map(|id| self.entry(*id))
            .map(|entry| entry.entrant)
            .filter(|other| *other != entrant)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: u64 = super::DAY.0;

    fn apex() -> Rewards {
        Rewards {
            weight_ppm: 20_000,
            base_burn_ppm: 900_000,
            decay_s: 864_000,
            split_ppm: vec![1_000_000],
            lineage_ppm: 0,
            contribution_ppm: 0,
            bounties: Vec::new(),
        }
    }

    #[test]
    fn golden_burn_of_ten_days() {
        let burn = |days_tenths: u64| burn_ppm(&apex(), Millis(DAY * days_tenths / 10));
        assert_eq!(
            (burn(0), burn(10), burn(50), burn(100), burn(500)),
            (900_000, 910_000, 950_000, 1_000_000, 1_000_000)
        );
        assert_eq!(burn_ppm(&Rewards { decay_s: 0, ..apex() }, Millis(DAY)), 900_000);
    }

    #[test]
    fn the_integral_is_the_triangle() {
        // 2 % × 10 % over 10 days, falling to nothing: half of the rectangle.
        let all = unburned(&apex(), Millis(0), Millis(20 * DAY));
        assert_eq!(all, 2_000_000 * u128::from(10 * DAY) / 2);
        let parts: u128 =
            (0..20).map(|day| unburned(&apex(), Millis(day * DAY), Millis((day + 1) * DAY))).sum();
        assert_eq!(parts, all);
    }

    proptest! {
        #[test]
        fn burn_rises_and_stays_in_bounds(base in 0_u32..=1_000_000, decay in 0_u64..1 << 33, age: u64, later: u64) {
            let rewards = Rewards { base_burn_ppm: base, decay_s: decay, ..apex() };
            let (a, b) = (age.min(later), age.max(later));
            let (first, second) = (burn_ppm(&rewards, Millis(a)), burn_ppm(&rewards, Millis(b)));
            prop_assert!(u64::from(base) <= first && first <= second && second <= PPM);
        }
    }
}
