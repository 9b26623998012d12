//! A whole swarm in virtual time: one orchestrator, N miners, delays, losses, kills; everything from one seed.

use ledger::Fold as _;
use ledger::fold::Unfit;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use wire::{Direction, Envelope, Epoch, Hash, Millis, NodeId, Seq, SigningKey, StageIndex};

use super::peer::{Opening, Payload, Peer, Speaker, part, whole_state};
use crate::miner::merger::{self, Fetched, Want};
use crate::miner::pipeline::{self, Answer, Job, Offer, Sent};
use crate::miner::{Item, reduce};
use crate::record::{Control, Derived, Input, Record, Statement, run_id};
use crate::refusal::Refusal;
use crate::spec::SwarmSpec;
use crate::state::{Phase, State};
use ledger::commit;

/// What the network does.
#[derive(Clone, Copy)]
pub(super) struct Weather {
    /// Longest delay of a message, ms.
    pub(super) delay: u64,
    /// Messages lost, per thousand.
    pub(super) loss: u64,
}

enum Happening {
    Log { node: usize, life: u32, seq: u64 },
    Said { node: usize, life: u32, envelope: Envelope },
    Answered { node: usize, life: u32, hash: Hash, accepted: bool, gone: bool },
    Resend { node: usize, life: u32, hash: Hash },
    Frame { to: usize, from: usize, life: u32, item: Item, direction: Direction, offer: Offer },
    Sent { node: usize, life: u32, item: Item, direction: Direction, to: NodeId, outcome: Sent },
    Computed { node: usize, life: u32 },
    Asked { to: NodeId, from: usize, life: u32, want: Want },
    Served { node: usize, life: u32, want: Want, from: NodeId, payload: Result<Option<Payload>, ()> },
    Merged { node: usize, life: u32, action: merger::Action },
    Wake { node: usize, life: u32 },
    Commit,
    Kill { node: usize },
    Start { node: usize },
    Drain { node: usize },
}

/// Who said something: node, life, hash of the envelope.
type Sender = (usize, u32, Hash);
/// Answers that a peer owes: by offer, who asked, in which of its lives, and for what.
type Offers = BTreeMap<u64, (usize, u32, Item, Direction)>;

pub(super) struct World {
    pub(super) now: Millis,
    queue: BTreeMap<(Millis, u64), Happening>,
    next: u64,
    random: u64,
    weather: Weather,
    pub(super) peers: Vec<Peer>,
    pub(super) state: State,
    log: Vec<Arc<State>>,
    inputs: Vec<(Option<Sender>, Input)>,
    commit_at: Option<Millis>,
    offers: Offers,
    pub(super) keeper: BTreeMap<(StageIndex, Epoch), Opening>,
    pub(super) derived: Vec<Derived>,
    /// Uploads as they were committed, for the check of every mean.
    pub(super) uploads: BTreeMap<(Epoch, NodeId), Vec<u8>>,
    pub(super) slow: BTreeMap<usize, u64>,
    /// Stage of which one member becomes four times as slow when the second epoch opens.
    pub(super) slow_stage: Option<StageIndex>,
    /// Length of a forward, ms, if it is always the same; a backward takes twice that, a step a quarter.
    pub(super) forward_ms: Option<u64>,
    /// Time that making an upload takes.
    pub(super) upload: Millis,
    /// What every peer computed for and has not reported.
    busy: BTreeMap<usize, Millis>,
    /// When each epoch opened and closed.
    pub(super) epochs: Vec<(Millis, Millis)>,
}

