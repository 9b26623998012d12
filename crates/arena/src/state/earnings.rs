//! What keys and competitions earned, in all and day by day. The days add up to the total for as long as none is so old
//! that it was forgotten.

use std::collections::BTreeMap;

use wire::{Millis, NodeId};

use super::State;
use super::competition::Competition;
use crate::limits;
use crate::spec::CompetitionId;

/// A day, milliseconds.
const DAY_MS: u64 = 86_400_000;

/// Rewards of the past, 10⁻⁹ of the arena's × milliseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Earned {
    total: u128,
    /// By day since 1970, UTC; at most [`limits::EARNING_DAYS_MAX`].
    days: BTreeMap<u64, u128>,
}

/// Amounts by day since 1970, UTC.
type Days = BTreeMap<u64, u128>;

impl Earned {
    pub(super) fn total(&self) -> u128 {
        self.total
    }

    fn book(&mut self, total: u128, days: &Days) {
        self.total += total;
        for (day, amount) in days {
            *self.days.entry(*day).or_default() += amount;
        }
        while self.days.len() > limits::EARNING_DAYS_MAX {
            self.days.pop_first();
        }
    }
}

/// The days of an amount that grows with time: `upto` says how much there is at a moment.
fn days_of(from: Millis, to: Millis, upto: impl Fn(Millis) -> u128) -> Days {
    let (first, last) = (from.0 / DAY_MS, to.0 / DAY_MS);
    let first = first.max(last.saturating_sub(limits::EARNING_DAYS_MAX as u64 - 1));
    let mut before = upto(from.max(Millis(first * DAY_MS)));
    let mut days = Days::new();
    for day in first..=last {
        let so_far = upto(to.min(Millis((day + 1) * DAY_MS)));
        if so_far > before {
            days.insert(day, so_far - before);
        }
        before = so_far;
    }
    days
}

impl Competition {
    /// What its payees have earned since the last completed round, each in all and by day.
    fn unbooked(&self, to: Millis) -> BTreeMap<NodeId, (u128, Days)> {
        if to <= self.paid_from {
            return BTreeMap::new();
        }
        let one = |key: &NodeId, share: u64| {
            let upto = |at| self.paid_until(at, share);
            (*key, (upto(to), days_of(self.paid_from, to, upto)))
        };
        self.payees.iter().map(|(key, share)| one(key, *share)).collect()
    }

    /// What was earned in it, 10⁻⁹ of the arena's rewards × milliseconds: in all, and by day since 1970 (UTC).
    pub fn earned(&self, at: Millis) -> (u128, BTreeMap<u64, u128>) {
        let mut earned = self.earned.clone();
        for (total, days) in self.unbooked(at).values() {
            earned.book(*total, days);
        }
        (earned.total, earned.days)
    }
}

impl State {
    /// What a key has earned by day since 1970 (UTC), 10⁻⁹ of the arena's rewards × milliseconds.
    pub fn earned_by_day(&self, key: NodeId, at: Millis) -> BTreeMap<u64, u128> {
        let mut earned = self.entrants.get(&key).map(|entrant| entrant.earned.clone()).unwrap_or_default();
        for competition in self.competitions.values().filter(|found| found.payees.contains_key(&key)) {
            if let Some((total, days)) = competition.unbooked(at).get(&key) {
                earned.book(*total, days);
            }
        }
        earned.days
    }

    /// Books what was earned up to now.
    pub(super) fn accrue(&mut self, id: CompetitionId) {
        let now = self.tip.now();
        let Some(competition) = self.competitions.get_mut(&id) else { return };
        let unbooked = competition.unbooked(now);
        competition.paid_from = now;
        for (total, days) in unbooked.values() {
            competition.earned.book(*total, days);
        }
        for (key, (total, days)) in unbooked {
            self.entrants.entry(key).or_default().earned.book(total, &days);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn days_add_up_to_the_whole(from in 0_u64..100 * DAY_MS, span in 0_u64..100 * DAY_MS, rate in 1_u64..1000) {
            let upto = |at: Millis| u128::from(at.since(Millis(from)).0 / 7 * rate);
            let to = Millis(from + span);
            let days = days_of(Millis(from), to, upto);
            prop_assert_eq!(days.values().sum::<u128>(), upto(to));
            prop_assert!(days.keys().all(|day| (from / DAY_MS..=to.0 / DAY_MS).contains(day)));
        }
    }

    #[test]
    fn only_the_newest_days_are_kept() {
        let mut earned = Earned::default();
        let days = 3 * limits::EARNING_DAYS_MAX as u64;
        let upto = |at: Millis| u128::from(at.0);
        earned.book(upto(Millis(days * DAY_MS)), &days_of(Millis(0), Millis(days * DAY_MS), upto));
        earned.book(5, &Days::from([(days, 5)]));
        assert_eq!(earned.total, u128::from(days * DAY_MS) + 5);
        assert_eq!(earned.days.len(), limits::EARNING_DAYS_MAX);
        assert_eq!(earned.days.last_key_value(), Some((&days, &5)));
    }
}
