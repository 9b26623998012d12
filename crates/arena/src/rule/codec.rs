//! From a codec's measurements to figures and scores.

use super::{Figures, Link, Rule, Score, Scoring};
use crate::measure::{CodecItem, Measures, Wall};
use crate::number::{PPB, PPM};

/// What an entry is scored from.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// One measurement per input.
    pub measures: &'a Measures,
    /// Size of the entry's code, bytes.
    pub code_bytes: u64,
    /// Times by the clock.
    pub wall: Option<Wall>,
    /// Total time of the baseline on the same inputs ([`time_ns`]), nanoseconds; `None` without a baseline.
    pub baseline_ns: Option<u128>,
}

/// Time of one unit of fuel where the rule does not say, picoseconds: components run at 5.3 to 6.7 units a nanosecond
/// (`bench/sandbox/run`).
pub(super) const FUEL_PS: u64 = 170;

/// Total time of an entry on all inputs, nanoseconds: its fuel, or what pairing with the baseline shows if that is more.
/// The clock can only hurt: cheap fuel gains nothing, and a loaded machine slows the baseline too (protocol §7 "Time").
/// Without fuel and without a baseline it is the time by the clock.
pub fn time_ns(facts: &Facts<'_>, fuel_ps: u64) -> u128 {
    let Measures::Codec(items) = facts.measures else { return 0 };
    let fuel = fuel_ns(items, fuel_ps);
    let wall = facts.wall.unwrap_or(Wall { task_time_ns: 0, over_baseline_ppm: 0 });
    match facts.baseline_ns {
        Some(baseline) if wall.over_baseline_ppm > 0 => {
            fuel.max(baseline * u128::from(wall.over_baseline_ppm) / u128::from(PPM))
        }
        _ if fuel == 0 => u128::from(wall.task_time_ns) * items.len() as u128,
        _ => fuel,
    }
}

fn fuel_ns(items: &[CodecItem], fuel_ps: u64) -> u128 {
    items.iter().map(|item| u128::from(item.fuel) * u128::from(fuel_ps) / 1000).sum()
}

fn total(items: &[CodecItem], of: impl Fn(&CodecItem) -> u64) -> u128 {
    items.iter().map(|item| u128::from(of(item))).sum()
}

impl Link {
    fn holds(&self, item: &CodecItem) -> bool {
        item.similarity_ppb >= self.floor_ppb as i64 && (item.exact || !self.exact)
    }

    /// Bytes of an input on the link: compressed, or as it is if the codec failed on it.
    fn wire_bytes(&self, item: &CodecItem) -> u64 {
        if self.holds(item) { item.compressed_bytes } else { item.original_bytes }
    }

    fn wire_ns(&self, bytes: u128) -> u128 {
        bytes * u128::from(PPB) / u128::from(self.link_bytes_per_s.max(1))
    }

    /// Bytes of the code that each input carries.
    fn module_bytes(&self, code_bytes: u64) -> u128 {
        u128::from(code_bytes.div_ceil(self.module_share.max(1)))
    }

    fn judge(&self, facts: &Facts<'_>, items: &[CodecItem], mut scoring: Scoring) -> Scoring {
        let count = items.len() as u128;
        let failed = items.iter().filter(|item| !self.holds(item)).count() as u128;
        let original = total(items, |item| item.original_bytes);
        let wire = total(items, |item| self.wire_bytes(item)) + count * self.module_bytes(facts.code_bytes);
        let time = time_ns(facts, self.fuel_ps);
        let (plain, packed) = (self.wire_ns(original), (self.wire_ns(wire) + time).max(1));
        scoring.failed_items = failed as u32;
        if let Some(figures) = &mut scoring.figures {
            figures.ratio = original as f64 / wire.max(1) as f64;
        }
        scoring.score = if failed * u128::from(PPM) > count * u128::from(self.failures_max_ppm) {
            Score { raw: 0.0, score: 0.0 }
        } else {
            let score = 1.0 - packed as f64 / plain.max(1) as f64;
            Score { raw: plain as f64 / packed as f64, score: score.clamp(0.0, 1.0) }
        };
        scoring
    }
}

impl Rule {
    fn fuel_ps(&self) -> u64 {
        if let Self::Link(link) = self { link.fuel_ps } else { FUEL_PS }
    }

    /// Total time of an entry on all inputs under this rule, nanoseconds.
    pub fn time_ns(&self, facts: &Facts<'_>) -> u128 {
        time_ns(facts, self.fuel_ps())
    }

