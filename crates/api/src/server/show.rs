//! From the fold's state to what the API says. Every gate is asked here.

mod account;
pub(crate) mod boards;
pub(crate) mod detail;

use arena::State;
use arena::calendar::civil_from_days;
use arena::record::{EntryId, RoundNumber, Step};
use arena::rule::{Direction, Rule, Scoring, info};
use arena::spec::{CompetitionId, Kind};
use arena::state::{Artefact, Competition, Entry, EntryState, Role, Round, RoundSummary, Status};
use wire::{Millis, NodeId};

use crate::host::index::Index;
use crate::host::shared::View;
use crate::model;
use crate::model::Time;

/// Days of activity that a competition's row shows.
const ACTIVITY_DAYS: usize = 30;

pub(crate) fn hex(id: impl std::fmt::Display) -> String {
    id.to_string()
}

pub(crate) fn day(days: u64) -> String {
    let (year, month, day) = civil_from_days(days as i64);
    format!("{year:04}-{month:02}-{day:02}")
}

fn payees(found: &arena::state::Competition) -> Vec<model::Payee> {
    let raised = |key: &NodeId| found.contributions().get(key).copied().unwrap_or(0);
    let one = |(key, share): (&NodeId, &u64)| model::Payee {
        entrant: hex(*key),
        share_percent: percent(*share),
        raised_percent: percent(raised(key)),
    };
    let mut all: Vec<model::Payee> = found.payees().iter().map(one).collect();
    all.sort_by(|a, b| b.share_percent.total_cmp(&a.share_percent));
    all
}

fn bounty((bounty, claim): (&arena::spec::Bounty, Option<arena::state::Claim>)) -> model::Bounty {
    model::Bounty {
        raw_score: bounty.raw,
        share_percent: percent(bounty.share_ppm.into()),
        rounds: bounty.rounds,
        entrant: claim.map(|claim| hex(claim.entrant)),
        rounds_left: claim.map_or(0, |claim| claim.rounds_left),
    }
}

fn percent(ppm: u64) -> f64 {
    ppm as f64 / 10_000.0
}

/// One word for a step of a round.
pub(crate) fn step_name(step: Step) -> &'static str {
    match step {
        Step::Open => "open",
        Step::Pooling => "pooling",
        Step::Opening => "opening",
        Step::Drawing => "drawing",
        Step::Judging => "evaluating",
    }
}

/// Where raw scores of a rule lie.
fn scale_name(rule: &Rule) -> &'static str {
    match rule {
        Rule::Lossless { .. } | Rule::Lossy { .. } => "normalized_0_1",
        Rule::Weighted(_) | Rule::Link(_) | Rule::Objective(_) => "raw",
    }
}

fn direction_name(direction: Direction) -> &'static str {
    match direction {
        Direction::Higher => "higher_is_better",
        Direction::Lower => "lower_is_better",
    }
}

pub(crate) fn round(round: &Round) -> model::Round {
    let (judged, to_judge) = round.progress();
    model::Round {
        round_number: round.number.0,
        state: step_name(round.step).to_owned(),
        start_at: Time(round.opened_at),
        end_at: Time(round.closes),
        until: Some(Time(round.until)),
        completed_at: None,
        entries: round.entries.len() as u64,
        judged: judged as u64,
        to_judge: to_judge as u64,
        void: None,
        seed: None,
        takeover: None,
        champion: None,
        score_to_beat: None,
    }
}

pub(crate) fn summary(view: &View, competition: &Competition, summary: &RoundSummary) -> model::Round {
    let lists = view.index.competitions.get(&competition.id);
    let entries = lists.and_then(|lists| lists.rounds.get(&std::cmp::Reverse(summary.round)));
    let challengers = entries.map_or(0, |entries| {
        let made = |id: &&EntryId| view.state.entry(**id).is_some_and(|entry| entry.role == Role::Challenger);
        entries.iter().filter(made).count() as u64
    });
    model::Round {
        round_number: summary.round.0,
        state: if summary.void.is_some() { "void" } else { "completed" }.to_owned(),
        start_at: Time(summary.opened_at),
        end_at: Time(summary.closed_at),
        until: None,
        completed_at: Some(Time(summary.completed_at)),
        entries: challengers,
        judged: summary.board.len() as u64,
        to_judge: summary.board.len() as u64,
        void: summary.void.map(|reason| reason.to_string()),
        seed: summary.void.is_none().then(|| hex(summary.seed)),
        takeover: summary.takeover.map(|entry| entry.0),
        champion: summary.champion.map(|entry| entry.0),
        score_to_beat: summary.to_beat,
    }
}

