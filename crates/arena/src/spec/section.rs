//! The sections of a competition's spec.

use serde::{Deserialize, Serialize, Serializer};
use wire::{Hash, Millis};

use super::reader::{Reader, SpecError};
use crate::account::Metric;
use crate::calendar::{DAY_S, Moment, TimeOfDay, Zone, civil_from_days};
use crate::limits;
use crate::rule::{Direction, RULES, Rule, info};

pub(super) const YEAR_S: u64 = 366 * 86_400;

#[expect(clippy::ref_option, reason = "the signature that serde calls")]
fn optional_hash<S: Serializer>(hash: &Option<Hash>, serializer: S) -> Result<S::Ok, S::Error> {
    match hash {
        Some(hash) => serializer.collect_str(hash),
        None => serializer.serialize_str(""),
    }
}

/// What is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Codecs: compress and decompress (Matrix Compression).
    Codec,
    /// Programs that a declared evaluator measures.
    Program,
}

impl Kind {
    pub(super) fn read(reader: &mut Reader) -> Result<Self, SpecError> {
        reader.choice("kind", None, &[("codec", Self::Codec), ("program", Self::Program)])
    }
}

/// Where to read more, and who pays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Links {
    /// Address of a page.
    pub doc_url: String,
    /// Address of a picture.
    pub image_url: String,
    /// Who pays.
    pub sponsor: String,
    /// The sponsor's page.
    pub sponsor_url: String,
}

impl Links {
    pub(super) fn read(reader: &mut Reader) -> Result<Self, SpecError> {
        Ok(Self {
            doc_url: reader.text("doc_url", "", limits::TEXT_BYTES)?,
            image_url: reader.text("image_url", "", limits::TEXT_BYTES)?,
            sponsor: reader.text("sponsor", "", limits::NAME_BYTES)?,
            sponsor_url: reader.text("sponsor_url", "", limits::TEXT_BYTES)?,
        })
    }
}

/// A rule by name, with the parameters that the spec sets.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleChoice {
    /// Name in [`RULES`].
    pub name: &'static str,
    /// The rule itself.
    pub rule: Rule,
}

impl Serialize for RuleChoice {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("name", self.name)?;
        match &self.rule {
            Rule::Link(link) => {
                map.serialize_entry("failures_max_ppm", &link.failures_max_ppm)?;
                map.serialize_entry("floor_ppb", &link.floor_ppb)?;
                map.serialize_entry("fuel_ps", &link.fuel_ps)?;
                map.serialize_entry("link_bytes_per_s", &link.link_bytes_per_s)?;
                map.serialize_entry("module_share", &link.module_share)?;
                map.serialize_entry("reference_bytes", &link.reference_bytes)?;
            }
            Rule::Objective(objective) => {
                let lower = objective.direction == Direction::Lower;
                map.serialize_entry("direction", if lower { "lower" } else { "higher" })?;
                map.serialize_entry("missing_nano", &objective.missing_nano)?;
            }
            Rule::Weighted(_) | Rule::Lossless { .. } | Rule::Lossy { .. } => {}
        }
        map.end()
    }
}

