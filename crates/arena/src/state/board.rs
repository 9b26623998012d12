//! Leaderboards: of a competition, of the arena, of a key; and the board of what cannot be improved in one figure
//! without losing in another.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use wire::{Millis, NodeId};

use super::State;
use super::competition::{BoardRow, Competition, RoundSummary};
use super::entry::{Entry, Role};
use crate::record::{EntryId, RoundNumber, Step};
use crate::spec::CompetitionId;

/// What the arena's leaderboard is sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaderMode {
    /// Most rounds won.
    FirstPlaces,
    /// Highest mean of normalised scores.
    MeanScore,
    /// Highest median of normalised scores.
    MedianScore,
    /// Lowest mean of ranks.
    MeanPlace,
    /// Lowest median of ranks.
    MedianPlace,
    /// Most entries.
    TotalSubmissions,
    /// Most earned.
    Earnings,
}

/// A row of the arena's leaderboard.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Leader {
    /// From 1; equal values share a rank.
    pub rank: u32,
    /// Key.
    pub entrant: NodeId,
    /// Rounds in which an entry of the key, new or automatic, was first.
    pub first_places: u32,
    /// Earned, 10⁻⁹ of the arena's rewards × milliseconds.
    pub earned: u128,
    /// Entries, without automatic ones.
    pub submissions: u32,
    /// Competitions entered.
    pub competitions: u32,
    /// When it first entered.
    pub first_submission_at: Millis,
    /// Mean of normalised scores.
    pub mean_score: Option<f64>,
    /// Lower median of normalised scores.
    pub median_score: Option<f64>,
    /// Mean of ranks.
    pub mean_place: Option<f64>,
    /// Lower median of ranks.
    pub median_place: Option<f64>,
}

/// What a key did.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// Its row of the leaderboard, by earnings.
    pub leader: Leader,
    /// Entries that were scored.
    pub scored: u32,
    /// Best normalised score.
    pub best_score: Option<f64>,
    /// Newest entry.
    pub last_submission_at: Option<Millis>,
    /// Entries per day (days since 1970, UTC).
    pub activity: BTreeMap<u64, u32>,
    /// Earned per day (days since 1970, UTC), 10⁻⁹ of the arena's rewards × milliseconds.
    pub earnings: BTreeMap<u64, u128>,
    /// Competitions and its entries there, oldest first.
    pub competitions: BTreeMap<CompetitionId, Vec<EntryId>>,
    /// Competitions that it leads.
    pub leads: Vec<CompetitionId>,
}

/// The best of one completed round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScorePoint {
    /// Round.
    pub round: RoundNumber,
    /// When it was completed.
    pub at: Millis,
    /// Its first row.
    pub best: BoardRow,
}

/// What the next champion needs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ScoreToBeat {
    /// Raw score that takes over.
    pub raw: f64,
    /// Round on whose inputs it was measured.
    pub round: RoundNumber,
    /// Measured on an earlier round's inputs: the incumbent is judged again on those of the round to come.
    pub provisional: bool,
}

/// An entry that no other beats in ratio, speed and fidelity at once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ParetoPoint {
    /// Entry.
    pub entry: EntryId,
    /// Its maker.
    pub entrant: NodeId,
    /// Original size ÷ compressed size.
    pub ratio: f64,
    /// Original bytes per second of compress plus decompress.
    pub bytes_per_s: u64,
    /// Mean similarity.
    pub similarity: f64,
}

impl ParetoPoint {
    fn of(row: &BoardRow) -> Option<Self> {
        let figures = row.scoring.figures?;
        Some(Self {
            entry: row.entry,
            entrant: row.entrant,
            ratio: figures.ratio,
            bytes_per_s: row.scoring.bytes_per_s,
            similarity: figures.similarity,
        })
    }
}

impl RoundSummary {
    /// The Pareto board of the round: highest ratio first. Of entries that are equal in all three the first counts.
    pub fn pareto(&self) -> Vec<ParetoPoint> {
        front(self.board.iter().filter_map(ParetoPoint::of).collect())
    }
}

/// What nothing beats, in one sweep from the highest ratio down: whoever came before is at least as good in that, so a
/// point stays if nobody before is at least as fast and as faithful.
fn front(mut points: Vec<ParetoPoint>) -> Vec<ParetoPoint> {
    points.sort_by(|a, b| {
        let speed = b.bytes_per_s.cmp(&a.bytes_per_s);
        b.ratio.total_cmp(&a.ratio).then(speed).then(b.similarity.total_cmp(&a.similarity))
    });
    // Speed → the best similarity among those that are at least as fast; it falls as speed rises.
    let mut stairs: BTreeMap<u64, f64> = BTreeMap::new();
    points.retain(|point| {
        let beside = stairs.range(point.bytes_per_s..).next();
        if beside.is_some_and(|(_, similarity)| *similarity >= point.similarity) {
            return false;
        }
        stairs.retain(|speed, similarity| *speed > point.bytes_per_s || *similarity > point.similarity);
        stairs.insert(point.bytes_per_s, point.similarity);
        true
    });
    points.sort_by(|a, b| b.ratio.total_cmp(&a.ratio).then(a.entry.cmp(&b.entry)));
    points
}

