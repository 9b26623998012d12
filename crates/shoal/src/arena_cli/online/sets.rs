//! Data sets of those who open competitions, published as samples or named as pools: each item checked before anything is
//! uploaded.

use std::collections::{BTreeMap, BTreeSet};

use ::judge::dataset::{Item, Manifest};
use ::judge::{Dataset, Input};
use anyhow::{Context, Result};
use api::Client;
use arena::spec::{CompetitionSpec, Kind};
use bytes::Bytes;
use wire::{Hash, NodeId};

use crate::failure::bad_input;

/// Items that an error names before it only counts.
const NAMED: usize = 5;

/// A data set whose items were all read and found to be what its manifest says.
pub(super) struct Checked {
    set: Dataset,
    kind: Kind,
    pub(super) items: Vec<Ready>,
}

/// An item as the host will hold it.
pub(super) struct Ready {
    item: Item,
    /// What a published manifest says of it.
    told: Item,
    pub(super) hash: Hash,
    bytes: u64,
    /// Hashes under which the same numbers may be stored: with and without a head.
    twins: Vec<Hash>,
}

impl Ready {
    pub(super) fn operator(&self) -> Option<NodeId> {
        self.item.operator
    }
}

/// What everybody has.
#[derive(Default)]
pub(super) struct Known {
    hashes: BTreeSet<Hash>,
    /// Shapes among it: the same numbers may stand in a pool without theirs.
    shapes: BTreeSet<Vec<u32>>,
}

impl Known {
    fn of<'a>(items: impl Iterator<Item = &'a Item>) -> Self {
        let mut known = Self::default();
        for item in items {
            known.hashes.extend(item.hash);
            known.shapes.extend(item.shape.clone());
        }
        known
    }

    pub(super) fn has(&self, hash: &Hash) -> bool {
        self.hashes.contains(hash)
    }
}

/// What was published.
pub(super) struct Published {
    /// Hash of the manifest: what a spec names.
    pub(super) manifest: Hash,
    pub(super) items: usize,
    pub(super) bytes: u64,
}

impl Checked {
    /// Reads every item of a folder or prefix and checks it. A pool is checked against what everybody has with
    /// [`Self::unknown_to`].
    ///
    /// # Errors
    /// Names the item and what is wrong with it.
    pub(super) async fn read(place: &str, kind: Kind, known: &Known) -> Result<Self> {
        let set = Dataset::at(place).await.map_err(|error| bad_input(error.to_string()))?;
        let mut items = Vec::with_capacity(set.manifest().items.len());
        if set.manifest().items.is_empty() {
            return Err(bad_input(format!("{place}: its manifest.csv lists nothing")));
        }
        for item in &set.manifest().items {
            if item.hash.is_none() {
                return Err(bad_input(format!(
                    "{place}: the manifest gives no hash of {:?}, so nobody can tell whether it is the right one: \
                     `shoal arena samples {place} -o FOLDER` writes the set anew, with hashes",
                    item.file
                )));
            }
            let bytes = blob(&set, kind, item).await?;
            let (hash, len) = (Hash::of(&bytes), bytes.len() as u64);
            let mut told = Item { hash: Some(hash), bytes: Some(len), ..item.clone() };
            let mut twins = Vec::new();
            if kind == Kind::Codec {
                let read = Input::of_blob("", &bytes, item.shape.clone(), item.direction);
                let input = read.map_err(|error| bad_input(format!("{place}/{}: {error}", item.file)))?;
                twins = twins_of(&input, known);
                told.shape = Some(input.shape).filter(|shape| shape.len() == 2).or(told.shape);
                told.direction = input.direction;
            }
            items.push(Ready { item: item.clone(), told, hash, bytes: len, twins });
        }
        Ok(Self { set, kind, items })
    }

    /// Uploads one item.
    pub(super) async fn upload(&self, client: &Client, ready: &Ready) -> Result<()> {
        let bytes = blob(&self.set, self.kind, &ready.item).await?;
        if Hash::of(&bytes) != ready.hash {
            return Err(bad_input(format!("{}/{} changed meanwhile", self.set.place(), ready.item.file)));
        }
        let answer = client.put_blob("competition", bytes).await;
        answer.with_context(|| format!("uploading {}/{}", self.set.place(), ready.item.file))?;
        Ok(())
    }