impl World {
    pub(super) fn new(seed: u64, spec: SwarmSpec, peers: usize, weather: Weather) -> Self {
        let run_spec = vec![1, 2, 3];
        let orchestrator = SigningKey::from_bytes(&[200; 32]).node_id();
        let genesis = Control::Genesis { spec, run_spec: run_spec.clone(), orchestrator };
        let start = Millis(1_000_000);
        let (state, _) = commit::genesis::<State>(run_id(&run_spec), start, genesis).unwrap();
        let mut world = Self {
            now: start,
            queue: BTreeMap::new(),
            next: 0,
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678_9abc,
            weather,
            peers: (0..peers).map(Peer::new).collect(),
            log: vec![Arc::new(state.clone())],
            state,
            inputs: Vec::new(),
            commit_at: None,
            offers: BTreeMap::new(),
            keeper: BTreeMap::new(),
            derived: Vec::new(),
            uploads: BTreeMap::new(),
            slow: BTreeMap::new(),
            slow_stage: None,
            forward_ms: None,
            upload: Millis(2),
            busy: BTreeMap::new(),
            epochs: Vec::new(),
        };
        for node in 0..peers {
            let at = world.now.plus(Millis(world.random(50)));
            world.at(at, Happening::Start { node });
        }
        world
    }

    pub(super) fn random(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below.max(1)
    }

    fn at(&mut self, at: Millis, what: Happening) {
        self.next += 1;
        self.queue.insert((at, self.next), what);
    }

    /// After the network's delay; `None` if the message is lost.
    fn arrival(&mut self) -> Option<Millis> {
        let delay = 1 + self.random(self.weather.delay);
        let lost = self.random(1000) < self.weather.loss;
        (!lost).then(|| self.now.plus(Millis(delay)))
    }

    fn later(&mut self, most: u64, what: Happening) {
        let at = self.now.plus(Millis(1 + self.random(most)));
        self.at(at, what);
    }

    pub(super) fn kill(&mut self, at: Millis, node: usize, back_after: Option<Millis>) {
        self.at(at, Happening::Kill { node });
        if let Some(after) = back_after {
            self.at(at.plus(after), Happening::Start { node });
        }
    }

    /// Every peer keeps one version of its weights.
    pub(super) fn drains_before_steps(&mut self) {
        self.peers.iter_mut().for_each(|peer| peer.stash = 0);
    }

    pub(super) fn drain(&mut self, at: Millis, node: usize) {
        self.at(at, Happening::Drain { node });
    }

    /// Runs until the run is finished; panics when nothing happens any more, or virtual time runs out.
    pub(super) fn run(&mut self, most: Millis) {
        self.run_until(most, |state| matches!(state.phase(), Phase::Finished { .. }));
    }

    /// The same, until the state is as wanted.
    pub(super) fn run_until(&mut self, most: Millis, wanted: impl Fn(&State) -> bool) {
        let end = self.now.plus(most);
        while !wanted(&self.state) {
            let Some(((at, _), what)) = self.queue.pop_first() else {
                panic!("nothing happens any more in phase {:?}", self.state.phase())
            };
            assert!(at < end, "no end after {most:?} in phase {:?}\n{}", self.state.phase(), self.picture());
            self.now = at;
            self.happen(what);
        }
    }

    /// Who is where: for whoever reads a failure.
    fn picture(&self) -> String {
        let mut lines = Vec::new();
        for stage in self.state.spec().stage_indices() {
            lines.push(format!("{:?}", self.state.stage(stage)));
        }
        for peer in &self.peers {
            let node = self.state.node(&peer.id);
            let seen =
                node.map(|node| (node.stage, node.presence, node.ready.as_ref().map(|ready| ready.epoch)));
            let disk: Vec<_> = peer.disk.keys().collect();
            lines.push(format!(
                "alive {} {seen:?} disk {disk:?} said {} flying {} {:?}",
                peer.alive,
                peer.said.len(),
                peer.flying.is_some(),
                peer.merger
            ));
        }
        lines.join("\n")
    }