impl RuleChoice {
    pub(super) fn read(reader: &mut Reader, kind: Kind) -> Result<Self, SpecError> {
        let fits = |rule: &Rule| rule.is_for_codecs() == (kind == Kind::Codec);
        let names: Vec<(&str, &'static str)> =
            RULES.iter().filter(|info| fits(&info.rule)).map(|info| (info.name, info.name)).collect();
        let default = if kind == Kind::Codec { "shoal-link-1" } else { "objective-1" };
        let name = reader.choice("name", Some(default), &names)?;
        let mut rule = info(name).expect("the names come from the table").rule;
        match &mut rule {
            Rule::Link(link) => {
                let exact = 1_000_000_000;
                let floor = if link.exact { exact..=exact } else { 0..=exact };
                link.failures_max_ppm =
                    reader.number("failures_max_ppm", link.failures_max_ppm, 0..=1_000_000)?;
                link.floor_ppb = reader.number("floor_ppb", link.floor_ppb, floor)?;
                link.fuel_ps = reader.number("fuel_ps", link.fuel_ps, 1..=1_000_000)?;
                link.link_bytes_per_s =
                    reader.number("link_bytes_per_s", link.link_bytes_per_s, 1000..=1_000_000_000_000)?;
                link.module_share = reader.number("module_share", link.module_share, 1..=1_000_000_000)?;
                link.reference_bytes = reader.number("reference_bytes", link.reference_bytes, 1..=1 << 40)?;
            }
            Rule::Objective(objective) => {
                let ways = [("higher", Direction::Higher), ("lower", Direction::Lower)];
                objective.direction = reader.choice("direction", Some(objective.direction), &ways)?;
                // Nothing is the best there is where lower is better: what it counts must be said.
                let default = (objective.direction == Direction::Higher).then_some(objective.missing_nano);
                objective.missing_nano =
                    reader.signed("missing_nano", default, limits::OBJECTIVE_NANO_MAX)?;
            }
            Rule::Weighted(_) | Rule::Lossless { .. } | Rule::Lossy { .. } => {}
        }
        Ok(Self { name, rule })
    }
}

/// How much better, and how surely, a challenger must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct TakeoverChoice {
    /// Margin over the top raw score, 10⁻⁶.
    pub margin_ppm: u32,
    /// Level of the paired test, 10⁻⁶; 0 = none.
    pub alpha_ppm: u32,
}

impl TakeoverChoice {
    pub(super) fn read(reader: &mut Reader, rule: &RuleChoice) -> Result<Self, SpecError> {
        let default = info(rule.name).expect("the name was read from the table").takeover;
        let margin = reader.number("margin_ppm", default.margin_ppm.into(), 0..=1_000_000)?;
        let alpha = reader.number("alpha_ppm", default.alpha_ppm.into(), 0..=200_000)?;
        Ok(Self { margin_ppm: margin as u32, alpha_ppm: alpha as u32 })
    }
}

/// When rounds open and close. A round closes as the next one opens; it is judged while that one is open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Schedule {
    /// No round opens before.
    pub start: Moment,
    /// Zone of `at`, as a POSIX rule.
    pub zone: Zone,
    /// Time of day at which rounds change; only with `days`.
    pub at: TimeOfDay,
    /// Length of a round in days of the zone; 0 = use `every_s`.
    pub days: u32,
    /// Length of a round in seconds; 0 = use `days`.
    pub every_s: u64,
    /// Number of rounds; 0 = until it is ended.
    pub rounds: u32,
    /// After close: time to name the pool of inputs (only with a pool).
    pub pool_s: u64,
    /// Then: time for entrants to open their seals, and the same again for judges to open their nonces.
    pub opening_s: u64,
    /// Then: time to judge.
    pub judging_s: u64,
}

impl Schedule {
    pub(super) fn read(reader: &mut Reader) -> Result<Self, SpecError> {
        let utc = "UTC0".parse().expect("a zone");
        let schedule = Self {
            start: reader.parsed("start", None, "a time in UTC, like 2026-01-13T11:00:00Z")?,
            zone: reader.parsed(
                "zone",
                Some(utc),
                "a POSIX time zone, like UTC0 or CET-1CEST,M3.5.0,M10.5.0/3",
            )?,
            at: reader.parsed("at", Some(TimeOfDay { seconds: 0 }), "a time of day, like 11:00")?,
            days: reader.number("days", 0, 0..=366)? as u32,
            every_s: reader.number("every_s", 0, 0..=YEAR_S)?,
            rounds: reader.number("rounds", 0, 0..=1_000_000)? as u32,
            pool_s: reader.number("pool_s", 3600, 1..=YEAR_S)?,
            opening_s: reader.number("opening_s", 3600, 1..=YEAR_S)?,
            judging_s: reader.number("judging_s", 43_200, 1..=YEAR_S)?,
        };
        if (schedule.days == 0) == (schedule.every_s == 0) {
            let allowed = "a number of days, or every_s instead: one of both must be above 0";
            return Err(reader.fault("days", &schedule.days, allowed));
        }
        Ok(schedule)
    }

    /// Shortest that a round can be: days lose an hour or more when the clock changes.
    pub(super) fn shortest_round_s(&self) -> u64 {
        if self.every_s > 0 { self.every_s } else { u64::from(self.days) * 86_400 - 2 * 3600 }
    }

