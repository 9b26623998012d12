//! The lists that the fold keeps over jobs and leases say what a search of all jobs and leases says, at every record of
//! random histories.

use std::collections::BTreeSet;

use shoal_arena::Fold as _;
use shoal_arena::State;
use shoal_arena::record::{Derived, EntryId, Record, Settlement, Step};
use shoal_arena::state::{Competition, Job, Role, Round, Signatures};
use shoal_arena::verify;
use wire::{Hash, Millis, NodeId};

use super::chaos::play;

/// Whether something follows from a job, by the words of protocol §7.
fn follows(competition: &Competition, round: &Round, id: EntryId, job: &Job) -> bool {
    let rules = &competition.spec.judges;
    let count = match job.settlement {
        None => job.plurality(rules.tolerance_ppm).map_or(0, |(_, count)| count),
        Some(_) => job.agreeing(rules.tolerance_ppm),
    };
    if count >= job.need {
        let other = round.baseline.filter(|baseline| *baseline != id);
        let waits = other.is_some_and(|baseline| round.jobs[&baseline].settlement.is_none());
        return job.settlement.is_none() && !waits;
    }
    let asked = job.slots.len() >= usize::from(job.asked);
    let shown = asked && job.slots.iter().all(|slot| slot.verdict.is_some());
    let bound = asked && job.slots.iter().all(|slot| slot.seal.is_some());
    if shown {
        return job.asked < rules.max || job.settlement.is_none();
    }
    bound && !job.showing
}

fn first_due(competition: &Competition, round: &Round) -> Option<EntryId> {
    let judged = round.step == Step::Judging;
    let mut jobs = round.jobs.iter().filter(|_| judged);
    jobs.find(|(id, job)| follows(competition, round, **id, job)).map(|(id, _)| *id)
}

/// What a judge gets next.
fn best(state: &State, judge: NodeId) -> Option<EntryId> {
    let operator = &state.judges()[&judge].operator;
    let busy = state.leases_of(judge).filter(|(_, lease)| lease.expires < Millis(u64::MAX)).count();
    let mut found = Vec::new();
    for competition in state.competitions().values() {
        let rules = &competition.spec.judges;
        for round in competition.live.values() {
            let late = state.judges()[&judge].admitted_at >= round.closes;
            let part = round.nonces.get(&judge).map(|nonce| nonce.opened.is_some());
            let parts: Vec<NodeId> = round
                .nonces
                .keys()
                .copied()
                .filter(|judge| round.nonces[judge].opened.is_some() && state.is_judge(*judge))
                .collect();
            let voices: BTreeSet<&str> = parts.iter().map(|judge| &*state.judges()[judge].operator).collect();
            let voices = if rules.distinct_operators { voices.len() } else { parts.len() };
            for (id, job) in &round.jobs {
                let entry = state.entry(*id).unwrap();
                let open = job.settlement.is_none() || job.agreeing(rules.tolerance_ppm) < job.need;
                let place = open && job.slots.len() < usize::from(job.asked);
                let barred = job.barred_until(judge).is_some_and(|until| until > state.now());
                let taken = job.slots.iter().any(|slot| {
                    slot.judge == judge || (rules.distinct_operators && slot.operator == *operator)
                });
                let own = entry.entrant == judge && entry.role != Role::Baseline;
                // Where an entry asks for more judges than have a part, others help.
                let maker = entry.role != Role::Baseline && parts.contains(&entry.entrant);
                let helps = late || usize::from(job.asked) + usize::from(maker) > voices;
                if place && !barred && !taken && !own && part.unwrap_or(helps) {
                    let role = [Role::Baseline, Role::Incumbent, Role::Challenger];
                    let role = role.iter().position(|role| *role == entry.role);
                    let parts = [&round.seed.0[..], &judge.0, &id.0.to_le_bytes()];
                    let draw = Hash::of_parts("shoal 2026-11 arena order", &parts);
                    found.push((role, job.slots.is_empty(), draw, *id));
                }
            }
        }
    }
    let free = busy < shoal_arena::limits::LEASES_PER_JUDGE_MAX;
    found.into_iter().min().map(|(.., id)| id).filter(|_| free)
}