    pub(super) fn judge_codec(&self, facts: &Facts<'_>, items: &[CodecItem]) -> Scoring {
        if items.is_empty() {
            return Scoring::nothing(0);
        }
        let count = items.len() as f64;
        let original = total(items, |item| item.original_bytes);
        let compressed = total(items, |item| item.compressed_bytes).max(1);
        let similarity: i128 = items.iter().map(|item| i128::from(item.similarity_ppb)).sum();
        let min = items.iter().map(|item| item.similarity_ppb).min().unwrap_or(0);
        // The formulas of 2025 count the clock, which is their known fault; the link model counts fuel.
        let time = match (self, facts.wall) {
            (Self::Link(_), _) | (_, None) => self.time_ns(facts),
            (_, Some(wall)) => u128::from(wall.task_time_ns) * items.len() as u128,
        };
        let figures = Figures {
            similarity: similarity as f64 / (count * PPB as f64),
            ratio: original as f64 / compressed as f64,
            task_time_s: time as f64 / (count * PPB as f64),
        };
        let mut scoring = Scoring {
            score: Score { raw: 0.0, score: 0.0 },
            figures: Some(figures),
            similarity_min_ppb: min,
            bytes_per_s: (original * u128::from(PPB)).checked_div(time).unwrap_or(0) as u64,
            failed_items: 0,
        };
        let min_similarity = min as f64 / PPB as f64;
        match self {
            Self::Link(link) => return link.judge(facts, items, scoring),
            Self::Lossless { .. } => {
                scoring.failed_items = items.iter().filter(|item| !item.exact).count() as u32;
                let similarity = if scoring.failed_items == 0 { 1.0 } else { 0.0 };
                scoring.score = self.score(&Figures { similarity, ..figures });
            }
            Self::Lossy { floor } => {
                let below = |item: &&CodecItem| item.similarity_ppb as f64 / PPB as f64 <= *floor;
                scoring.failed_items = items.iter().filter(below).count() as u32;
                scoring.score = self.score(&Figures { similarity: min_similarity, ..figures });
            }
            Self::Weighted(_) | Self::Objective(_) => scoring.score = self.score(&figures),
        }
        scoring
    }

    /// Nanoseconds on the link model, bytes elsewhere.
    pub(super) fn codec_losses(&self, facts: &Facts<'_>, items: &[CodecItem]) -> Vec<i128> {
        let Self::Link(link) = self else {
            return items.iter().map(|item| i128::from(item.compressed_bytes)).collect();
        };
        let original = total(items, |item| item.original_bytes).max(1);
        // What the clock adds to the fuel is spread over the inputs by their size.
        let surcharge = time_ns(facts, link.fuel_ps) - fuel_ns(items, link.fuel_ps);
        let module = link.module_bytes(facts.code_bytes);
        let loss = |item: &CodecItem| {
            let wire = link.wire_ns(u128::from(link.wire_bytes(item)) + module);
            let fuel = u128::from(item.fuel) * u128::from(link.fuel_ps) / 1000;
            (wire + fuel + surcharge * u128::from(item.original_bytes) / original) as i128
        };
        items.iter().map(loss).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rule::info;

    fn item(original: u64, compressed: u64, similarity_ppb: i64, fuel: u64) -> CodecItem {
        let exact = similarity_ppb == PPB as i64;
        CodecItem { original_bytes: original, compressed_bytes: compressed, similarity_ppb, exact, fuel }
    }

    fn facts(measures: &Measures) -> Facts<'_> {
        Facts { measures, code_bytes: 0, wall: None, baseline_ns: None }
    }

    fn judge(name: &str, items: Vec<CodecItem>, wall: Option<Wall>) -> Scoring {
        let measures = Measures::Codec(items);
        info(name).unwrap().rule.judge(&Facts { wall, ..facts(&measures) })
    }

    const EXACT: i64 = PPB as i64;

    #[test]
    fn apex_rules_from_measurements() {
        let wall = Some(Wall { task_time_ns: 253_000_000, over_baseline_ppm: 0 });
        let two = vec![item(1000, 400, EXACT, 0), item(3000, 1600, EXACT, 0)];
        let founding = judge("apex-2025-12-02", two.clone(), wall).score.raw;
        assert_eq!(founding, (30.0 - 0.253) + 1000.0 + 1_000_000.0 * 2.0);
        let lossless = judge("apex-2025-12-04", two.clone(), wall).score.raw;
        assert_eq!(lossless, 0.5 * (1.0 - 0.253 / 1.012));
        let spoilt = judge("apex-2025-12-04", vec![two[0], item(3000, 1600, EXACT - 1, 0)], wall);
        assert_eq!((spoilt.score.raw, spoilt.failed_items), (0.0, 1));
        let lossy = judge("apex-2026-01-13", vec![item(1000, 250, 990_000_001, 0)], wall);
        assert_eq!(lossy.score.raw, 0.75);
        let at_floor = judge("apex-2026-01-13", vec![item(1000, 250, 990_000_000, 0)], wall);
        assert_eq!((at_floor.score.raw, at_floor.failed_items), (0.0, 1));
    }