    fn lives(&self, node: usize, life: u32) -> bool {
        self.peers[node].alive && self.peers[node].life == life
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Start { node } => {
                if self.peers[node].alive {
                    return;
                }
                self.peers[node].start();
                let life = self.peers[node].life;
                let seq = self.log.len() as u64 - 1;
                self.at(self.now, Happening::Log { node, life, seq });
                self.at(self.now, Happening::Wake { node, life });
            }
            Happening::Kill { node } => self.peers[node].alive = false,
            Happening::Drain { node } => {
                self.peers[node].draining = true;
                self.pipeline_event(node, pipeline::Event::Drain);
            }
            Happening::Log { node, life, seq } if self.lives(node, life) => self.read(node, seq),
            Happening::Wake { node, life } if self.lives(node, life) => self.wake(node),
            Happening::Said { node, life, envelope } => {
                let from = Some((node, life, envelope.hash()));
                self.inputs.push((from, Input::Stated(envelope)));
                self.commit_soon();
            }
            Happening::Commit => self.commit(),
            Happening::Answered { node, life, hash, accepted, gone } if self.lives(node, life) => {
                self.answered(node, hash, accepted, gone);
            }
            Happening::Resend { node, life, hash } if self.lives(node, life) && self.flies(node, hash) => {
                self.fly(node);
            }
            Happening::Frame { to, from, life, item, direction, offer } if self.peers[to].alive => {
                let name = self.next;
                self.offers.insert(name, (from, life, item, direction));
                self.pipeline_event(to, pipeline::Event::Offered { offer: name, frame: offer });
            }
            Happening::Sent { node, life, item, direction, to, outcome } if self.lives(node, life) => {
                self.pipeline_event(node, pipeline::Event::Sent { item, direction, to, outcome });
            }
            Happening::Computed { node, life } if self.lives(node, life) => {
                let peer = &mut self.peers[node];
                let job = peer.jobs.pop_front().expect("it was started");
                let computed = peer.compute(job);
                if !peer.jobs.is_empty() {
                    self.start_job(node);
                }
                if let Some(computed) = computed {
                    self.pipeline_event(node, pipeline::Event::Computed(computed));
                }
            }
            Happening::Merged { node, life, action } if self.lives(node, life) => {
                let event = self.peers[node].merge(action);
                self.note(node, event.as_ref());
                if let Some(event) = event {
                    self.merger_event(node, event);
                }
            }
            Happening::Asked { to, from, life, want } => self.serve(to, from, life, want),
            Happening::Served { node, life, want, from, payload } if self.lives(node, life) => {
                let outcome = match payload {
                    Ok(Some(payload)) => self.peers[node].keep(&want, payload),
                    Ok(None) => Fetched::NotYet,
                    Err(()) => Fetched::Failed,
                };
                self.merger_event(node, merger::Event::Fetched { want, from, outcome });
            }
            _ => {}
        }
    }

    /// Keeps uploads for the checks.
    fn note(&mut self, node: usize, event: Option<&merger::Event>) {
        let peer = &self.peers[node];
        if let Some(merger::Event::UploadMade { epoch, .. }) = event {
            self.uploads.insert((*epoch, peer.id), peer.upload(*epoch));
        }
    }

    fn read(&mut self, node: usize, seq: u64) {
        let peer = &mut self.peers[node];
        if peer.state.as_ref().is_some_and(|(head, _)| head.0 >= seq) {
            return;
        }
        let state = self.log[seq as usize].clone();
        let now = self.now;
        peer.state = Some((Seq(seq), state.clone()));
        peer.pipeline.on_log(now, Seq(seq), &state);
        peer.merger.on_log(now, &state);
        self.act(node);
    }

    fn wake(&mut self, node: usize) {
        let now = self.now;
        let peer = &mut self.peers[node];
        let Some((_, state)) = peer.state.clone() else { return };
        peer.pipeline.on_time(now, &state);
        peer.merger.on_time(now, &state);
        if peer.said.is_empty()
            && peer.flying.is_none()
            && now.since(peer.last_said) >= state.spec().heartbeat
        {
            peer.said.push_back((Speaker::Node, Statement::Heartbeat));
        }
        self.act(node);
    }

    fn pipeline_event(&mut self, node: usize, event: pipeline::Event) {
        let now = self.now;
        let peer = &mut self.peers[node];
        let Some((_, state)) = peer.state.clone() else { return };
        peer.pipeline.on_event(now, &state, event);
        self.act(node);
    }

    fn merger_event(&mut self, node: usize, event: merger::Event) {
        let now = self.now;
        let peer = &mut self.peers[node];
        let Some((_, state)) = peer.state.clone() else { return };
        peer.merger.on_event(now, &state, event);
        self.act(node);
    }

    /// Carries out what both machines ask for.
    fn act(&mut self, node: usize) {
        while let Some(action) = self.peers[node].pipeline.poll() {
            self.pipeline_action(node, action);
        }
        while let Some(action) = self.peers[node].merger.poll() {
            let life = self.peers[node].life;
            match action {
                merger::Action::Fetch { want, from } => {
                    if let Some(at) = self.arrival() {
                        self.at(at, Happening::Asked { to: from, from: node, life, want });
                    } else {
                        self.timeout_fetch(node, want, from);
                    }
                }
                merger::Action::State { .. } => {
                    self.peers[node].merge(action);
                }
                action => {
                    let upload = matches!(action, merger::Action::MakeUpload { .. });
                    let time = if upload { self.upload } else { Millis(self.random(4)) };
                    let at = self.now.plus(time);
                    self.at(at, Happening::Merged { node, life, action });
                }
            }
        }
        self.speak(node);
        let peer = &self.peers[node];
        let heartbeat = peer.last_said.plus(self.state.spec().heartbeat);
        let deadlines = [peer.pipeline.next_deadline(), peer.merger.next_deadline(), Some(heartbeat)];
        let at = deadlines.into_iter().flatten().min().unwrap_or(heartbeat).max(self.now.plus(Millis(1)));
        let life = peer.life;
        self.at(at, Happening::Wake { node, life });
    }

    fn pipeline_action(&mut self, node: usize, action: pipeline::Action) {
        let life = self.peers[node].life;
        let id = self.peers[node].id;
        match action {
            pipeline::Action::Answer { offer, answer } => {
                let (from, life, item, direction) = self.offers.remove(&offer).expect("answered once");
                let outcome = match answer {
                    Answer::Accept => Sent::Accepted,
                    Answer::Busy => Sent::Busy,
                    Answer::Refuse(_) => Sent::Refused,
                };
                let (at, outcome) = match self.arrival() {
                    Some(at) => (at, outcome),
                    None => (self.now.plus(Millis(400)), Sent::Failed),
                };
                self.at(at, Happening::Sent { node: from, life, item, direction, to: id, outcome });
            }
            pipeline::Action::Compute(job) => {
                self.peers[node].jobs.push_back(job);
                if self.peers[node].jobs.len() == 1 {
                    self.start_job(node);
                }
            }
            pipeline::Action::Send { item, direction, to, epoch, ttl, grad_mask, loss, .. } => {
                let (head, state) = self.peers[node].state.clone().expect("read");
                let offer = Offer {
                    epoch,
                    micro_batch: item.micro_batch,
                    lease: item.lease,
                    direction,
                    stage: state.node(&id).and_then(|node| node.stage).expect("assigned"),
                    from: id,
                    grad_mask,
                    ttl,
                    loss,
                    head: Some(head),
                };
                let target = self.peers.iter().position(|peer| peer.id == to).expect("known");
                let (at, what) = if let Some(at) = self.arrival().filter(|_| self.peers[target].alive) {
                    (at, Happening::Frame { to: target, from: node, life, item, direction, offer })
                } else {
                    let outcome = Sent::Failed;
                    (self.now.plus(Millis(400)), Happening::Sent { node, life, item, direction, to, outcome })
                };
                self.at(at, what);
            }
            pipeline::Action::State { token, mut statement } => {
                if let Statement::Work(work) = &mut statement {
                    work.busy = self.busy.remove(&node).unwrap_or_default();
                }
                self.peers[node].said.push_back((Speaker::Pipeline(token), statement));
            }
            pipeline::Action::Release(_) => {}
            pipeline::Action::Done { epoch, steps } => {
                self.merger_event(node, merger::Event::Trained { epoch, steps });
            }
        }
    }

    fn start_job(&mut self, node: usize) {
        let life = self.peers[node].life;
        let slow = self.slow.get(&node).copied().unwrap_or(1);
        let time = match (self.peers[node].jobs.front(), self.forward_ms) {
            (Some(Job::Discard(_) | Job::Clear), _) => Millis(0),
            (Some(Job::Backward { .. }), Some(ms)) => Millis(2 * ms * slow),
            (Some(Job::Forward(_)), Some(ms)) => Millis(ms * slow),
            (_, Some(ms)) => Millis(ms * slow / 4),
            _ => Millis((2 + self.random(8)) * slow),
        };
        let busy = self.busy.entry(node).or_default();
        *busy = busy.plus(time);
        self.at(self.now.plus(time), Happening::Computed { node, life });
    }

    fn timeout_fetch(&mut self, node: usize, want: Want, from: NodeId) {
        let life = self.peers[node].life;
        let at = self.now.plus(Millis(300));
        self.at(at, Happening::Served { node, life, want, from, payload: Err(()) });
    }

    fn serve(&mut self, to: NodeId, from: usize, life: u32, want: Want) {
        let payload = if to == self.state.orchestrator() {
            let stage = self.state.node(&self.peers[from].id).and_then(|node| node.stage);
            let Want::Part { epoch, shard, .. } = &want else { return self.timeout_fetch(from, want, to) };
            let before = Epoch(epoch.0.saturating_sub(1));
            let kept = stage.and_then(|stage| {
                self.keeper.get(&(stage, *epoch)).or_else(|| self.keeper.get(&(stage, before)))
            });
            kept.map(|opening| {
                let (weights, momentum) = part(opening, shard);
                Payload::Part(weights, momentum)
            })
        } else {
            let peer = self.peers.iter().find(|peer| peer.id == to).expect("known");
            if !peer.alive {
                return self.timeout_fetch(from, want, to);
            }
            peer.serve(&want)
        };
        match self.arrival() {
            Some(at) => {
                self.at(at, Happening::Served { node: from, life, want, from: to, payload: Ok(payload) });
            }
            None => self.timeout_fetch(from, want, to),
        }
    }

    /// Sends the next statement; one is in flight at a time.
    fn speak(&mut self, node: usize) {
        let now = self.now;
        let peer = &mut self.peers[node];
        if peer.flying.is_some() || peer.state.is_none() {
            return;
        }
        let Some((speaker, statement)) = peer.said.pop_front() else { return };
        let envelope = peer.sign(now, &statement);
        peer.flying = Some((speaker, envelope));
        peer.last_said = now;
        self.fly(node);
    }

    fn flies(&self, node: usize, hash: Hash) -> bool {
        self.peers[node].flying.as_ref().is_some_and(|(_, envelope)| envelope.hash() == hash)
    }

    fn fly(&mut self, node: usize) {
        let (_, envelope) = self.peers[node].flying.clone().expect("in flight");
        let (life, hash) = (self.peers[node].life, envelope.hash());
        if let Some(at) = self.arrival() {
            self.at(at, Happening::Said { node, life, envelope });
        }
        self.at(self.now.plus(Millis(250)), Happening::Resend { node, life, hash });
    }

    fn answered(&mut self, node: usize, hash: Hash, accepted: bool, gone: bool) {
        let peer = &mut self.peers[node];
        let Some((speaker, _)) = peer.flying.take_if(|(_, envelope)| envelope.hash() == hash) else { return };
        if gone {
            peer.join();
        }
        match speaker {
            Speaker::Pipeline(token) => {
                self.pipeline_event(node, pipeline::Event::Answered { token, accepted });
            }
            Speaker::Merger(token) => self.merger_event(node, merger::Event::Answered { token, accepted }),
            Speaker::Node => self.act(node),
        }
    }

    fn commit_soon(&mut self) {
        let at = self.now.plus(Millis(2));
        if self.commit_at.is_none_or(|due| at < due) {
            self.commit_at = Some(at);
            self.at(at, Happening::Commit);
        }
    }

    fn commit(&mut self) {
        self.commit_at = None;
        let (from, inputs): (Vec<_>, Vec<_>) = std::mem::take(&mut self.inputs).into_iter().unzip();
        let committed = commit::commit(&mut self.state, self.now, inputs);
        for (from, outcome) in from.into_iter().zip(&committed.outcomes) {
            let Some((node, life, hash)) = from else { continue };
            let accepted = matches!(outcome, Ok(()) | Err(Refusal::Unfit(Unfit::Duplicate)));
            let gone = matches!(outcome, Err(Refusal::NotPresent));
            if let Some(at) = self.arrival() {
                self.at(at, Happening::Answered { node, life, hash, accepted, gone });
            }
        }
        if !committed.records.is_empty() {
            self.log.push(Arc::new(self.state.clone()));
            let seq = self.log.len() as u64 - 1;
            for node in 0..self.peers.len() {
                let life = self.peers[node].life;
                self.later(self.weather.delay, Happening::Log { node, life, seq });
            }
            for record in committed.records {
                if let Record::Derived(derived) = record {
                    self.derive(derived);
                }
            }
        }
        self.keep();
        if let Some(at) = self.state.next_deadline(self.now) {
            let at = at.max(self.now.plus(Millis(1)));
            if self.commit_at.is_none_or(|due| at < due) {
                self.commit_at = Some(at);
                self.at(at, Happening::Commit);
            }
        }
    }

    fn derive(&mut self, derived: Derived) {
        match &derived {
            Derived::Opened { .. } => {
                super::check_opening(self);
                self.epochs.push((self.now, self.now));
                if let Some(stage) = self.slow_stage.take_if(|_| self.epochs.len() == 2) {
                    let slow = self.state.members(stage).next().expect("a member").node;
                    let slow = self.peers.iter().position(|peer| peer.id == slow).expect("known");
                    self.slow.insert(slow, 4);
                }
            }
            Derived::Closed { .. } => {
                if let Some((_, closed)) = self.epochs.last_mut() {
                    *closed = self.now;
                }
            }
            Derived::Manifest { epoch, stage, shards } => super::check_manifest(self, *epoch, *stage, shards),
            _ => {}
        }
        self.derived.push(derived);
    }

    /// The keeper: takes the weights of every merged stage from a replica that is ready, and says so.
    fn keep(&mut self) {
        let Phase::Gathering { epoch, .. } = self.state.phase() else { return };
        for stage in self.state.spec().stage_indices() {
            if self.state.stage(stage).is_some_and(|state| state.keeper.is_some()) {
                continue;
            }
            let ready: VecDeque<NodeId> = self.state.ready_nodes(stage).collect();
            let Some(peer) = self.peers.iter().find(|peer| peer.alive && ready.contains(&peer.id)) else {
                continue;
            };
            let Some(opening) = peer.disk.get(&epoch).cloned() else { continue };
            let partition = self.state.wanted_partition(stage);
            let elements = opening.weights.len();
            let states =
                (0..partition.shards()).map(|k| whole_state(&opening, elements, partition.elements(k)));
            let states = states.collect();
            self.keeper.insert((stage, epoch), opening);
            self.inputs.push((None, Input::Control(Control::Keeps { epoch, stage, states })));
            self.commit_soon();
        }
    }
}

/// Whether numbers are the same bits.
pub(super) fn same_bits(a: &[f32], b: &[f32]) -> bool {
    reduce::bytes_of(a) == reduce::bytes_of(b)
}