    /// When round `round` (from 0) opens; it closes when the next one would.
    pub fn opens(&self, round: u32) -> Millis {
        let start = self.start.0;
        if self.every_s > 0 {
            return start.plus(Millis(self.every_s.saturating_mul(1000 * u64::from(round))));
        }
        let begin = (start.0 / 1000) as i64;
        let at = i64::from(self.at.seconds);
        let today = self.zone.local(begin).div_euclid(DAY_S);
        // The first of this and the next day that is not before the start.
        let first = if self.zone.instant(today * DAY_S + at) < begin { today + 1 } else { today };
        let day = first + i64::from(round) * i64::from(self.days);
        Millis(self.zone.instant(day * DAY_S + at).max(0) as u64 * 1000)
    }

    /// When round `round` closes.
    pub fn closes(&self, round: u32) -> Millis {
        self.opens(round.saturating_add(1))
    }

    /// The round that is open at `now`, if `next` or a later one is.
    pub fn round_at(&self, now: Millis, next: u32) -> Option<u32> {
        if now < self.opens(next) {
            return None;
        }
        let step = if self.every_s > 0 { self.every_s } else { u64::from(self.days) * 86_400 };
        let guess = now.since(self.opens(0)).0 / (step * 1000);
        let guess = u32::try_from(guess).unwrap_or(u32::MAX - 2).clamp(next, u32::MAX - 2);
        let near = guess.saturating_sub(1).max(next)..=guess + 1;
        near.rev().find(|round| self.opens(*round) <= now)
    }

    /// The date of a round's opening in its zone.
    pub fn local_date(&self, round: u32) -> (i64, u32, u32) {
        civil_from_days(self.zone.local((self.opens(round).0 / 1000) as i64).div_euclid(DAY_S))
    }
}

/// Where a round's inputs come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// A generator makes them from the round's seed.
    Generator,
    /// The seed draws them from a pool that its owner fixes after close, before the seed is known.
    Pool,
}

/// What entries run on. The same for all entries of a round; nobody knows it when the round closes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Inputs {
    /// Where they come from.
    pub source: Source,
    /// Code of the generator (or of a program's evaluator).
    #[serde(serialize_with = "optional_hash")]
    pub code: Option<Hash>,
    /// Manifest of the development set, for everybody.
    #[serde(serialize_with = "optional_hash")]
    pub samples: Option<Hash>,
    /// Inputs of a round.
    pub items: u32,
    /// Largest share of them that one operator may have given, 10⁻⁶; only with a pool.
    pub operator_share_ppm: u32,
}

impl Inputs {
    pub(super) fn read(reader: &mut Reader) -> Result<Self, SpecError> {
        let sources = [("generator", Source::Generator), ("pool", Source::Pool)];
        Ok(Self {
            source: reader.choice("source", Some(Source::Generator), &sources)?,
            code: reader.hash("code")?,
            samples: reader.hash("samples")?,
            items: reader.number("items", 400, 1..=u64::from(limits::ITEMS_MAX))? as u32,
            operator_share_ppm: reader.number("operator_share_ppm", 333_333, 1..=1_000_000)? as u32,
        })
    }

    /// Most items of one operator in a round.
    pub fn per_operator_max(&self) -> usize {
        (u64::from(self.items) * u64::from(self.operator_share_ppm) / 1_000_000).max(1) as usize
    }
}

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// A WebAssembly component.
    Component,
    /// A Python program that speaks the HTTP contract.
    Python,
    /// A native program that speaks the HTTP contract.
    Native,
}

impl Form {
    /// Name in a spec.
    pub fn name(self) -> &'static str {
        match self {
            Self::Component => "component",
            Self::Python => "python",
            Self::Native => "native",
        }
    }
}

/// What may be entered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SubmissionRules {
    /// Largest code, bytes.
    pub bytes_max: u64,
    /// Forms that are admitted.
    pub forms: Vec<Form>,
    /// Most entries of one key in a round.
    pub per_round_max: u32,
    /// A key's newer entry replaces its older one in the round.
    pub latest_only: bool,
    /// Most entries of a round.
    pub entries_max: u32,
    /// Only keys that the competition's opener registered may enter. Came later than the other keys: the canonical text
    /// has it only where it is true, so that specs from before keep their ids.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub registered: bool,
}