/// Rounds of a competition, newest first: live ones, then those that are over.
pub(crate) fn rounds(
    view: &View,
    competition: &Competition,
    start: usize,
    count: usize,
) -> (Vec<model::Round>, usize) {
    let total = competition.live.len() + competition.summaries.len();
    let live = competition.live.values().rev().map(round);
    let over = competition.summaries.iter().rev();
    let skipped = start.saturating_sub(competition.live.len());
    let rows: Vec<model::Round> = live
        .skip(start)
        .chain(over.skip(skipped).take(count).map(|found| summary(view, competition, found)))
        .take(count)
        .collect();
    (rows, total)
}

/// State of an entry's round, and when it closes or closed.
pub(crate) fn round_of(state: &State, id: &CompetitionId, number: RoundNumber) -> (String, Option<Time>) {
    let Some(competition) = state.competition(id) else { return ("completed".to_owned(), None) };
    if let Some(live) = competition.live.get(&number) {
        return (step_name(live.step).to_owned(), Some(Time(live.closes)));
    }
    let found = competition.summaries.iter().rev().find(|summary| summary.round == number);
    let word = if found.is_some_and(|summary| summary.void.is_some()) { "void" } else { "completed" };
    (word.to_owned(), found.map(|summary| Time(summary.closed_at)))
}

pub(crate) fn competition(
    view: &View,
    found: &Competition,
    viewer: Option<NodeId>,
    at: Millis,
) -> model::Competition {
    let (state, spec) = (&view.state, &found.spec);
    let status = found.status();
    let rule = spec.rule();
    let lists = view.index.competitions.get(&found.id);
    let daily = lists.map_or_else(Vec::new, |lists| {
        let newest = lists.daily.iter().rev().take(ACTIVITY_DAYS);
        let mut days: Vec<_> =
            newest.map(|(days, count)| model::ActivityDay { date: day(*days), count: *count }).collect();
        days.reverse();
        days
    });
    let (earned, earnings) = found.earned(at);
    let newest = earnings.len().saturating_sub(ACTIVITY_DAYS);
    let current = found
        .open_round()
        .or_else(|| found.live.values().next_back())
        .map(round)
        .or_else(|| found.summaries.back().map(|last| summary(view, found, last)));
    let baseline = found.last_judged().and_then(|last| {
        // Its own entry: a board keeps its best rows only.
        let entry = lists?.baselines.get(&last.round)?;
        state.entry(*entry)?.scoring().map(|scoring| scoring.score)
    });
    let weight = percent(spec.reward.weight_ppm.into());
    let burn = found.burn_ppm(at);
    let unburned = |burn: u64| weight * (1.0 - burn as f64 / 1e6);
    model::Competition {
        id: hex(found.id),
        name: spec.name.clone(),
        title: spec.title.clone(),
        description: spec.about.clone(),
        kind: if spec.kind == Kind::Codec { "codec" } else { "program" }.to_owned(),
        state: match status {
            Status::Pending => "pending",
            Status::Active => "active",
            Status::Completed => "completed",
        }
        .to_owned(),
        opener: hex(found.opener),
        rule: spec.rule.name.to_owned(),
        formula: info(spec.rule.name).map_or(String::new(), |info| info.formula.to_owned()),
        score_direction: direction_name(rule.direction()).to_owned(),
        score_scale: scale_name(&rule).to_owned(),
        takeover_percent: percent(spec.takeover().margin_ppm.into()),
        takeover_alpha_percent: percent(spec.takeover().alpha_ppm.into()),
        start_at: Time(spec.schedule.opens(0)),
        end_at: found.completed_at.map(Time),
        ending: found.ending && status != Status::Completed,
        created_at: Time(found.created_at),
        updated_at: Time(lists.map_or(found.created_at, |lists| lists.updated_at.max(found.created_at))),
        round_length_in_days: match (spec.schedule.days, spec.schedule.every_s) {
            (0, every_s) => every_s as f64 / 86_400.0,
            (days, _) => f64::from(days),
        },
        next_round_at: found.next_opens(at).map(Time),
        curr_round: current,
        score_to_beat: found.score_to_beat().map(|beat| model::ToBeat {
            raw_score: beat.raw,
            round_number: beat.round.0,
            provisional: beat.provisional,
        }),
        top: found.champion.map(|champion| model::TopScore {
            submission_id: champion.entry.0,
            entrant: hex(champion.entrant),
            score: champion.scoring.score.score,
            raw_score: champion.scoring.score.raw,
            round_number: champion.round.0,
            since: Time(champion.since),
            code: hex(champion.code),
        }),
        baseline: spec.baseline.code.map(|_| spec.baseline.name.clone()),
        baseline_score: baseline.map(|score| score.score),
        baseline_raw_score: baseline.map(|score| score.raw),
        baseline_valid: spec.baseline.code.and(found.last_judged()).map(|_| baseline.is_some()),
        total_submissions: found.submissions,
        active_entrants: lists.map_or(0, |lists| lists.entrants.len() as u64),
        total_rounds: (found.live.len() + found.summaries.len()) as u64,
        daily_submissions: daily,
        weight_percent: weight,
        burn_percent: percent(burn),
        base_burn_percent: percent(spec.reward.base_burn_ppm.into()),
        total_earned_days: boards::earned_days(earned),
        daily_earnings: earnings.iter().skip(newest).map(boards::earning_day).collect(),
        emissions_percent: if status == Status::Active { unburned(burn) } else { 0.0 },
        max_emissions_percent: unburned(spec.reward.base_burn_ppm.into()),
        payees: payees(found),
        bounties: found.bounties().map(bounty).collect(),
        fee: spec.fee.amount,
        fee_currency: spec.fee.currency.clone(),
        pay_to: spec.fee.pay_to.clone(),
        bytes_max: spec.submission.bytes_max,
        forms: spec.submission.forms.iter().map(|form| form.name().to_owned()).collect(),
        items: spec.inputs.items,
        by_registration: spec.submission.registered,
        registered: found.registered.len() as u64,
        may_enter: viewer.map(|key| found.may_enter(key)),
        limits: model::Limits {
            memory_bytes: spec.resources.memory_bytes,
            fuel: spec.resources.fuel,
            call_s: spec.resources.call_s,
            startup_s: spec.resources.startup_s,
            cpu_milli: spec.resources.cpu_milli,
            processes: spec.resources.processes,
            disk_bytes: spec.resources.disk_bytes,
        },
        prepare: spec.resources.prepare.clone(),
        code_delay_s: spec.reveal.code_delay_s,
        doc_url: spec.links.doc_url.clone(),
        image_url: spec.links.image_url.clone(),
        sponsor: spec.links.sponsor.clone(),
        sponsor_url: spec.links.sponsor_url.clone(),
        samples: spec.inputs.samples.map(hex),
        template: spec.baseline.template.map(hex),
        note: found.notes.back().map(boards::note),
    }
}