    /// The manifest under which it is published.
    ///
    /// # Errors
    /// Longer than a host takes.
    pub(super) fn manifest(&self) -> Result<String> {
        let rows = self.items.iter().map(|ready| ready.told.clone());
        let manifest = Manifest { items: rows.collect() }.to_csv();
        if manifest.len() as u64 > api::limits::SAMPLES_LIST_BYTES {
            return Err(bad_input(format!(
                "{}: {} samples make a manifest of {} bytes, a host takes {}: publish fewer",
                self.set.place(),
                self.items.len(),
                manifest.len(),
                api::limits::SAMPLES_LIST_BYTES
            )));
        }
        Ok(manifest)
    }

    /// Uploads all items and their manifest: samples that everybody may read.
    pub(super) async fn publish(&self, client: &Client) -> Result<Published> {
        let manifest = self.manifest()?;
        for ready in &self.items {
            self.upload(client, ready).await?;
        }
        let hash = Hash::of(manifest.as_bytes());
        client
            .put_blob("competition", manifest.into())
            .await
            .context("uploading the manifest of the samples")?;
        let bytes = self.items.iter().map(|ready| ready.bytes).sum();
        Ok(Published { manifest: hash, items: self.items.len(), bytes })
    }

    /// What everybody has once this is published.
    pub(super) fn known(&self) -> Known {
        Known::of(self.items.iter().map(|ready| &ready.told))
    }

