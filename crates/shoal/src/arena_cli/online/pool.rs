//! `shoal arena pool`: what the inputs of rounds are drawn from, from files, lists, folders and object stores.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use api::Client;
use api::client::ClientError;
use api::model::StatementAnswer;
use arena::Refusal;
use arena::record::{PoolItem, RoundNumber, Statement};
use arena::spec::{CompetitionId, CompetitionSpec};
use clap::Args;
use serde_json::json;
use wire::{Hash, NodeId};

use super::Where;
use super::charge::{accepted, id_of, put, read};
use super::sets::{self, Checked, Ready};
use crate::failure::bad_input;
use crate::watch::print;

/// Longest time between two looks whether a round awaits its pool.
const LOOK: Duration = Duration::from_secs(30);
/// Shortest time between two tries to name the pool of a round after one that the host or the data set refused.
const AGAIN: Duration = Duration::from_secs(15);
/// Times that a pool is made anew at once, without an item that the host refused.
const TRIES: u32 = 64;
/// Rounds looked at: those that await their pools are among the newest.
const ROUNDS: u32 = 20;

#[derive(Args, Debug)]
pub(crate) struct PoolArgs {
    #[command(flatten)]
    at: Where,
    /// Name, id, or first digits of the id.
    competition: String,
    /// Folders or object-store prefixes (http, https, s3, gs) with manifest.csv, files that are the items, or lists with `HASH`
    /// or `HASH,OPERATOR` in each line (`@FILE`) of what was uploaded. What is no list is checked and uploaded.
    #[arg(required = true)]
    items: Vec<String>,
    /// Round. Default: the one that awaits its pool.
    #[arg(long, conflicts_with = "watch")]
    round: Option<u32>,
    /// Most items of a round's pool: what is taken from folders and prefixes is declared by competition and round, with no more of
    /// an operator than a round may draw while others have some left.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=arena::limits::POOL_ITEMS_MAX as i64))]
    most: Option<u32>,
    /// Stay, and name the pool of each round once it has closed, until the competition is over.
    #[arg(long)]
    watch: bool,
}

/// What is known of the host, so that a pool that is named again costs little.
#[derive(Default)]
struct Past {
    uploaded: BTreeSet<Hash>,
    /// Items that rounds were judged on.
    used: BTreeSet<Hash>,
}

/// What pools are made of, checked.
struct Source {
    sets: Vec<Checked>,
    /// Files that are items by themselves.
    files: Vec<(PathBuf, Hash)>,
    items: Vec<PoolItem>,
    own: NodeId,
    most: usize,
}

impl Source {
    async fn read(client: &Client, spec: &CompetitionSpec, args: &PoolArgs) -> Result<Self> {
        let own = client.id()?;
        let mut source = Self {
            sets: Vec::new(),
            files: Vec::new(),
            items: Vec::new(),
            own,
            most: args.most.map_or(arena::limits::POOL_ITEMS_MAX, |most| most as usize),
        };
        let samples = sets::samples_of(client, spec).await?;
        for name in &args.items {
            if let Some(list) = name.strip_prefix('@') {
                listed(list, own, &mut source.items)?;
            } else if name.contains("://") || Path::new(name).is_dir() {
                let set = Checked::read(name, spec.kind, &samples).await?;
                set.unknown_to(&samples)?;
                source.sets.push(set);
            } else {
                let hash = Hash::of(&read(Path::new(name))?);
                source.files.push((name.into(), hash));
                source.items.push(PoolItem { hash, operator: own });
            }
        }
        if let Some(known) = source.items.iter().find(|item| samples.has(&item.hash)) {
            let hash = known.hash;
            return Err(bad_input(format!(
                "{hash} is among the competition's samples, which everybody has: take it out of the pool"
            )));
        }
        source.items.sort_unstable();
        source.items.dedup_by_key(|item| item.hash);
        Ok(source)
    }

    /// What of it is for a round.
    fn chosen(&self, spec: &CompetitionSpec, order: &Hash, used: &BTreeSet<Hash>) -> Vec<(&Checked, &Ready)> {
        let mut ordered: BTreeMap<Hash, (&Checked, &Ready)> = BTreeMap::new();
        for set in &self.sets {
            for ready in set.unused(used) {
                let place = Hash::of_parts("shoal 2026-11 pool order", &[&order.0, &ready.hash.0]);
                ordered.insert(place, (set, ready));
            }
        }
        let listed = self.items.iter().map(|item| item.operator);
        let rows = ordered.into_values().map(|row| (self.item(row.1).operator, row));
        let left = self.most.saturating_sub(self.items.len());
        shared_out(rows, listed, spec.inputs.per_operator_max(), left)
    }