impl Competition {
    /// The newest round that was judged.
    pub fn last_judged(&self) -> Option<&RoundSummary> {
        self.summaries.iter().rev().find(|summary| summary.void.is_none())
    }

    /// The competition's leaderboard: of the newest judged round each key's best row, and the baseline's, whoever opened the
    /// competition; ranked anew. `state` knows which entry is the baseline.
    pub fn leaderboard(&self, state: &State) -> Vec<BoardRow> {
        let Some(summary) = self.last_judged() else { return Vec::new() };
        let is_baseline = |id| state.entry(id).is_some_and(|entry| entry.role == Role::Baseline);
        let mut seen = BTreeSet::new();
        let best = summary.board.iter().filter(|row| seen.insert((row.entrant, is_baseline(row.entry))));
        best.enumerate().map(|(index, row)| BoardRow { rank: index as u32 + 1, ..*row }).collect()
    }

    /// The best of each judged round, oldest first.
    pub fn score_series(&self) -> Vec<ScorePoint> {
        let point = |summary: &RoundSummary| {
            let best = *summary.board.first()?;
            Some(ScorePoint { round: summary.round, at: summary.completed_at, best })
        };
        self.summaries.iter().filter_map(point).collect()
    }

    /// What the next champion needs; `None` before anything was judged.
    pub fn score_to_beat(&self) -> Option<ScoreToBeat> {
        let direction = self.spec.rule().direction();
        let judging = self.live.values().find(|round| round.step == Step::Judging);
        if let Some(round) = judging {
            let settled = |id| round.jobs.get(&id).is_some_and(|job| job.settlement.is_some());
            let known = round.automatic().next().is_some() && round.automatic().all(settled);
            let raws = round.automatic().filter_map(|id| round.scoring(id)).map(|scoring| scoring.score.raw);
            let top = raws.min_by(|a, b| direction.order(*a, *b));
            if let Some(top) = top.filter(|_| known) {
                let raw = self.spec.takeover().threshold(top, direction);
                return Some(ScoreToBeat { raw, round: round.number, provisional: false });
            }
        }
        let last = self.last_judged()?;
        Some(ScoreToBeat { raw: last.to_beat?, round: last.round, provisional: true })
    }
}

/// Normalised score of an entry whose round is over: before, nobody but its maker may know it.
fn final_score(entry: &Entry) -> Option<f64> {
    entry.rank.and(entry.scoring()).map(|scoring| scoring.score.score)
}

fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(values.len().saturating_sub(1) / 2).copied()
}

impl State {
    /// The arena's leaderboard, best first. Who has no value (nothing scored) stands last.
    pub fn leaderboard(&self, mode: LeaderMode, at: Millis) -> Vec<Leader> {
        let earned = self.earnings(at);
        let mut leaders: Vec<Leader> = self
            .entrants
            .keys()
            .filter_map(|key| self.leader(*key, earned.get(key).copied().unwrap_or(0)))
            .collect();
        rank_leaders(mode, &mut leaders);
        leaders
    }

    /// A key's row of the leaderboard, not ranked yet; `None` if it never entered. Costs as much as the key has entries.
    pub fn leader(&self, key: NodeId, earned: u128) -> Option<Leader> {
        let entrant = self.entrants.get(&key).filter(|entrant| !entrant.entries.is_empty())?;
        let of = |ids: &[EntryId]| ids.iter().filter_map(|id| self.entry(*id)).collect::<Vec<&Entry>>();
        let (made, automatic) = (of(&entrant.entries), of(&entrant.automatic));
        let scores: Vec<f64> = made.iter().filter_map(|entry| final_score(entry)).collect();
        let places: Vec<f64> = made.iter().filter_map(|entry| entry.rank).map(f64::from).collect();
        let competitions: BTreeSet<CompetitionId> = made.iter().map(|entry| entry.competition).collect();
        let first = |entry: &&&Entry| entry.rank == Some(1);
        Some(Leader {
            rank: 0,
            entrant: key,
            first_places: made.iter().chain(&automatic).filter(first).count() as u32,
            earned,
            submissions: made.len() as u32,
            competitions: competitions.len() as u32,
            first_submission_at: made.first().map_or(Millis(u64::MAX), |entry| entry.submitted_at),
            mean_score: mean(&scores),
            median_score: median(&scores),
            mean_place: mean(&places),
            median_place: median(&places),
        })
    }

    /// What a key did; `None` if it never entered.
    pub fn profile(&self, key: NodeId, at: Millis) -> Option<Profile> {
        let leader = self.leaderboard(LeaderMode::Earnings, at).into_iter().find(|row| row.entrant == key)?;
        self.profile_of(leader, at)
    }

