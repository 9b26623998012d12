//! What an arena and a competition are, in TOML: read once, checked in full, immutable; the id is the hash.
//!
//! The canonical text has every key with its value, so two texts that mean the same have one id, and a later build with other
//! defaults means the same by it. It is what a competition's opener signs and what the log holds.

mod reader;
mod reward;
mod screening;
mod section;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use wire::id::ParseIdError;
use wire::{Hash, Millis, NodeId, RunId};

use self::reader::Reader;
pub use self::reader::SpecError;
pub use self::reward::{Bounty, Rewards};
pub use self::screening::{Architecture, Screening};
pub use self::section::{
    Baseline, Fee, Form, Inputs, JudgeRules, Kind, Links, MetricRules, Resources, Reveal, RuleChoice,
    Schedule, Source, SubmissionRules,
};
use crate::limits;
use crate::rule::{Rule, Takeover};

/// Hash of a competition's canonical spec.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CompetitionId(pub Hash);

impl fmt::Display for CompetitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for CompetitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CompetitionId({})", self.0.short())
    }
}

impl FromStr for CompetitionId {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        text.parse().map(Self)
    }
}

/// A competition: what is measured, how, when, and what it is worth.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CompetitionSpec {
    /// Short name, unique among the open competitions of an arena.
    pub name: String,
    /// One line for people.
    pub title: String,
    /// What it is about.
    pub about: String,
    /// What is judged.
    pub kind: Kind,
    /// Where to read more, and who pays.
    pub links: Links,
    /// How measurements become scores.
    pub rule: RuleChoice,
    /// How much better a challenger must be.
    pub takeover: section::TakeoverChoice,
    /// When rounds open and close.
    pub schedule: Schedule,
    /// What entries run on.
    pub inputs: Inputs,
    /// What may be entered.
    pub submission: SubmissionRules,
    /// What is looked for in an entry before it is run.
    pub screening: Screening,
    /// What an entry may use while it runs.
    pub resources: Resources,
    /// Who judges, and how many must agree.
    pub judges: JudgeRules,
    /// When code is shown.
    pub reveal: Reveal,
    /// What a place is worth.
    pub reward: Rewards,
    /// What an entry costs.
    pub fee: Fee,
    /// What everybody must beat.
    pub baseline: Baseline,
    /// Which way the evaluator's metrics are better. In the canonical text only where it says something.
    #[serde(skip_serializing_if = "MetricRules::is_empty")]
    pub metrics: MetricRules,
}

impl CompetitionSpec {
    /// Reads a spec and checks every value.
    ///
    /// # Errors
    /// Names the key, its value and what is allowed.
    pub fn parse(text: &str) -> Result<Self, SpecError> {
        let mut reader = Reader::parse(text)?;
        let spec = Self::read(&mut reader)?;
        reader.finish()?;
        spec.check()?;
        Ok(spec)
    }

    /// The TOML text with every value written out. Reading it gives the same spec.
    pub fn canonical(&self) -> String {
        toml::to_string(self).expect("a spec holds only strings, numbers, lists and tables")
    }

    /// The competition's id: hash of the canonical text.
    pub fn id(&self) -> CompetitionId {
        CompetitionId(Hash::of(self.canonical().as_bytes()))
    }

    /// The rule with its parameters.
    pub fn rule(&self) -> Rule {
        self.rule.rule
    }

    /// The takeover rule.
    pub fn takeover(&self) -> Takeover {
        Takeover { margin_ppm: self.takeover.margin_ppm, alpha_ppm: self.takeover.alpha_ppm }
    }