/// Nothing more can come of it: enough judges agree, or as many as can be asked do not.
fn rests(competition: &Competition, job: &Job) -> bool {
    let rules = &competition.spec.judges;
    let shown =
        job.slots.len() >= usize::from(job.asked) && job.slots.iter().all(|slot| slot.verdict.is_some());
    let agrees = job.agreeing(rules.tolerance_ppm) >= job.need;
    job.settlement.is_some() && (agrees || (shown && job.asked >= rules.max))
}

/// The moments at which something may follow without an input.
fn deadline(state: &State) -> Option<Millis> {
    let mut all: Vec<Millis> = state.leases().values().map(|lease| lease.expires).collect();
    for competition in state.competitions().values().filter(|found| found.completed_at.is_none()) {
        let schedule = &competition.spec.schedule;
        all.push(schedule.opens(competition.next_round.0));
        all.extend((schedule.rounds > 0).then(|| schedule.opens(schedule.rounds)));
        for round in competition.live.values() {
            all.extend([round.until, round.decide_from]);
            for job in round.jobs.values().filter(|job| !rests(competition, job)) {
                all.extend(state.judges().keys().filter_map(|judge| job.barred_until(*judge)));
            }
        }
    }
    all.into_iter().filter(|at| *at > state.now() && *at < Millis(u64::MAX)).min()
}

/// Challengers above the bar, best first, and how many are scored.
fn above(state: &State, competition: &Competition, round: &Round) -> (Vec<EntryId>, usize) {
    let direction = competition.spec.rule().direction();
    let raw = |id: EntryId| match (&round.jobs.get(&id)?.settlement, state.entry(id)?.scoring()) {
        (Some(Settlement::Scored { .. }), Some(scoring)) => Some(scoring.score.raw),
        _ => None,
    };
    let bar = round.automatic().filter_map(raw).min_by(|a, b| direction.order(*a, *b));
    let mut scored: Vec<(EntryId, f64)> =
        round.entries.iter().filter_map(|id| Some((*id, raw(*id)?))).collect();
    let count = scored.len();
    scored.retain(|(_, raw)| competition.spec.takeover().clears(*raw, bar, direction));
    scored.sort_by(|(a, raw_a), (b, raw_b)| direction.order(*raw_a, *raw_b).then(a.cmp(b)));
    (scored.into_iter().map(|(id, _)| id).collect(), count)
}

/// A takeover goes to the best that is sure and not contradicted: whoever is better than `entry` is out.
fn check_better(state: &State, competition: &Competition, round: &Round, entry: Option<EntryId>) {
    let (above, _) = above(state, competition, round);
    assert!(entry.is_none_or(|entry| above.contains(&entry)), "{entry:?} is not above the bar");
    let rules = &competition.spec.judges;
    for better in above.into_iter().take_while(|id| Some(*id) != entry) {
        let job = &round.jobs[&better];
        let unsure = matches!(job.comparison, Some((_, false)));
        let out = job.is_complete() && job.asked >= rules.max;
        let contradicted = out && job.agreeing(rules.tolerance_ppm) < rules.takeover;
        assert!(unsure || contradicted, "{better} was passed over for {entry:?}");
    }
}

fn asking(state: &State) -> impl Iterator<Item = NodeId> {
    state.judges().keys().copied().filter(|judge| state.wanted(*judge) > 0)
}

/// The first lease that is over.
fn over(state: &State) -> Option<shoal_arena::record::LeaseId> {
    let mut leases = state.leases().iter();
    let over = leases.find(|(_, lease)| lease.expires <= state.now() || !state.is_judge(lease.judge));
    over.map(|(id, _)| *id)
}

