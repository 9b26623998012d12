//! The rules by name.

use super::codec::FUEL_PS;
use super::{Direction, Link, Objective, Rule, Takeover, Weighted};

/// A rule that a spec may name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RuleInfo {
    /// Name.
    pub name: &'static str,
    /// What it computes, for people.
    pub formula: &'static str,
    /// Where it comes from.
    pub origin: &'static str,
    /// The rule, with the default of every parameter.
    pub rule: Rule,
    /// Takeover, unless the spec says otherwise.
    pub takeover: Takeover,
    /// Parameters that a spec may set.
    pub parameters: &'static [&'static str],
}

const ONE_PERCENT: Takeover = Takeover { margin_ppm: 10_000, alpha_ppm: 0 };
const PROVEN: Takeover = Takeover { margin_ppm: 2_000, alpha_ppm: 10_000 };

const LINK: Link = Link {
    floor_ppb: 990_000_000,
    exact: false,
    link_bytes_per_s: 12_500_000,
    fuel_ps: FUEL_PS,
    module_share: 1000,
    failures_max_ppm: 10_000,
    reference_bytes: 2 << 20,
};

const LINK_PARAMETERS: &[&str] =
    &["failures_max_ppm", "floor_ppb", "fuel_ps", "link_bytes_per_s", "module_share", "reference_bytes"];

/// Every rule, oldest first.
pub const RULES: &[RuleInfo] = &[
    RuleInfo {
        name: "apex-2025-12-02",
        formula: "raw = 1·(30 − task_time) + 1000·similarity + 1000000·compression_ratio; score = 1/(1 + exp(−0.003·(raw/1000 − 2000)))",
        origin: "the founding formula; its weights let destroyed data win, so it is here for comparison only",
        rule: Rule::Weighted(Weighted {
            time_base_s: 30.0,
            time_weight: 1.0,
            similarity_weight: 1000.0,
            ratio_weight: 1_000_000.0,
            midpoint: 2000.0,
            slope: 0.003,
        }),
        takeover: ONE_PERCENT,
        parameters: &[],
    },
    RuleInfo {
        name: "apex-2025-12-04",
        formula: "score = clip((1 − 1/ratio)·(1 − task_time/1.012), 0, 1) if every bit comes back, else 0",
        origin: "Matrix Compression, lossless; time is the mean of one input by the clock",
        rule: Rule::Lossless { time_s: 1.0 + 0.012 },
        takeover: ONE_PERCENT,
        parameters: &[],
    },
    RuleInfo {
        name: "apex-2026-01-13",
        formula: "score = clip(1 − 1/ratio, 0, 1) if the similarity of every input is above 0.99, else 0",
        origin: "Matrix Compression v2, lossy; time does not count",
        rule: Rule::Lossy { floor: 0.99 },
        takeover: ONE_PERCENT,
        parameters: &[],
    },
    RuleInfo {
        name: "shoal-link-1",
        formula: "raw = time to send the plain inputs ÷ (time to send the compressed ones and the code's share + compress + decompress); score = clip(1 − 1/raw, 0, 1)",
        origin: "the default: fidelity is a floor, time is fuel and can only worsen by the clock, takeover by a paired test",
        rule: Rule::Link(LINK),
        takeover: PROVEN,
        parameters: LINK_PARAMETERS,
    },
    RuleInfo {
        name: "shoal-link-exact-1",
        formula: "as shoal-link-1; every bit must come back",
        origin: "the default for lossless codecs",
        rule: Rule::Link(Link { floor_ppb: 1_000_000_000, exact: true, ..LINK }),
        takeover: PROVEN,
        parameters: LINK_PARAMETERS,
    },
    RuleInfo {
        name: "objective-1",
        formula: "raw = score = mean of the evaluator's objective over all inputs; an input without an answer counts missing_nano",
        origin: "programs",
        rule: Rule::Objective(Objective { direction: Direction::Higher, missing_nano: 0 }),
        takeover: PROVEN,
        parameters: &["direction", "missing_nano"],
    },
];

