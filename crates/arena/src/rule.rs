//! Rules as data: how measurements become a raw score and a normalised one.
//!
//! Floating point is used in basic operations of a declared order only ([`crate::number::exp`] included), so that every
//! node gets the same bits. Sums over inputs are integers.

mod codec;
mod paired;
mod table;

use serde::{Deserialize, Serialize};

pub use self::codec::{Facts, time_ns};
pub use self::paired::{Comparison, Takeover, sign_flip_test};
pub use self::table::{RULES, RuleInfo, info};
use crate::number::{PPB, PPM, exp};

/// A rule with all its parameters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rule {
    /// `w_t (t₀ − t) + w_s similarity + w_r ratio`, through a logistic function.
    Weighted(Weighted),
    /// `(1 − c)(1 − t / t₁)` where every bit came back, else 0; c = compressed ÷ original.
    Lossless {
        /// t₁: time at which nothing is left of the score, seconds.
        time_s: f64,
    },
    /// `1 − c` where every input's similarity is above the floor, else 0. Time does not count.
    Lossy {
        /// Similarity that must be exceeded.
        floor: f64,
    },
    /// How much faster a tensor arrives over a link than without compression.
    Link(Link),
    /// Mean of what the declared evaluator measured.
    Objective(Objective),
}

/// Parameters of the founding formula.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weighted {
    /// t₀, seconds.
    pub time_base_s: f64,
    /// w_t, per second.
    pub time_weight: f64,
    /// w_s.
    pub similarity_weight: f64,
    /// w_r.
    pub ratio_weight: f64,
    /// Raw score, in thousands, at which the normalised one is ½.
    pub midpoint: f64,
    /// Steepness, per thousand.
    pub slope: f64,
}

/// Parameters of the link model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Least similarity of an input, 10⁻⁹. An input below it travels as it is: no gain.
    pub floor_ppb: u64,
    /// Every bit must come back.
    pub exact: bool,
    /// Speed of the link, bytes per second.
    pub link_bytes_per_s: u64,
    /// Time of one unit of fuel, picoseconds.
    pub fuel_ps: u64,
    /// Number of tensors that share the transfer of the code itself.
    pub module_share: u64,
    /// Share of inputs that may fall below the floor, 10⁻⁶; above it the raw score is 0.
    pub failures_max_ppm: u64,
    /// Size of the tensor that [`Rule::score`] assumes, bytes.
    pub reference_bytes: u64,
}

/// Parameters of a declared evaluator's objective.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Objective {
    /// Which way is better.
    pub direction: Direction,
    /// What an input counts on which the program gave no answer, 10⁻⁹ units.
    pub missing_nano: i64,
}

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Direction {
    /// Higher scores are better.
    Higher,
    /// Lower scores are better.
    Lower,
}

impl Direction {
    /// Whether `a` is strictly better than `b`.
    pub fn better(self, a: f64, b: f64) -> bool {
        match self {
            Self::Higher => a > b,
            Self::Lower => a < b,
        }
    }

    /// Best first.
    pub fn order(self, a: f64, b: f64) -> std::cmp::Ordering {
        match self {
            Self::Higher => b.total_cmp(&a),
            Self::Lower => a.total_cmp(&b),
        }
    }
}

/// The three figures of a codec that the founding documents name.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Figures {
    /// Cosine × norm similarity; 1 for an exact copy.
    pub similarity: f64,
    /// Original size ÷ compressed size.
    pub ratio: f64,
    /// Compress plus decompress, seconds per input.
    pub task_time_s: f64,
}

/// Raw and normalised score.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// What the takeover rule compares.
    pub raw: f64,
    /// What people compare.
    pub score: f64,
}

/// An entry's scores and the figures behind them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scoring {
    /// Raw and normalised score.
    pub score: Score,
    /// Figures; `None` for a program.
    pub figures: Option<Figures>,
    /// Smallest similarity of an input, 10⁻⁹; 0 for a program.
    pub similarity_min_ppb: i64,
    /// Original bytes per second of compress plus decompress; 0 if no time was measured.
    pub bytes_per_s: u64,
    /// Inputs that fell below the floor, or without an answer.
    pub failed_items: u32,
}

impl Rule {
    /// Which way raw scores are better.
    pub fn direction(&self) -> Direction {
        match self {
            Self::Objective(objective) => objective.direction,
            _ => Direction::Higher,
        }
    }