    /// Names the pool of a round.
    async fn name(
        &self,
        client: &Client,
        spec: &CompetitionSpec,
        round: u32,
        past: &mut Past,
    ) -> Result<(usize, StatementAnswer)> {
        let competition = spec.id();
        if !self.sets.is_empty() {
            past.used.append(&mut sets::used_in(client, &competition.to_string()).await?);
        }
        let order = Hash::of_parts("shoal 2026-11 pool", &[&competition.0.0, &round.to_le_bytes()]);
        let mut tries = 0;
        loop {
            tries += 1;
            let chosen = self.chosen(spec, &order, &past.used);
            let mut items = self.items.clone();
            items.extend(chosen.iter().map(|(_, ready)| self.item(ready)));
            items.sort_unstable();
            items.dedup_by_key(|item| item.hash);
            sets::enough(spec, items.iter().map(|item| item.operator))?;
            for (path, hash) in &self.files {
                if !past.uploaded.contains(hash) {
                    put(client, path).await?;
                    past.uploaded.insert(*hash);
                }
            }
            for (set, ready) in chosen {
                if !past.uploaded.contains(&ready.hash) {
                    set.upload(client, ready).await?;
                    past.uploaded.insert(ready.hash);
                }
            }
            let count = items.len();
            let statement = Statement::Pool { competition, round: RoundNumber(round), items };
            let error = match client.state(&statement).await {
                Ok(answer) => return Ok((count, answer)),
                Err(error) => error,
            };
            match error.refusal() {
                // Of a round that the host lists no more: the pool is made anew without it.
                Some(Refusal::UsedItem { item })
                    if past.used.insert(item)
                        && tries < TRIES
                        && self.items.iter().all(|listed| listed.hash != item) => {}
                Some(_) => return Err(error.into()),
                None => {
                    // It may be that the host does not have one of them any more.
                    if !error.is_transient() {
                        past.uploaded.clear();
                    }
                    return Err(error.into());
                }
            }
        }
    }

    fn item(&self, ready: &Ready) -> PoolItem {
        PoolItem { hash: ready.hash, operator: ready.operator().unwrap_or(self.own) }
    }
}

/// The first `most` rows, but what a round cannot draw, being more than `each` of one operator, behind what it can.
fn shared_out<T>(
    rows: impl Iterator<Item = (NodeId, T)>,
    listed: impl Iterator<Item = NodeId>,
    each: usize,
    most: usize,
) -> Vec<T> {
    let mut taken: BTreeMap<NodeId, usize> = BTreeMap::new();
    for operator in listed {
        *taken.entry(operator).or_default() += 1;
    }
    let (mut chosen, mut over) = (Vec::new(), Vec::new());
    for (operator, row) in rows {
        let count = taken.entry(operator).or_default();
        *count += 1;
        if *count <= each { &mut chosen } else { &mut over }.push(row);
    }
    chosen.extend(over);
    chosen.truncate(most);
    chosen
}

/// Items of a list.
fn listed(list: &str, own: NodeId, items: &mut Vec<PoolItem>) -> Result<()> {
    let text = read(Path::new(list))?;
    for (number, line) in (1..).zip(String::from_utf8_lossy(&text).lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (hash, operator) = line.split_once(',').unwrap_or((line, ""));
        let wrong = |error: wire::id::ParseIdError| bad_input(format!("{list}, line {number}: {error}"));
        let hash = hash.trim().parse().map_err(wrong)?;
        let operator = match operator.trim() {
            "" => own,
            key => key.parse().map_err(wrong)?,
        };
        items.push(PoolItem { hash, operator });
    }
    Ok(())
}

/// The rounds that await their pools, oldest first.
async fn waiting(client: &Client, competition: &CompetitionId) -> Result<Vec<u32>> {
    let rounds = client.rounds(&competition.to_string(), 0, ROUNDS).await?.rounds;
    let pooling = rounds.iter().rev().filter(|round| round.state == "pooling");
    Ok(pooling.map(|round| round.round_number).collect())
}

/// `shoal arena pool`.
pub(super) async fn pool(args: &PoolArgs, json: bool) -> Result<String> {
    let client = args.at.signer().await?;
    let competition = id_of(&client, &args.competition).await?;
    let spec = CompetitionSpec::parse(&client.spec(&competition.to_string()).await?)?;
    if spec.inputs.source != arena::spec::Source::Pool {
        return Err(bad_input(format!("{} has no pool: a generator makes its inputs", spec.name)));
    }
    if args.watch {
        return watch(&client, &spec, args, json).await;
    }
    let round = match args.round {
        Some(round) => round,
        None => waiting(&client, &competition).await?.first().copied().ok_or_else(|| {
            bad_input(
                "no round awaits its pool now: it does after it closed (name one with --round, or stay with --watch)",
            )
        })?,
    };
    let source = Source::read(&client, &spec, args).await?;
    let (count, answer) = source.name(&client, &spec, round, &mut Past::default()).await?;
    accepted(&answer, &format!("{count} items for round {round}"), json)
}