    #[test]
    fn the_link_model_counts_wire_fuel_and_code() {
        // 12.5 MB/s, 170 ps per fuel: 2.5 MB plain = 200 ms; 1.25 MB = 100 ms; 20 M fuel = 3.4 ms.
        let scoring = judge("shoal-link-1", vec![item(2_500_000, 1_250_000, EXACT, 20_000_000)], None);
        assert_eq!(scoring.score.raw, 200_000_000.0 / 103_400_000.0);
        assert_eq!(scoring.bytes_per_s, 735_294_117);
        let measures = Measures::Codec(vec![item(2_500_000, 1_250_000, EXACT, 20_000_000)]);
        let rule = info("shoal-link-1").unwrap().rule;
        // 125 MB of code over 1000 tensors: 125 kB = 10 ms each.
        let heavy = rule.judge(&Facts { code_bytes: 125_000_000, ..facts(&measures) });
        assert_eq!(heavy.score.raw, 200_000_000.0 / 113_400_000.0);
        assert!(heavy.figures.unwrap().ratio < 2.0);
    }

    #[test]
    fn the_clock_can_only_hurt() {
        let measures = Measures::Codec(vec![item(2_500_000, 1_250_000, EXACT, 20_000_000)]);
        let rule = info("shoal-link-1").unwrap().rule;
        let with = |over_baseline_ppm| {
            let wall = Some(Wall { task_time_ns: 1, over_baseline_ppm });
            rule.judge(&Facts { wall, baseline_ns: Some(2_500_000), ..facts(&measures) }).score.raw
        };
        let fuel_alone = rule.judge(&facts(&measures)).score.raw;
        assert_eq!(with(1_000_000), fuel_alone);
        assert_eq!(with(10), fuel_alone);
        assert_eq!(with(4_000_000), 200_000_000.0 / 110_000_000.0);
    }

    #[test]
    fn destroying_data_gains_nothing() {
        // The founding formula's hole: ratio outweighs everything. The default closes it.
        let junk = vec![item(2_500_000, 1, -40_000_000, 0); 10];
        assert!(judge("apex-2025-12-02", junk.clone(), None).score.raw > 1e12);
        assert_eq!(judge("shoal-link-1", junk.clone(), None).score.raw, 0.0);
        let mut one_bad = vec![item(2_500_000, 1_250_000, EXACT, 0); 100];
        one_bad[0] = junk[0];
        let good = judge("shoal-link-1", vec![item(2_500_000, 1_250_000, EXACT, 0); 100], None).score.raw;
        let spoilt = judge("shoal-link-1", one_bad.clone(), None).score.raw;
        assert!(spoilt > 1.9 && spoilt < good, "a failed input travels as it is: {spoilt}");
        one_bad[1] = junk[0];
        assert_eq!(judge("shoal-link-1", one_bad, None).score.raw, 0.0);
    }

    fn any_items() -> impl Strategy<Value = Vec<CodecItem>> {
        let one = (1_u64..1 << 40, 1_u64..1 << 40, -(1_i64 << 40)..=EXACT, 0_u64..1 << 50);
        proptest::collection::vec(one.prop_map(|(o, c, s, f)| item(o, c, s, f)), 1..60)
    }

    proptest! {
        #[test]
        fn scores_are_numbers_and_normalised(items in any_items(), code in 0_u64..1 << 31, time in 0_u64..1 << 50, over in 0_u64..1 << 40) {
            let measures = Measures::Codec(items);
            let wall = Some(Wall { task_time_ns: time, over_baseline_ppm: over });
            for info in crate::rule::RULES {
                let facts = Facts { measures: &measures, code_bytes: code, wall, baseline_ns: Some(1 << 60) };
                let Score { raw, score } = info.rule.judge(&facts).score;
                prop_assert!(raw.is_finite());
                prop_assert!((0.0..=1.0).contains(&score), "{}: {}", info.name, score);
                prop_assert_eq!(info.rule.losses(&facts).len(), measures.len());
            }
        }

        #[test]
        fn fewer_bytes_or_less_fuel_never_score_worse(items in any_items(), at in any::<prop::sample::Index>(), code in 0_u64..1 << 31) {
            let rule = info("shoal-link-1").unwrap().rule;
            let mut better = items.clone();
            let index = at.index(items.len());
            better[index].compressed_bytes = better[index].compressed_bytes.div_ceil(2);
            better[index].fuel /= 2;
            let raw = |items: Vec<CodecItem>| rule.judge(&Facts { code_bytes: code, ..facts(&Measures::Codec(items)) }).score.raw;
            prop_assert!(raw(better) >= raw(items));
        }
    }
}
