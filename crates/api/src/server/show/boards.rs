//! Boards, profiles, announcements.

use arena::State;
use arena::state::{
    BoardRow, Competition, Judge, Leader, LeaderMode, Note, Profile, RateStatus, RoundSummary,
};
use wire::{Millis, NodeId};

use super::{day, hex};
use crate::host::shared::View;
use crate::model::{self, Mode, Time};

/// Entries of a profile's competition that are listed.
const NEWEST: usize = 20;
const DAY_MS: f64 = 86_400_000.0;

pub(crate) fn mode(mode: Mode) -> LeaderMode {
    match mode {
        Mode::FirstPlaces => LeaderMode::FirstPlaces,
        Mode::MeanScore => LeaderMode::MeanScore,
        Mode::MedianScore => LeaderMode::MedianScore,
        Mode::MeanPlace => LeaderMode::MeanPlace,
        Mode::MedianPlace => LeaderMode::MedianPlace,
        Mode::TotalSubmissions => LeaderMode::TotalSubmissions,
        Mode::Earnings => LeaderMode::Earnings,
    }
}

pub(crate) fn note(note: &Note) -> model::Announcement {
    model::Announcement { at: Time(note.at), from: hex(note.from), text: note.text.clone() }
}

pub(crate) fn row(state: &State, row: &BoardRow) -> model::BoardEntry {
    let entry = state.entry(row.entry);
    let figures = row.scoring.figures;
    model::BoardEntry {
        rank: row.rank,
        submission_id: row.entry.0,
        entrant: hex(row.entrant),
        version: entry.map_or(0, |entry| entry.version),
        role: entry.map_or(model::EntryRole::Challenger, |entry| entry.role.into()),
        title: state.about(row.entry).map_or(String::new(), |about| about.title.clone()),
        score: row.scoring.score.score,
        raw_score: row.scoring.score.raw,
        compression_ratio: figures.map(|figures| figures.ratio),
        similarity: figures.map(|figures| figures.similarity),
        task_time_s: figures.map(|figures| figures.task_time_s),
        bytes_per_s: row.scoring.bytes_per_s,
        echo_of: row.echo_of.map(|entry| entry.0),
        submitted_at: Time(entry.map_or(Millis(0), |entry| entry.submitted_at)),
        daily_percent: None,
        submissions_count: None,
        join_date: None,
    }
}

/// A row of a competition's leaderboard, with what its key earns. A baseline earns nothing, whatever its opener's own entries do.
pub(crate) fn paid_row(
    view: &View,
    found: &Competition,
    board_row: &BoardRow,
    at: Millis,
) -> model::BoardEntry {
    let row = row(&view.state, board_row);
    if row.role == model::EntryRole::Baseline {
        return model::BoardEntry { daily_percent: Some(0.0), submissions_count: Some(0), ..row };
    }
    let daily = earned_days(found.daily(board_row.entrant, at)) * 100.0;
    let lists = view.index.competitions.get(&found.id);
    let made = lists.and_then(|lists| lists.entrants.get(&board_row.entrant));
    model::BoardEntry {
        daily_percent: Some(daily),
        submissions_count: Some(made.map_or(0, |(count, _)| *count)),
        join_date: made.map(|(_, first)| Time(*first)),
        ..row
    }
}

pub(crate) fn pareto(summary: &RoundSummary) -> Vec<model::Pareto> {
    let point = |point: arena::state::ParetoPoint| model::Pareto {
        submission_id: point.entry.0,
        entrant: hex(point.entrant),
        compression_ratio: point.ratio,
        bytes_per_s: point.bytes_per_s,
        similarity: point.similarity,
    };
    summary.pareto().into_iter().map(point).collect()
}

pub(crate) fn points(state: &State, found: &Competition) -> Vec<model::ScorePointRow> {
    let point = |point: arena::state::ScorePoint| model::ScorePointRow {
        date: Time(point.at),
        round_number: point.round.0,
        submission_id: point.best.entry.0,
        entrant: hex(point.best.entrant),
        version: state.entry(point.best.entry).map_or(0, |entry| entry.version),
        score: point.best.scoring.score.score,
        raw_score: point.best.scoring.score.raw,
    };
    found.score_series().into_iter().map(point).collect()
}

/// Rewards × milliseconds as days of all rewards.
pub(crate) fn earned_days(amount: u128) -> f64 {
    amount as f64 / 1e9 / DAY_MS
}

pub(crate) fn earning_day((days, amount): (&u64, &u128)) -> model::EarningDay {
    model::EarningDay { date: day(*days), earned_days: earned_days(*amount) }
}

pub(crate) fn leader(row: &Leader) -> model::LeaderRow {
    model::LeaderRow {
        rank: row.rank,
        entrant: hex(row.entrant),
        first_places: row.first_places,
        earned_days: earned_days(row.earned),
        total_submissions: row.submissions,
        competitions_entered: row.competitions,
        first_submission_at: Time(row.first_submission_at),
        mean_score: row.mean_score,
        median_score: row.median_score,
        mean_place: row.mean_place,
        median_place: row.median_place,
    }
}

pub(crate) fn profile(state: &State, key: NodeId, found: &Profile, at: Millis) -> model::Profile {
    let competitions = found.competitions.iter().map(|(id, entries)| model::ProfileCompetition {
        competition_id: hex(id),
        name: state.competition(id).map_or(String::new(), |found| found.spec.name.clone()),
        leads: found.leads.contains(id),
        submissions: entries.len() as u64,
        newest: entries.iter().rev().take(NEWEST).map(|entry| entry.0).collect(),
    });
    model::Profile {
        leader: leader(&found.leader),
        scored_submissions: found.scored,
        best_score: found.best_score,
        last_submission_at: found.last_submission_at.map(Time),
        activity: found
            .activity
            .iter()
            .map(|(days, count)| model::ActivityDay { date: day(*days), count: *count })
            .collect(),
        earnings: found.earnings.iter().map(earning_day).collect(),
        competitions: competitions.collect(),
        rate_limit: rate(&state.rate_status(key, at)),
    }
}

pub(crate) fn rate(status: &RateStatus) -> model::RateLimit {
    model::RateLimit {
        limit: status.limit,
        used: status.used,
        left: status.left,
        window_s: status.window.0 / 1000,
        next_free_at: Time(status.next_free_at),
        all_free_at: Time(status.all_free_at),
    }
}

pub(crate) fn judge(key: &NodeId, judge: &Judge) -> model::JudgeRow {
    model::JudgeRow {
        judge: hex(key),
        operator: judge.operator.clone(),
        admitted: judge.admitted,
        leased: judge.leased,
        expired: judge.expired,
        judged: judge.judged,
        agreed: judge.agreed,
        disagreed: judge.disagreed,
        withheld: judge.withheld,
    }
}