/// Names the pool of every round, until the competition is over.
async fn watch(client: &Client, spec: &CompetitionSpec, args: &PoolArgs, json: bool) -> Result<String> {
    let id = spec.id();
    let source = Source::read(client, spec, args).await?;
    // What cannot be drawn from at all is told now, not when a round waits.
    let all = source.chosen(spec, &id.0, &BTreeSet::new());
    let operators = all.iter().map(|(_, ready)| source.item(ready).operator);
    sets::enough(spec, operators.chain(source.items.iter().map(|item| item.operator)))?;
    let count = all.len() + source.items.len();
    print(&if json {
        json!({ "event": "waiting", "items": count }).to_string()
    } else {
        format!("{count} items, every one checked: waiting for rounds to close")
    })?;
    let name = id.to_string();
    let mut events = client.events(Some(&name), None, None);
    let (mut tried, mut past) = (BTreeMap::new(), Past::default());
    loop {
        // Open before looking, so that nothing falls between both.
        let listening = events.open().await;
        match step(client, spec, &source, &mut tried, &mut past, json).await {
            Ok(true) => {
                return Ok(if json { json!({ "event": "over" }).to_string() } else { "over".to_owned() });
            }
            Ok(false) => {}
            Err(error) if transient(&error) => tracing::warn!(%error, "trying again"),
            Err(error) => _ = crate::failure::report(&error, json),
        }
        let woken = async {
            if listening.is_err() {
                tokio::time::sleep(LOOK).await;
            } else {
                drop(events.next().await);
            }
        };
        drop(tokio::time::timeout(LOOK, woken).await);
    }
}

fn transient(error: &anyhow::Error) -> bool {
    error.downcast_ref::<ClientError>().is_some_and(ClientError::is_transient)
}

/// How the last try to name a round's pool ended.
enum Tried {
    /// It has one.
    Named,
    /// Refused then, for a reason that was told: a store that is away or full may be back before the round's time is over.
    Refused(Instant, String),
}

impl Tried {
    fn is_due(&self) -> bool {
        matches!(self, Self::Refused(at, _) if at.elapsed() >= AGAIN)
    }
}

/// Names the pools that are awaited; whether the competition is over.
async fn step(
    client: &Client,
    spec: &CompetitionSpec,
    source: &Source,
    tried: &mut BTreeMap<u32, Tried>,
    past: &mut Past,
    json: bool,
) -> Result<bool> {
    let id = spec.id();
    if client.competition(&id.to_string()).await?.state == "completed" {
        return Ok(true);
    }
    let rounds = waiting(client, &id).await?;
    tried.retain(|round, _| rounds.contains(round));
    for round in rounds {
        if tried.get(&round).is_some_and(|tried| !tried.is_due()) {
            continue;
        }
        match source.name(client, spec, round, past).await {
            Ok((count, answer)) => {
                tried.insert(round, Tried::Named);
                print(&if json {
                    json!({ "event": "named", "round": round, "items": count, "block": answer.block })
                        .to_string()
                } else {
                    format!("{count} items for round {round} (block {})", answer.block)
                })?;
            }
            Err(error) if transient(&error) => tracing::warn!(%error, round, "trying again"),
            Err(error) => note_refusal(tried, round, &error, json),
        }
    }
    Ok(false)
}

/// Tells each reason once for a round.
fn note_refusal(tried: &mut BTreeMap<u32, Tried>, round: u32, error: &anyhow::Error, json: bool) {
    let refused = error.downcast_ref::<ClientError>();
    if refused.is_some_and(|error| error.reason() == Some("repeated")) {
        tried.insert(round, Tried::Named);
        return;
    }
    let reason = format!("{error:#}");
    let told = matches!(tried.get(&round), Some(Tried::Refused(_, before)) if *before == reason);
    if !told {
        crate::failure::report(error, json);
    }
    tried.insert(round, Tried::Refused(Instant::now(), reason));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_pool_has_what_a_round_can_draw_of_each_operator() {
        let key = |number: u8| NodeId([number; 32]);
        // Twenty of one operator come before four of another in the declared order.
        let rows = (0..24).map(|index| (key(1 + u8::from(index >= 20)), index));
        assert_eq!(shared_out(rows.clone(), [].into_iter(), 4, 8), [0, 1, 2, 3, 20, 21, 22, 23]);
        // What a list names counts, and there is room for what is over.
        let listed = [key(1), key(1)].into_iter();
        assert_eq!(shared_out(rows.clone(), listed, 4, 8), [0, 1, 20, 21, 22, 23, 2, 3]);
        assert_eq!(shared_out(rows, [].into_iter(), 4, 100).len(), 24);
    }

    #[test]
    fn a_refused_round_is_tried_again_and_told_once() {
        let mut tried = BTreeMap::new();
        let error = bad_input("the store is away");
        note_refusal(&mut tried, 3, &error, false);
        assert!(!tried[&3].is_due(), "not at once");
        let past = Instant::now().checked_sub(AGAIN).expect("a clock that has run for so long");
        tried.insert(3, Tried::Refused(past, "the store is away".to_owned()));
        assert!(tried[&3].is_due(), "but before its time is over");
        assert!(!Tried::Named.is_due());
    }
}