    /// Refuses a pool of which something is known: nobody may know what a round is judged on.
    ///
    /// # Errors
    /// Names the items that are among the samples.
    pub(super) fn unknown_to(&self, samples: &Known) -> Result<()> {
        let known =
            |ready: &&Ready| samples.has(&ready.hash) || ready.twins.iter().any(|twin| samples.has(twin));
        let known: Vec<&str> =
            self.items.iter().filter(known).map(|ready| ready.item.file.as_str()).collect();
        if known.is_empty() {
            return Ok(());
        }
        let more = known.len().saturating_sub(NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        Err(bad_input(format!(
            "{}: {}{more} of the pool are among the competition's samples, which everybody has: take them out of the pool, or \
             open a competition with other samples",
            self.set.place(),
            known[..known.len().min(NAMED)].join(", "),
        )))
    }

    /// Items that no earlier round was judged on, under whatever head or shape.
    pub(super) fn unused(&self, used: &BTreeSet<Hash>) -> impl Iterator<Item = &Ready> {
        self.items.iter().filter(|ready| {
            !used.contains(&ready.hash) && !ready.twins.iter().any(|twin| used.contains(twin))
        })
    }
}

/// An item's bytes as a host holds them: a tensor whose shape or direction only the manifest tells gets a head that says so,
/// since judges see no manifest.
async fn blob(set: &Dataset, kind: Kind, item: &Item) -> Result<Bytes> {
    let wrong = |error: &dyn std::fmt::Display| bad_input(error.to_string());
    let bytes = set.bytes(item).await.map_err(|error| wrong(&error))?;
    let place = || format!("{}/{}", set.place(), item.file);
    match kind {
        Kind::Program => {
            Input::plain("", &bytes[..]).map_err(|error| wrong(&format!("{}: {error}", place())))?;
        }
        Kind::Codec => {
            let input = Input::of_blob("", &bytes, item.shape.clone(), item.direction)
                .map_err(|error| wrong(&format!("{}: {error}", place())))?;
            let headed = input.bytes.len() != bytes.len();
            let told = item.shape.is_some() || item.direction != ::judge::Direction::default();
            if told && !headed {
                return Ok(input.to_blob().into());
            }
        }
    }
    Ok(bytes.into())
}

/// Every hash under which the same numbers may be stored: bare, and with a head of their own shape or of a known one.
fn twins_of(input: &Input, known: &Known) -> Vec<Hash> {
    let numbers = input.bytes.len() as u64 / 2;
    let fits = |shape: &&Vec<u32>| shape.iter().map(|side| u64::from(*side)).product::<u64>() == numbers;
    let mut all = vec![Hash::of(&input.bytes)];
    for shape in known.shapes.iter().filter(fits).chain([&input.shape]) {
        for direction in ::judge::Direction::ALL {
            let twin = Input { direction, shape: shape.clone(), ..input.clone() };
            all.push(Hash::of(&twin.to_blob()));
        }
    }
    all
}

/// The samples that a spec names.
///
/// # Errors
/// The host does not have the manifest, or it cannot be read.
pub(super) async fn samples_of(client: &Client, spec: &CompetitionSpec) -> Result<Known> {
    let Some(hash) = spec.inputs.samples else { return Ok(Known::default()) };
    let bytes = client.blob(&hash).await.context("fetching the manifest of the samples")?;
    let manifest = Manifest::parse(&bytes)
        .map_err(|reason| bad_input(format!("the manifest of the samples, {hash}: {reason}")))?;
    Ok(Known::of(manifest.items.iter()))
}

/// What the rounds of a competition were judged on so far.
///
/// # Errors
/// The host refused or is away.
pub(super) async fn used_in(client: &Client, competition: &str) -> Result<BTreeSet<Hash>> {
    let (mut used, mut seen) = (BTreeSet::new(), 0);
    loop {
        let page = client.rounds(competition, seen, api::limits::PAGE_MAX).await?;
        seen += page.rounds.len() as u64;
        for round in page.rounds.iter().filter(|round| matches!(round.state.as_str(), "completed" | "void")) {
            let (name, mut start) = (round.round_number.to_string(), 0);
            loop {
                let inputs = client.inputs(competition, &name, start, api::limits::PAGE_MAX).await?;
                start += inputs.files.len() as u64;
                used.extend(inputs.files.iter().filter_map(|file| file.hash.parse::<Hash>().ok()));
                if !inputs.pagination.has_more || inputs.files.is_empty() {
                    break;
                }
            }
        }
        if !page.pagination.has_more || page.rounds.is_empty() {
            return Ok(used);
        }
    }
}

/// Refuses a pool from which a round cannot be drawn, before anything is uploaded.
///
/// # Errors
/// Says how many items there are, how many are needed, and what bounds them.
pub(super) fn enough(spec: &CompetitionSpec, operators: impl Iterator<Item = NodeId>) -> Result<()> {
    let mut given: BTreeMap<NodeId, usize> = BTreeMap::new();
    for operator in operators {
        *given.entry(operator).or_default() += 1;
    }
    let (most, needed) = (spec.inputs.per_operator_max(), spec.inputs.items as usize);
    let usable: usize = given.values().map(|count| (*count).min(most)).sum();
    if usable >= needed {
        return Ok(());
    }
    let all: usize = given.values().sum();
    let why = if all >= needed {
        format!(
            ": they are of {} operators, and a round takes at most {most} of each (operator_share_ppm = {}); the manifest's \
             column `operator` says whose an item is",
            given.len(),
            spec.inputs.operator_share_ppm
        )
    } else {
        String::new()
    };
    Err(bad_input(format!(
        "{usable} of {all} unused items can be drawn, a round of {} needs {needed}{why}",
        spec.name
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bare() -> Vec<u8> {
        (0_u16..64).flat_map(u16::to_le_bytes).collect()
    }

    #[tokio::test]
    async fn what_one_round_was_judged_on_comes_under_no_other_head_in_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().to_str().unwrap();
        let other: Vec<u8> = bare().iter().rev().copied().collect();
        std::fs::write(folder.path().join("a.bin"), bare()).unwrap();
        std::fs::write(folder.path().join("b.bin"), &other).unwrap();
        let read = async |shape: &str, known: &Known| {
            let hashes = [Hash::of(&bare()), Hash::of(&other)];
            let csv =
                format!("file,blake3,rows,cols\na.bin,{},{shape}\nb.bin,{},{shape}\n", hashes[0], hashes[1]);
            std::fs::write(folder.path().join("manifest.csv"), csv).unwrap();
            Checked::read(place, Kind::Codec, known).await.unwrap()
        };
        // One round was judged on it with a head that tells its shape, or bare; the next finds it the other way.
        let headed = read("8,8", &Known::default()).await;
        let plain = read(",", &headed.known()).await;
        let first = headed.items[0].hash;
        assert_ne!(first, Hash::of(&bare()));
        let left = |set: &Checked, used: Hash| {
            let used = BTreeSet::from([used]);
            set.unused(&used).map(|ready| ready.item.file.clone()).collect::<Vec<_>>()
        };
        for used in [first, Hash::of(&bare())] {
            assert_eq!(
                (left(&headed, used), left(&plain, used)),
                (vec!["b.bin".to_owned()], vec!["b.bin".to_owned()])
            );
        }
        // What is published of an item is what was checked of it, not only what its manifest said.
        assert_eq!(headed.items[0].told.hash, Some(first));
    }
}