    /// Files that the spec names by their hash, each with its key.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, Hash)> {
        let all = [
            ("inputs.code", self.inputs.code),
            ("inputs.samples", self.inputs.samples),
            ("resources.environment", self.resources.environment),
            ("baseline.code", self.baseline.code),
            ("baseline.template", self.baseline.template),
        ];
        all.into_iter().filter_map(|(key, hash)| Some((key, hash?)))
    }

    fn read(reader: &mut Reader) -> Result<Self, SpecError> {
        let name = reader.name("name", None)?;
        let title = reader.text("title", &name, limits::NAME_BYTES)?;
        let about = reader.text("about", "", limits::TEXT_BYTES)?;
        let kind = Kind::read(reader)?;
        let links = reader.section("links", Links::read)?;
        let rule = reader.section("rule", |section| RuleChoice::read(section, kind))?;
        let takeover = reader.section("takeover", |section| section::TakeoverChoice::read(section, &rule))?;
        Ok(Self {
            name,
            title,
            about,
            kind,
            links,
            rule,
            takeover,
            schedule: reader.section("schedule", Schedule::read)?,
            inputs: reader.section("inputs", Inputs::read)?,
            submission: reader.section("submission", SubmissionRules::read)?,
            screening: reader.section("screening", Screening::read)?,
            resources: reader.section("resources", Resources::read)?,
            judges: reader.section("judges", |section| JudgeRules::read(section, kind))?,
            reveal: reader.section("reveal", Reveal::read)?,
            reward: reader.section("reward", Rewards::read)?,
            fee: reader.section("fee", Fee::read)?,
            baseline: reader.section("baseline", Baseline::read)?,
            metrics: reader.section("metrics", MetricRules::read)?,
        })
    }

    /// Values that do not fit each other.
    fn check(&self) -> Result<(), SpecError> {
        if self.takeover.alpha_ppm > 0 && self.inputs.items < limits::PAIRED_ITEMS_MIN {
            let allowed = format!(
                "at least {} with a paired takeover test (or takeover.alpha_ppm = 0)",
                limits::PAIRED_ITEMS_MIN
            );
            return Err(SpecError::value("inputs.items", &self.inputs.items, allowed));
        }
        if self.kind == Kind::Program && self.inputs.code.is_none() {
            let allowed = "the hash of the evaluator, which measures what a program answers";
            return Err(SpecError::Missing { key: "inputs.code".to_owned(), allowed: allowed.to_owned() });
        }
        if self.baseline.code.is_none() && !self.baseline.name.is_empty() {
            let allowed = "the hash of the baseline's code; a name alone sets none";
            return Err(SpecError::Missing { key: "baseline.code".to_owned(), allowed: allowed.to_owned() });
        }
        if self.kind == Kind::Codec && !self.metrics.is_empty() {
            let allowed =
                "nothing in a competition of codecs: what judges measure there is better the higher it is";
            let named: Vec<&str> =
                self.metrics.higher.iter().chain(&self.metrics.lower).map(String::as_str).collect();
            return Err(SpecError::value("metrics", &named.join(", "), allowed));
        }
        let programs = self.submission.forms.iter().any(|form| *form != Form::Component);
        if !self.resources.prepare.is_empty() && !programs {
            let allowed = "nothing where only components are admitted: they have no files and no processes";
            return Err(SpecError::value("resources.prepare", &self.resources.prepare.join(" "), allowed));
        }
        // A round is judged before the next one closes, so that the incumbent of each is known.
        let schedule = &self.schedule;
        let pool_s = if self.inputs.source == Source::Pool { schedule.pool_s } else { 0 };
        let after_close_s = pool_s + 2 * schedule.opening_s + schedule.judging_s;
        let shortest_s = schedule.shortest_round_s();
        if after_close_s > shortest_s {
            let allowed = format!(
                "pool_s + 2 × opening_s + judging_s at most the shortest round, {shortest_s}: lower one of them, or make rounds longer"
            );
            return Err(SpecError::value("schedule.judging_s", &schedule.judging_s, allowed));
        }
        Ok(())
    }
}

/// An arena: one log with many competitions.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ArenaSpec {
    /// Name for people.
    pub name: String,
    /// Keys that may open competitions with a weight and announce for the whole arena.
    pub owners: Vec<Key>,
    /// Whether anybody else may open competitions (without a weight).
    pub open_to_all: bool,
    /// Entries that one key may make in a window, over all competitions.
    pub rate_entries: u32,
    /// Length of that window, which rolls: an entry counts until it is this old. Seconds.
    pub rate_window_s: u64,
}

/// A key, as hexadecimal text in a spec.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(pub NodeId);

impl Serialize for Key {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl ArenaSpec {
    /// Reads a spec and checks every value.
    ///
    /// # Errors
    /// Names the key, its value and what is allowed.
    pub fn parse(text: &str) -> Result<Self, SpecError> {
        let mut reader = Reader::parse(text)?;
        let spec = Self {
            name: reader.name("name", None)?,
            owners: reader.list("owners", limits::OWNERS_MAX, "keys in hexadecimal", |text| {
                text.parse().map(Key).ok()
            })?,
            open_to_all: reader.flag("open_to_all", true)?,
            rate_entries: reader.number("rate_entries", 4, 1..=100_000)? as u32,
            rate_window_s: reader.number("rate_window_s", 86_400, 1..=366 * 86_400)?,
        };
        reader.finish()?;
        Ok(spec)
    }

    /// The TOML text with every value written out.
    pub fn canonical(&self) -> String {
        toml::to_string(self).expect("a spec holds only strings, numbers and lists")
    }

    /// The arena's id, which its envelopes and its log carry.
    pub fn run_id(&self) -> RunId {
        RunId(Hash::of(self.canonical().as_bytes()).0)
    }

    /// The window of the rate limit.
    pub fn rate_window(&self) -> Millis {
        Millis(self.rate_window_s * 1000)
    }
}

#[cfg(test)]
mod tests;