impl SubmissionRules {
    pub(super) fn read(reader: &mut Reader) -> Result<Self, SpecError> {
        let all = [Form::Component, Form::Python, Form::Native];
        let named = |text: &str| all.into_iter().find(|form| form.name() == text);
        let mut forms = reader.list("forms", 3, "of component, python, native", named)?;
        if forms.is_empty() {
            forms.push(Form::Component);
        }
        forms.sort_unstable();
        Ok(Self {
            bytes_max: reader.number("bytes_max", 1 << 20, 1..=limits::CODE_BYTES_MAX)?,
            forms,
            per_round_max: reader.number("per_round_max", 4, 1..=1000)? as u32,
            latest_only: reader.flag("latest_only", false)?,
            entries_max: reader.number("entries_max", 10_000, 1..=u64::from(limits::ROUND_ENTRIES_MAX))?
                as u32,
            registered: reader.flag("registered", false)?,
        })
    }
}

/// What an entry may use while it runs. Entrants see every limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Resources {
    /// Version and settings of the runtime, hashed.
    #[serde(serialize_with = "optional_hash")]
    pub runtime: Option<Hash>,
    /// Hash-locked environment of programs.
    #[serde(serialize_with = "optional_hash")]
    pub environment: Option<Hash>,
    /// Memory, bytes.
    pub memory_bytes: u64,
    /// Fuel of one call.
    pub fuel: u64,
    /// Time of one call, seconds.
    pub call_s: u64,
    /// Time until ready, seconds.
    pub startup_s: u64,
    /// Processors, 10⁻³.
    pub cpu_milli: u32,
    /// Processes and threads.
    pub processes: u32,
    /// Disk, bytes.
    pub disk_bytes: u64,
    /// Command, word by word, that runs in each jail of an entry before the entry starts; its time counts as the entry's
    /// start. The first word `python` means the environment's interpreter. Empty: none. Came later than the other keys: the
    /// canonical text has it only where it is set.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prepare: Vec<String>,
}

impl Resources {
    pub(super) fn read(reader: &mut Reader) -> Result<Self, SpecError> {
        Ok(Self {
            runtime: reader.hash("runtime")?,
            environment: reader.hash("environment")?,
            memory_bytes: reader.number("memory_bytes", 1536 << 20, 1 << 20..=1 << 40)?,
            fuel: reader.number("fuel", 100_000_000_000, 1..=limits::ITEM_FUEL_MAX / 2)?,
            call_s: reader.number("call_s", 60, 1..=86_400)?,
            startup_s: reader.number("startup_s", 60, 1..=86_400)?,
            cpu_milli: reader.number("cpu_milli", 1000, 1..=256_000)? as u32,
            processes: reader.number("processes", 64, 1..=65_536)? as u32,
            disk_bytes: reader.number("disk_bytes", 1 << 30, 1 << 20..=1 << 40)?,
            prepare: reader.words("prepare", limits::COMMAND_WORDS, limits::COMMAND_WORD_BYTES)?,
        })
    }
}

/// Who judges, and how many must agree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct JudgeRules {
    /// Judges who must agree on an entry.
    pub agree: u8,
    /// Judges who must agree on a new champion and on the one it beats.
    pub takeover: u8,
    /// Most judges that an entry is put before.
    pub max: u8,
    /// Judges of an entry must be of different operators.
    pub distinct_operators: bool,
    /// How far the mean objectives of a program may be apart, 10⁻⁶; 0 = equal to the last bit.
    pub tolerance_ppm: u32,
    /// Time that a lease gives, and the time to open a sealed verdict. Seconds.
    pub lease_s: u64,
}

impl JudgeRules {
    pub(super) fn read(reader: &mut Reader, kind: Kind) -> Result<Self, SpecError> {
        let most = u64::from(limits::SLOTS_MAX);
        let agree = reader.number("agree", 2, 1..=most)?;
        let takeover = reader.number("takeover", (agree + 1).max(3).min(most), agree..=most)?;
        let max = reader.number("max", (takeover + 2).min(most), takeover..=most)?;
        let tolerance = if kind == Kind::Program { 0..=200_000 } else { 0..=0 };
        Ok(Self {
            agree: agree as u8,
            takeover: takeover as u8,
            max: max as u8,
            distinct_operators: reader.flag("distinct_operators", true)?,
            tolerance_ppm: reader.number("tolerance_ppm", 0, tolerance)? as u32,
            lease_s: reader.number("lease_s", 1200, 1..=7 * 86_400)?,
        })
    }

