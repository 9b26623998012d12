//! What people see, derived from the folded state: the same for whoever follows the log.

use std::collections::{BTreeMap, VecDeque};

use swarm::record::{CodecEffect, Control, Effect, OffCause, Role, Traffic};
use swarm::state::{CodecEvent, CodecNews, CodecSummary, EpochSummary, Node, Phase, Presence, State};
use wire::{Epoch, Millis, NodeId};

use crate::limits;
use crate::progress::{ChampionEpoch, MinerState, MinerStatus, PhaseName, Progress, Status, Summary, shown};

/// Turns successive states into events.
#[derive(Debug, Default)]
pub struct Observer {
    nodes: BTreeMap<NodeId, (Presence, Option<u16>)>,
    trained: Option<Epoch>,
    merged: usize,
    held_out: BTreeMap<Epoch, f64>,
    failures: BTreeMap<NodeId, u64>,
    /// Events of codecs that were told.
    codecs: u64,
    began: Option<Millis>,
    /// Time and tokens, newest last: what the rate is taken over.
    rates: VecDeque<(Millis, u64)>,
}

impl Observer {
    /// Events since the last look; without the status.
    pub fn look(&mut self, state: &State) -> Vec<Progress> {
        let mut events = Vec::new();
        self.nodes(state, &mut events);
        let told = self.codecs;
        for (number, event) in state.codecs().events().filter(|(number, _)| *number >= told) {
            self.codecs = number + 1;
            events.push(codec_news(event));
        }
        self.epochs(state, &mut events);
        for (epoch, loss) in held_out(state) {
            if self.held_out.insert(epoch, loss).is_none() {
                events.push(Progress::HeldOut { epoch: epoch.0, loss });
            }
        }
        for (id, node) in state.nodes() {
            let before = self.failures.insert(*id, node.verdicts.fail).unwrap_or(0);
            if node.verdicts.fail > before {
                let failures = node.verdicts.fail - before;
                events.push(Progress::Failed { node: shown(id), epoch: state.work().epoch.0, failures });
            }
        }
        events
    }

    fn nodes(&mut self, state: &State, events: &mut Vec<Progress>) {
        for (id, node) in state.nodes() {
            let stage = node.stage.map(|stage| stage.0);
            let before = self.nodes.insert(*id, (node.presence, stage));
            let was = before.is_some_and(|(presence, _)| presence == Presence::Present);
            match node.presence {
                // A miner is told about once it has its stage.
                Presence::Present if node.join.role == Role::Miner && stage.is_none() => {}
                Presence::Present if was && before.is_some_and(|(_, old)| old == stage) => {}
                Presence::Present => {
                    let role = role_name(node.join.role).to_owned();
                    events.push(Progress::Joined { node: shown(id), role, stage });
                }
                gone if was => {
                    let lost = gone == Presence::Lost;
                    events.push(Progress::Gone { node: shown(id), stage, lost });
                }
                _ => {}
            }
        }
    }

    fn epochs(&mut self, state: &State, events: &mut Vec<Progress>) {
        for summary in state.summaries().iter().skip(self.merged) {
            let stages = &summary.stages;
            events.push(Progress::Merged {
                epoch: summary.epoch.0,
                loss: summary.loss,
                coverage: share(summary.coverage.merged, summary.coverage.forfeited.values().sum())
                    .unwrap_or(0.0),
                kept: stages.iter().map(|stage| stage.kept as usize).sum(),
                settled: stages.iter().map(|stage| (stage.witnessed + stage.unwitnessed) as usize).sum(),
                seconds: seconds(summary.merging),
            });
            events.extend(champion(summary).map(Progress::Champion));
        }
        self.merged = state.summaries().len();
        if let Phase::Training { epoch } = state.phase() {
            self.began.get_or_insert(state.work().opened);
            if self.trained != Some(epoch) {
                self.trained = Some(epoch);
                let stages = state.spec().stages.len();
                let mut members = vec![0; stages];
                for work in state.epoch_members() {
                    members[usize::from(work.member.stage.0).min(stages - 1)] += 1;
                }
                events.push(Progress::Epoch {
                    epoch: epoch.0,
                    epochs: state.spec().epochs,
                    members,
                    micro_batches: state.paths().len(),
                });
            }
        }
    }