/// What was measured, where the viewer may know it.
#[expect(clippy::option_option, reason = "hidden, or shown and not scored")]
pub(crate) fn results<'a>(
    state: &State,
    entry: &'a Entry,
    viewer: Option<NodeId>,
    at: Millis,
) -> Option<Option<&'a Scoring>> {
    state.gate(entry.id, Artefact::Result, viewer, at).ok().map(|()| entry.scoring())
}

/// A row of the list.
pub(crate) fn submission(
    state: &State,
    index: &Index,
    entry: &Entry,
    viewer: Option<NodeId>,
    at: Millis,
) -> model::Submission {
    let competition = state.competition(&entry.competition);
    let results = results(state, entry, viewer, at);
    let revealed = results.is_some();
    let scoring = results.flatten();
    let code = index.code_gate(state, entry, viewer, at);
    let judged = matches!(
        entry.state,
        EntryState::Scored(_) | EntryState::Failed(_) | EntryState::Disputed | EntryState::Copy { .. }
    );
    let word = if judged && !revealed { "evaluating" } else { entry.state.name() };
    let failure = match entry.state {
        EntryState::Failed(failure) if revealed => Some(failure.to_string()),
        EntryState::Copy { of } if revealed => Some(format!("the code of entry {of}")),
        EntryState::Disputed if revealed => Some("judges did not agree".to_owned()),
        _ => None,
    };
    let figures = scoring.and_then(|scoring| scoring.figures);
    let takeover = competition.is_some_and(|found| {
        found
            .summaries
            .iter()
            .rev()
            .find(|summary| summary.round == entry.round)
            .is_some_and(|summary| summary.takeover == Some(entry.id))
    });
    model::Submission {
        id: entry.id.0,
        competition_id: hex(entry.competition),
        competition: competition.map_or(String::new(), |found| found.spec.name.clone()),
        round_number: entry.round.0,
        state: word.to_owned(),
        entrant: hex(entry.entrant),
        version: entry.version,
        role: entry.role.into(),
        form: entry.form.name().to_owned(),
        title: state.about(entry.id).map_or(String::new(), |about| about.title.clone()),
        submitted_at: Time(entry.submitted_at),
        eval_at: entry.settled_at.filter(|_| revealed).map(Time),
        eval_time_in_seconds: entry.settled_at.filter(|_| revealed).and_then(|settled| {
            let leased = index.first_leased.get(&entry.id)?;
            Some(settled.since(*leased).0 as f64 / 1000.0)
        }),
        score: scoring.map(|scoring| scoring.score.score),
        raw_score: scoring.map(|scoring| scoring.score.raw),
        rank: entry.rank.filter(|_| revealed),
        top_score: competition
            .and_then(|found| found.champion)
            .is_some_and(|champion| champion.entry == entry.id || entry.origin == Some(champion.entry)),
        takeover,
        eval_error: failure,
        compression_ratio: figures.map(|figures| figures.ratio),
        similarity: figures.map(|figures| figures.similarity),
        task_time_s: figures.map(|figures| figures.task_time_s),
        revealed,
        code_revealed: code.is_ok(),
        reveal_at: code.err().and_then(|gate| gate.reveal_at).or(entry.reveal_at).map(Time),
    }
}