    /// Time of a lease.
    pub fn lease(&self) -> Millis {
        Millis(self.lease_s * 1000)
    }
}

/// When code is shown to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Reveal {
    /// After the round is completed, seconds.
    pub code_delay_s: u64,
}

impl Reveal {
    pub(super) fn read(reader: &mut Reader) -> Result<Self, SpecError> {
        Ok(Self { code_delay_s: reader.number("code_delay_s", 86_400, 0..=YEAR_S)? })
    }
}

/// What an entry costs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fee {
    /// Smallest payment, in the smallest unit of its currency; 0 = free.
    pub amount: u64,
    /// What it is paid in, for people.
    pub currency: String,
    /// Where it is paid, in one line: an address, an account, a page. Came later than the other keys: the canonical text has it
    /// only where it is set.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pay_to: String,
}

impl Fee {
    pub(super) fn read(reader: &mut Reader) -> Result<Self, SpecError> {
        let fee = Self {
            amount: reader.number("amount", 0, 0..=i64::MAX as u64)?,
            currency: reader.text("currency", "", limits::NAME_BYTES)?,
            pay_to: reader.text("pay_to", "", limits::PAY_TO_BYTES)?,
        };
        // Nor what turns the order in which it is shown.
        let unseen = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if fee.pay_to.chars().any(|c| c.is_control() || unseen(c)) {
            return Err(reader.fault("pay_to", &fee.pay_to, "one line"));
        }
        if fee.amount == 0 && !fee.pay_to.is_empty() {
            return Err(reader.fault(
                "pay_to",
                &fee.pay_to,
                "nothing where entries are free (fee.amount = 0)",
            ));
        }
        Ok(fee)
    }
}

/// What everybody must beat: code that is judged in each round like an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Baseline {
    /// Name, for people.
    pub name: String,
    /// Its code; none = no baseline.
    #[serde(serialize_with = "optional_hash")]
    pub code: Option<Hash>,
    /// Size of its code.
    pub bytes: u64,
    /// What it is.
    pub form: Form,
    /// A template to start from.
    #[serde(serialize_with = "optional_hash")]
    pub template: Option<Hash>,
}

impl Baseline {
    pub(super) fn read(reader: &mut Reader) -> Result<Self, SpecError> {
        let forms = [("component", Form::Component), ("python", Form::Python), ("native", Form::Native)];
        Ok(Self {
            name: reader.text("name", "", limits::NAME_BYTES)?,
            code: reader.hash("code")?,
            bytes: reader.number("bytes", 0, 0..=limits::CODE_BYTES_MAX)?,
            form: reader.choice("form", Some(Form::Component), &forms)?,
            template: reader.hash("template")?,
        })
    }
}

/// Which way the evaluator's metrics are better, for whoever shows them. No rule reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MetricRules {
    /// Names of those of which more is better.
    pub higher: Vec<String>,
    /// Names of those of which less is better.
    pub lower: Vec<String>,
}

impl MetricRules {
    pub(super) fn read(reader: &mut Reader) -> Result<Self, SpecError> {
        let mut names =
            |key: &str| reader.texts(key, &[], limits::METRICS_MAX, "names of metrics", Metric::is_name);
        let rules = Self { higher: names("higher")?, lower: names("lower")? };
        if let Some(both) = rules.higher.iter().find(|name| rules.lower.contains(name)) {
            return Err(reader.fault("lower", both, "names that are not in higher, too"));
        }
        Ok(rules)
    }

    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.higher.is_empty() && self.lower.is_empty()
    }

    /// Which way a metric is better; `None`: nobody said.
    pub fn direction(&self, name: &str) -> Option<Direction> {
        let said = |names: &[String]| names.iter().any(|known| known == name);
        match () {
            () if said(&self.higher) => Some(Direction::Higher),
            () if said(&self.lower) => Some(Direction::Lower),
            () => None,
        }
    }
}