    /// Whether the rule can score this kind's measurements.
    pub fn is_for_codecs(&self) -> bool {
        !matches!(self, Self::Objective(_))
    }

    /// Scores of three figures. Of a program's rule: 0 (its objective is no figure of a codec).
    ///
    /// Figures that are no numbers, a ratio that is not positive and a negative time give the lowest score.
    pub fn score(&self, figures: &Figures) -> Score {
        let Figures { similarity, ratio, task_time_s } = *figures;
        let possible = similarity.is_finite() && ratio.is_finite() && task_time_s.is_finite();
        if !possible || ratio <= 0.0 || task_time_s < 0.0 {
            return Score { raw: 0.0, score: 0.0 };
        }
        let same = |raw: f64| Score { raw, score: raw };
        match self {
            Self::Weighted(rule) => {
                let raw = rule.time_weight * (rule.time_base_s - task_time_s)
                    + rule.similarity_weight * similarity
                    + rule.ratio_weight * ratio;
                Score { raw, score: 1.0 / (1.0 + exp(-rule.slope * (raw / 1000.0 - rule.midpoint))) }
            }
            Self::Lossless { .. } if similarity < 1.0 => same(0.0),
            Self::Lossless { time_s } => {
                same(((1.0 - 1.0 / ratio) * (1.0 - task_time_s / time_s)).clamp(0.0, 1.0))
            }
            Self::Lossy { floor } if similarity > *floor => same((1.0 - 1.0 / ratio).clamp(0.0, 1.0)),
            Self::Link(link) => {
                let floor = if link.exact { 1.0 } else { link.floor_ppb as f64 / PPB as f64 };
                if similarity < floor {
                    return same(0.0);
                }
                let plain_s = link.reference_bytes as f64 / link.link_bytes_per_s as f64;
                let packed_s = plain_s / ratio + task_time_s;
                Score { raw: plain_s / packed_s, score: (1.0 - packed_s / plain_s).clamp(0.0, 1.0) }
            }
            Self::Lossy { .. } | Self::Objective(_) => same(0.0),
        }
    }

    /// Scores an entry from one judge's measurements, or several who agree.
    pub fn judge(&self, facts: &Facts<'_>) -> Scoring {
        match (self, facts.measures) {
            (Self::Objective(objective), crate::measure::Measures::Program(items)) => objective.judge(items),
            (_, crate::measure::Measures::Codec(items)) => self.judge_codec(facts, items),
            _ => Scoring::nothing(facts.measures.len() as u32),
        }
    }

    /// What each input cost an entry, in the unit that its rule minimises; lower is better. The paired test compares
    /// these. One per input.
    pub fn losses(&self, facts: &Facts<'_>) -> Vec<i128> {
        match (self, facts.measures) {
            (Self::Objective(objective), crate::measure::Measures::Program(items)) => {
                let sign = if objective.direction == Direction::Lower { 1 } else { -1 };
                let value = |nano: Option<i64>| i128::from(nano.unwrap_or(objective.missing_nano));
                items.iter().map(|item| sign * value(item.objective_nano)).collect()
            }
            (_, crate::measure::Measures::Codec(items)) => self.codec_losses(facts, items),
            _ => vec![0; facts.measures.len()],
        }
    }
}

impl Scoring {
    fn nothing(failed_items: u32) -> Self {
        Self {
            score: Score { raw: 0.0, score: 0.0 },
            figures: None,
            similarity_min_ppb: 0,
            bytes_per_s: 0,
            failed_items,
        }
    }
}

impl Objective {
    fn judge(&self, items: &[crate::measure::ProgramItem]) -> Scoring {
        let sum: i128 =
            items.iter().map(|item| i128::from(item.objective_nano.unwrap_or(self.missing_nano))).sum();
        let failed = items.iter().filter(|item| item.objective_nano.is_none()).count() as u32;
        // Missing inputs stay in the denominator.
        let raw = sum as f64 / (items.len().max(1) as f64 * PPB as f64);
        Scoring { score: Score { raw, score: raw }, ..Scoring::nothing(failed) }
    }
}

/// `value` in 10⁻⁶ as a fraction.
pub fn from_ppm(value: u64) -> f64 {
    value as f64 / PPM as f64
}