/// A rule by its name.
pub fn info(name: &str) -> Option<&'static RuleInfo> {
    RULES.iter().find(|info| info.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::{Figures, Score};

    fn score(name: &str, similarity: f64, ratio: f64, task_time_s: f64) -> Score {
        info(name).unwrap().rule.score(&Figures { similarity, ratio, task_time_s })
    }

    #[test]
    fn golden_scores_of_the_founding_formula() {
        let half = score("apex-2025-12-02", 0.97, 1.999, 0.0);
        assert_eq!(half.raw, 30.0 + 970.0 + 1_999_000.0);
        assert_eq!(half.raw, 2_000_000.0);
        assert_eq!(half.score, 0.5);
        for (similarity, ratio, time, raw, expected) in [
            (1.0, 1.0, 0.0, 1_001_030.0, 0.047_565_664_436_559_456),
            (0.99, 2.5, 1.5, 2_501_018.5, 0.818_029_751_048_323_3),
            (0.5, 3.0, 30.0, 3_000_500.0, 0.952_641_845_827_527_9),
            (1.0, 1.5, 12.0, 1_501_018.0, 0.182_881_458_915_508_33),
        ] {
            let found = score("apex-2025-12-02", similarity, ratio, time);
            assert_eq!(found.raw, raw);
            assert!((found.score - expected).abs() < 1e-12, "{} {expected}", found.score);
        }
    }

    #[test]
    fn golden_scores_of_the_later_formulas() {
        assert_eq!(score("apex-2025-12-04", 1.0, 2.0, 0.0).score, 0.5);
        assert_eq!(score("apex-2025-12-04", 1.0, 2.0, 0.506).score, 0.25);
        assert_eq!(score("apex-2025-12-04", 1.0, 2.0, 2.0).score, 0.0);
        assert_eq!(score("apex-2025-12-04", 0.999_999, 2.0, 0.0).score, 0.0);
        assert_eq!(score("apex-2025-12-04", 1.0, 0.5, 0.0).score, 0.0);
        assert_eq!(score("apex-2026-01-13", 0.990_1, 4.0, 99.0).score, 0.75);
        assert_eq!(score("apex-2026-01-13", 0.99, 4.0, 0.0).score, 0.0);
        assert_eq!(score("apex-2026-01-13", 1.0, 0.9, 0.0).score, 0.0);
    }

    #[test]
    fn golden_scores_of_the_link_model() {
        // 2 MiB at 12.5 MB/s: 0.16777216 s plain.
        let plain = 0.167_772_16;
        let free = score("shoal-link-1", 0.995, 4.0, 0.0);
        assert_eq!(free, Score { raw: 4.0, score: 0.75 });
        let slow = score("shoal-link-1", 0.995, 4.0, plain);
        assert!((slow.raw - 0.8).abs() < 1e-15 && slow.score == 0.0);
        assert_eq!(score("shoal-link-1", 0.989_999, 4.0, 0.0).raw, 0.0);
        assert_eq!(score("shoal-link-exact-1", 0.999_999, 4.0, 0.0).raw, 0.0);
        assert_eq!(score("shoal-link-exact-1", 1.0, 1.5, 0.0).raw, 1.5);
    }

    #[test]
    fn figures_that_are_none_score_nothing() {
        for rule in RULES {
            for (similarity, ratio, time) in [
                (f64::NAN, 2.0, 0.1),
                (1.0, 0.0, 0.1),
                (1.0, -2.0, 0.1),
                (1.0, 2.0, -0.1),
                (1.0, f64::INFINITY, 0.1),
            ] {
                assert_eq!(score(rule.name, similarity, ratio, time), Score { raw: 0.0, score: 0.0 });
            }
        }
    }

    #[test]
    fn names_are_distinct() {
        let names: std::collections::BTreeSet<_> = RULES.iter().map(|info| info.name).collect();
        assert_eq!(names.len(), RULES.len());
        assert!(info("apex-2025-12-03").is_none());
    }
}