    /// The picture now, by the wall clock `now`.
    pub fn status(&mut self, state: &State, now: Millis) -> Status {
        let totals = state.totals();
        let tokens_per_s = self.rate(now, totals.tokens);
        let training = matches!(state.phase(), Phase::Training { .. });
        let spec = state.spec();
        let last = state.summaries().back();
        let verdicts = state
            .nodes()
            .values()
            .fold((0, 0), |(pass, fail), node| (pass + node.verdicts.pass, fail + node.verdicts.fail));
        let (ratio, traffic) = (ratio(&totals.traffic), totals.traffic);
        Status {
            epoch: state.epoch().0,
            epochs: spec.epochs,
            phase: phase_name(state.phase()),
            left_s: state.phase_deadline().map(|at| seconds(at.since(now))),
            elapsed_s: self.began.map_or(0.0, |began| seconds(now.since(began))),
            loss: state.loss().or_else(|| last.and_then(|last| last.loss)),
            heldout_loss: held_out(state).last().map(|(_, loss)| loss),
            tokens: totals.tokens,
            tokens_per_s,
            micro_batches_done: if training { state.coverage().returned } else { 0 },
            micro_batches: if training { state.paths().len() as u64 } else { 0 },
            activation_bytes: traffic.activations,
            activation_ratio: ratio,
            merge_bytes: traffic.merge,
            merge_ratio: quotient(traffic.merge_full, traffic.merge),
            codec_s: seconds(traffic.codec),
            memory_spared_bytes: spared(state),
            coverage: share(totals.merged, totals.forfeited),
            miners: miners(state, now),
            validators: present(state, Role::Validator),
            passed: verdicts.0,
            failed: verdicts.1,
        }
    }

    fn rate(&mut self, now: Millis, tokens: u64) -> f64 {
        self.rates.push_back((now, tokens));
        while self.rates.len() > 2
            && now.since(self.rates[0].0) > Millis(limits::RATE_OVER.as_millis() as u64)
        {
            self.rates.pop_front();
        }
        let (at, before) = self.rates[0];
        let span = seconds(now.since(at));
        if span > 0.0 { (tokens - before.min(tokens)) as f64 / span } else { 0.0 }
    }

    /// The run's last event.
    pub fn summary(&self, state: &State, checkpoint: Option<String>, head: Option<String>) -> Summary {
        let totals = state.totals();
        let losses: Vec<f64> = state.summaries().iter().filter_map(|summary| summary.loss).collect();
        let held_out: Vec<f64> = held_out(state).map(|(_, loss)| loss).collect();
        // Time in which the run trained and merged; pauses between lives of the orchestrator do not count.
        let worked: u64 = state.summaries().iter().map(|epoch| epoch.training.0 + epoch.merging.0).sum();
        let worked = seconds(Millis(worked));
        Summary {
            loss_first: losses.first().copied(),
            loss_last: losses.last().copied(),
            heldout_loss_first: held_out.first().copied(),
            heldout_loss_last: held_out.last().copied(),
            tokens: totals.tokens,
            seconds: worked,
            tokens_per_s: if worked > 0.0 { totals.tokens as f64 / worked } else { 0.0 },
            activation_bytes: totals.traffic.activations,
            activation_ratio: ratio(&totals.traffic),
            merge_bytes: totals.traffic.merge,
            merge_ratio: quotient(totals.traffic.merge_full, totals.traffic.merge),
            codec_s: seconds(totals.traffic.codec),
            memory_spared_bytes: spared(state),
            epochs: state.summaries().back().map_or(0, |last| last.epoch.0 + 1),
            coverage: share(totals.merged, totals.forfeited),
            checkpoint,
            run: state.run().to_string(),
            head,
        }
    }
}

/// The event that a control makes, if any.
pub fn of_control(control: &Control) -> Option<Progress> {
    match control {
        Control::Resumed { down } => Some(Progress::Resumed { down_s: seconds(*down) }),
        Control::Genesis { .. }
        | Control::Drain
        | Control::Keeps { .. }
        | Control::CodecPinned(_)
        | Control::CodecUnpinned => None,
    }
}

fn codec_news(event: &CodecEvent) -> Progress {
    let (news, about) = match &event.news {
        CodecNews::Pinned { from, source } => ("pinned", format!("from epoch {}, {source}", from.0 + 1)),
        CodecNews::Unfit { node, reason } => ("unfit", format!("{}: {reason}", shown(node))),
        CodecNews::Switched { shadow: false } => ("in_force", String::new()),
        CodecNews::Switched { shadow: true } => {
            ("shadow", "one micro-batch in ten, until a validator finds no harm".to_owned())
        }
        CodecNews::Measured { by, effect } => {
            ("measured", format!("{}: {}", shown(by), effect_words(effect)))
        }
        CodecNews::Passed => ("in_force", "no harm was found in its shadow".to_owned()),
        CodecNews::Declined { given_up: false } => {
            ("declined", "too few nodes are ready for it yet".to_owned())
        }
        CodecNews::Declined { given_up: true } => ("declined", "it is given up".to_owned()),
        CodecNews::Off { cause, by } => {
            let why = match cause {
                OffCause::Fault => "it gave another tensor back",
                OffCause::Fallbacks => "more than 1 % of an epoch's tensors went by the built-in codec",
                OffCause::NoBetter => "it saved nothing against the codec before",
                OffCause::Owner => "the owner took it away",
                OffCause::Effect => {
                    "a validator cannot exclude that it changes the loss, or biases tensors, by 0.1 %"
                }
                OffCause::Losses => "micro-batches that crossed by it had a higher loss than the others",
                OffCause::Unproven => "no validator said in time what it does to the loss",
            };
            let by = by.map(|by| format!(", says {}", shown(&by))).unwrap_or_default();
            ("off", format!("{why}{by}"))
        }
    };
    let component = event.component.short();
    Progress::Codec { epoch: event.epoch.0, component, news: news.to_owned(), about }
}