    /// What the key of a row of the leaderboard did.
    pub fn profile_of(&self, leader: Leader, at: Millis) -> Option<Profile> {
        let key = leader.entrant;
        let entrant = self.entrants.get(&key)?;
        let made: Vec<&Entry> = entrant.entries.iter().filter_map(|id| self.entry(*id)).collect();
        let mut activity: BTreeMap<u64, u32> = BTreeMap::new();
        let mut competitions: BTreeMap<CompetitionId, Vec<EntryId>> = BTreeMap::new();
        for entry in &made {
            *activity.entry(entry.submitted_at.0 / 86_400_000).or_default() += 1;
            competitions.entry(entry.competition).or_default().push(entry.id);
        }
        let scores = made.iter().filter_map(|entry| final_score(entry));
        let leads = self
            .competitions
            .values()
            .filter(|found| found.champion.is_some_and(|champion| champion.entrant == key));
        Some(Profile {
            leader,
            scored: made.iter().filter(|entry| final_score(entry).is_some()).count() as u32,
            best_score: scores.max_by(f64::total_cmp),
            last_submission_at: made.last().map(|entry| entry.submitted_at),
            activity,
            earnings: self.earned_by_day(key, at),
            competitions,
            leads: leads.map(|found| found.id).collect(),
        })
    }

    /// An entry's line: itself, its parents, their parents, each once, nearest first.
    pub fn lineage(&self, id: EntryId) -> Vec<EntryId> {
        let mut line = Vec::new();
        let mut seen = BTreeSet::new();
        let mut next = vec![id];
        while !next.is_empty() {
            let mut parents = Vec::new();
            for id in next {
                let Some(entry) = self.entry(id).filter(|entry| seen.insert(entry.id)) else { continue };
                line.push(entry.id);
                parents.extend(entry.origin);
                parents.extend(&entry.parents);
            }
            next = parents;
        }
        line
    }
}

/// Sorts rows best first and ranks them; equal values share a rank.
pub fn rank_leaders(mode: LeaderMode, leaders: &mut [Leader]) {
    leaders.sort_by(|x, y| {
        let earlier = x.first_submission_at.cmp(&y.first_submission_at);
        key_of(mode, x).total_cmp(&key_of(mode, y)).then(earlier).then(x.entrant.cmp(&y.entrant))
    });
    let mut rank = 0;
    let mut last = None;
    for (index, leader) in leaders.iter_mut().enumerate() {
        let key = key_of(mode, leader);
        if last != Some(key) {
            rank = index as u32 + 1;
            last = Some(key);
        }
        leader.rank = rank;
    }
}

/// Smaller is better; none is worst.
fn key_of(mode: LeaderMode, leader: &Leader) -> f64 {
    let high = |value: Option<f64>| value.map_or(f64::INFINITY, |value| -value);
    let low = |value: Option<f64>| value.unwrap_or(f64::INFINITY);
    match mode {
        LeaderMode::FirstPlaces => -f64::from(leader.first_places),
        LeaderMode::MeanScore => high(leader.mean_score),
        LeaderMode::MedianScore => high(leader.median_score),
        LeaderMode::MeanPlace => low(leader.mean_place),
        LeaderMode::MedianPlace => low(leader.median_place),
        LeaderMode::TotalSubmissions => -f64::from(leader.submissions),
        LeaderMode::Earnings => -(leader.earned as f64),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, pair by pair.
    fn slow(points: &[ParetoPoint]) -> Vec<EntryId> {
        let figures = |point: &ParetoPoint| (point.ratio, point.bytes_per_s, point.similarity);
        let at_least = |a: &ParetoPoint, b: &ParetoPoint| {
            a.ratio >= b.ratio && a.bytes_per_s >= b.bytes_per_s && a.similarity >= b.similarity
        };
        let stays = |(index, point): &(usize, &ParetoPoint)| {
            let beaten =
                points.iter().any(|other| at_least(other, point) && figures(other) != figures(point));
            !beaten && points[..*index].iter().all(|other| figures(other) != figures(point))
        };
        let mut ids: Vec<EntryId> =
            points.iter().enumerate().filter(stays).map(|(_, point)| point.entry).collect();
        ids.sort_unstable();
        ids
    }

    proptest! {
        #[test]
        fn the_sweep_finds_what_comparing_all_pairs_finds(rows in proptest::collection::vec((0_u8..6, 0_u64..6, 0_u8..6), 0..60)) {
            let point = |(index, (ratio, bytes_per_s, similarity)): (usize, &(u8, u64, u8))| ParetoPoint {
                entry: EntryId(index as u64),
                entrant: NodeId([0; 32]),
                ratio: f64::from(*ratio),
                bytes_per_s: *bytes_per_s,
                similarity: f64::from(*similarity),
            };
            let points: Vec<ParetoPoint> = rows.iter().enumerate().map(point).collect();
            let mut found: Vec<EntryId> = front(points.clone()).iter().map(|point| point.entry).collect();
            found.sort_unstable();
            prop_assert_eq!(found, slow(&points));
        }
    }
}