/// A record that follows is the one that a search finds.
fn check(state: &State, derived: &Derived) {
    if let Derived::Expired { lease } = derived {
        return assert_eq!(over(state), Some(*lease));
    }
    assert_eq!(over(state), None);
    match derived {
        Derived::Settled { entry, .. } | Derived::VerdictsDue { entry } | Derived::Referred { entry, .. } => {
            let known = state.entry(*entry).unwrap();
            let competition = state.competition(&known.competition).unwrap();
            let first = first_due(competition, &competition.live[&known.round]);
            // A takeover asks for further judges when nothing follows from a job alone.
            let asks = first.is_none() && matches!(derived, Derived::Referred { .. });
            assert!(asks || first == Some(*entry), "{first:?} was to follow, not {derived:?}");
        }
        Derived::Leased { judge, entry, .. } => {
            assert_eq!(best(state, *judge), Some(*entry));
            for before in asking(state).take_while(|other| other != judge) {
                assert_eq!(best(state, before), None);
            }
        }
        Derived::Compared { entry, comparison, sure, .. } => {
            let known = state.entry(*entry).unwrap();
            let competition = state.competition(&known.competition).unwrap();
            let round = &competition.live[&known.round];
            assert_eq!(round.jobs[entry].comparison, None);
            check_better(state, competition, round, Some(*entry));
            let (_, scored) = above(state, competition, round);
            assert_eq!(competition.spec.takeover().is_sure(comparison, scored as u32), *sure);
        }
        Derived::RoundCompleted { competition, round, takeover, .. } => {
            let competition = state.competition(competition).unwrap();
            let round = &competition.live[round];
            let decided = |id: EntryId| {
                let settlement = &round.jobs[&id].settlement;
                settlement.is_some_and(|settlement| !matches!(settlement, Settlement::Disputed))
            };
            if takeover.is_some() || (state.now() < round.until && round.automatic().all(decided)) {
                check_better(state, competition, round, *takeover);
            }
        }
        _ => {}
    }
}

/// Nothing was passed over at the end of a block.
fn check_rest(state: &State) {
    assert_eq!(over(state), None);
    for competition in state.competitions().values() {
        for round in competition.live.values() {
            assert_eq!(first_due(competition, round), None);
            let settled = round.jobs.values().filter(|job| job.settlement.is_some()).count();
            assert_eq!(round.progress(), (settled, round.jobs.len()));
        }
    }
    for judge in asking(state) {
        assert_eq!(best(state, judge), None);
    }
    assert_eq!(state.next_deadline(state.now()), deadline(state));
    for judge in state.judges().keys() {
        let held = state.leases().iter().filter(|(_, lease)| lease.judge == *judge);
        assert!(held.eq(
            state.leases_of(*judge).map(|(id, lease)| (state.leases().get_key_value(&id).unwrap().0, lease))
        ));
    }
}

#[test]
fn lists_say_what_a_search_says() {
    let (mut leased, mut compared, mut barred) = (0, 0, 0);
    for seed in 100..130 {
        let world = play(seed, 400);
        let (time, records) = &world.log[0];
        let mut state = verify::start::<State>(world.run, *time, records).unwrap();
        for (time, records) in &world.log[1..] {
            state.advance(*time);
            for record in records {
                match record {
                    Record::Derived(derived) => {
                        check(&state, derived);
                        leased += u32::from(matches!(derived, Derived::Leased { .. }));
                        compared += u32::from(matches!(derived, Derived::Compared { .. }));
                        barred += u32::from(matches!(derived, Derived::Expired { .. }));
                        state.apply(derived);
                    }
                    Record::Control(control) => {
                        let input = shoal_arena::record::Input::Control(control.clone());
                        state.accept(&input).unwrap();
                    }
                    Record::Stated(envelope) => {
                        let input = shoal_arena::record::Input::Stated(envelope.clone());
                        state.accept_with(&input, Signatures::Trust).unwrap();
                    }
                }
            }
            check_rest(&state);
        }
        assert_eq!(state, world.state);
    }
    assert!(leased > 300 && compared > 10 && barred > 30, "{leased}, {compared}, {barred}: no history");
}