fn effect_words(effect: &CodecEffect) -> String {
    let CodecEffect { micro_batches, loss, bias, slope, .. } = effect;
    let percent = |effect: &Effect| {
        format!("{:+.4} ± {:.4} %", effect.mean_ppb as f64 / 1e7, effect.error_ppb as f64 / 1e7)
    };
    let [loss, bias, slope] = [loss, bias, slope].map(percent);
    format!(
        "of {micro_batches} micro-batches the loss {loss}, to first order {slope}, length of tensors {bias}"
    )
}

/// What a champion did in an epoch that is over.
pub fn champion(summary: &EpochSummary) -> Option<ChampionEpoch> {
    let CodecSummary { component, counts, shadow } = summary.codec?;
    let micros = |time: u64| time as f64 / 1e6;
    Some(ChampionEpoch {
        epoch: summary.epoch.0,
        component: component.short(),
        shadow,
        tensors: counts.tensors,
        fallbacks: counts.fallbacks,
        raw_bytes: counts.raw_bytes,
        bytes: counts.bytes,
        previous_bytes: counts.previous_bytes_of_all(),
        seconds: micros(counts.time_us),
        previous_seconds: counts.previous_us_of_all().map(micros),
        compared: counts.sampled,
    })
}

fn miners(state: &State, now: Millis) -> Vec<MinerStatus> {
    let since_opened = now.since(state.work().opened).0.max(1) as f64;
    let miner = |(id, node): (&NodeId, &Node)| {
        let work = state.member(id);
        let live = state.is_live_member(id);
        let doing = match state.phase() {
            _ if !node.present() => MinerState::Gone,
            Phase::Training { .. } if live => MinerState::Training,
            Phase::Merging { .. } if live => MinerState::Merging,
            _ => MinerState::Waiting,
        };
        MinerStatus {
            node: shown(id),
            stage: node.stage.map(|stage| stage.0),
            state: doing,
            busy: work.map_or(0.0, |work| (work.busy.0 as f64 / since_opened).min(1.0)),
            micro_batches: work.map_or(0, |work| u64::from(work.accumulated) + u64::from(work.stepped)),
            accumulate: work.map_or(0, |work| work.member.accumulate),
            steps: work.map_or(0, |work| work.steps),
        }
    };
    let nodes = state.nodes().iter().filter(|(_, node)| node.join.role == Role::Miner);
    let mut miners: Vec<MinerStatus> = nodes.map(miner).collect();
    miners.sort_by(|a, b| (a.stage, &a.node).cmp(&(b.stage, &b.node)));
    miners
}

fn held_out(state: &State) -> impl DoubleEndedIterator<Item = (Epoch, f64)> {
    state.held_out().iter().filter(|(_, losses)| !losses.is_empty()).map(|(epoch, losses)| {
        let sum: f64 = losses.values().map(|measured| f64::from(measured.loss)).sum();
        (*epoch, sum / losses.len() as f64)
    })
}

fn present(state: &State, role: Role) -> usize {
    state.nodes().values().filter(|node| node.present() && node.join.role == role).count()
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Miner => "miner",
        Role::Validator => "validator",
    }
}

fn phase_name(phase: Phase) -> PhaseName {
    match phase {
        Phase::Gathering { .. } => PhaseName::Gathering,
        Phase::Training { .. } => PhaseName::Training,
        Phase::Merging { .. } => PhaseName::Merging,
        Phase::Finished { .. } => PhaseName::Finished,
    }
}

fn seconds(span: Millis) -> f64 {
    span.0 as f64 / 1000.0
}

fn share(part: u64, rest: u64) -> Option<f64> {
    let whole = part + rest;
    (whole > 0).then(|| part as f64 / whole as f64)
}

fn spared(state: &State) -> u64 {
    state.nodes().values().fold(0, |sum, node| sum.saturating_add(node.traffic.spared))
}

fn ratio(traffic: &Traffic) -> Option<f64> {
    quotient(traffic.activations_full, traffic.activations)
}

fn quotient(full: u64, encoded: u64) -> Option<f64> {
    (encoded > 0).then(|| full as f64 / encoded as f64)
}
