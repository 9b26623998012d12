//! What judges tell besides their findings, as the API says it.

use arena::account;
use arena::measure::Outcome;
use arena::rule::Direction;
use arena::spec::{CompetitionSpec, Kind};

use super::detail::Shown;
use super::direction_name;
use crate::model;

/// A metric of a competition's evaluator, or of what a codec does in one direction. Which way is better says the spec, or the
/// name of what judges of codecs measure themselves.
pub(super) fn metric(metric: &account::Metric, spec: &CompetitionSpec) -> model::Metric {
    let known =
        account::CODEC_METRICS.iter().find(|(name, _)| spec.kind == Kind::Codec && *name == metric.name);
    let direction = known.map(|_| Direction::Higher).or_else(|| spec.metrics.direction(&metric.name));
    model::Metric {
        key: metric.name.clone(),
        label: known.map_or_else(|| metric.name.replace('_', " "), |(_, label)| (*label).to_owned()),
        value: metric.nano as f64 / 1e9,
        unit: metric.unit.clone(),
        format: "number".to_owned(),
        direction: direction.map_or("neutral", direction_name).to_owned(),
        baseline_value: None,
    }
}

/// The metrics of an entry, each with the baseline's where its judges tell of it by the same name and unit.
pub(super) fn metrics(shown: &[Shown], beside: &[Shown], spec: &CompetitionSpec) -> Vec<model::Metric> {
    let agreed = |shown| agreed(shown, spec.judges.tolerance_ppm);
    let base = agreed(beside);
    let row = |found: account::Metric| {
        let same = base.iter().find(|other| other.name == found.name && other.unit == found.unit);
        model::Metric { baseline_value: same.map(|same| same.nano as f64 / 1e9), ..metric(&found, spec) }
    };
    agreed(shown).into_iter().map(row).collect()
}

/// The metrics of an entry that more than half of the judges who found what most judges found tell of, by name and unit: of each the
/// lower median. No one of several alone decides what is shown.
fn agreed(shown: &[Shown], tolerance_ppm: u32) -> Vec<account::Metric> {
    let agreeing = |outcome: &Outcome| -> Vec<&Shown> {
        shown.iter().filter(|other| other.verdict.outcome.agrees(outcome, tolerance_ppm)).collect()
    };
    let mut most: Vec<&Shown> = Vec::new();
    for one in shown {
        let found = agreeing(&one.verdict.outcome);
        if found.len() > most.len() {
            most = found;
        }
    }
    let mut told: Vec<(&account::Metric, usize)> = Vec::new();
    for metric in most.iter().flat_map(|shown| &shown.verdict.account.metrics) {
        match told.iter_mut().find(|(other, _)| other.name == metric.name && other.unit == metric.unit) {
            Some((_, count)) => *count += 1,
            None => told.push((metric, 1)),
        }
    }
    told.retain(|(_, count)| 2 * count > most.len());
    let median = |(like, _): (&account::Metric, usize)| {
        let all = most.iter().flat_map(|shown| &shown.verdict.account.metrics);
        let same = all.filter(|other| other.name == like.name && other.unit == like.unit);
        let mut values: Vec<i64> = same.map(|other| other.nano).collect();
        values.sort_unstable();
        account::Metric { nano: values[(values.len() - 1) / 2], ..like.clone() }
    };
    told.into_iter().map(median).collect()
}

#[cfg(test)]
mod tests {
    use arena::account::{Account, Metric};
    use arena::measure::{Failure, Measures, ProgramItem, Verdict};
    use wire::{Hash, NodeId};

    use super::*;

    /// A competition of programs.
    fn spec(more: &str) -> CompetitionSpec {
        let text = format!(
            "name = \"any\"\nkind = \"program\"\n[schedule]\nstart = \"2026-01-01T00:00:00Z\"\ndays = 2\n\
             [inputs]\ncode = \"{}\"\n{more}",
            Hash([7; 32])
        );
        CompetitionSpec::parse(&text).unwrap()
    }

    fn shown(outcome: Outcome, latency: i64) -> Shown {
        let metric = Metric { name: "latency_p99".to_owned(), unit: "ms".to_owned(), nano: latency };
        let account = Account { metrics: vec![metric], ..Account::default() };
        let verdict = Verdict { outcome, wall: None, log: Hash([0; 32]), account: Box::new(account) };
        Shown { judge: NodeId([1; 32]), lease: 0, verdict }
    }

    #[test]
    fn metrics_are_those_of_the_judges_who_agree() {
        let measured = || Outcome::Measured {
            inputs: Hash([1; 32]),
            outputs: Hash([2; 32]),
            measures: Measures::Program(vec![ProgramItem { objective_nano: Some(1), fuel: 0 }]),
        };
        let all = [
            shown(Outcome::Failed(Failure::Trap), 9_000_000_000),
            shown(measured(), 2_000_000_000),
            shown(measured(), 1_000_000_000),
        ];
        let plain = spec("");
        let found = metrics(&all, &[], &plain);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].key.as_str(), found[0].label.as_str()), ("latency_p99", "latency p99"));
        assert_eq!((found[0].value, found[0].unit.as_str()), (1.0, "ms"));
        assert_eq!((found[0].direction.as_str(), found[0].baseline_value), ("neutral", None));
        assert!(metrics(&[], &all, &plain).is_empty());
        // Beside the baseline's, if that is in the same unit; the spec says which way is better.
        let base = [shown(measured(), 4_000_000_000)];
        let beside = metrics(&all, &base, &spec("[metrics]\nlower = [\"latency_p99\"]\n"));
        assert_eq!((beside[0].direction.as_str(), beside[0].baseline_value), ("lower_is_better", Some(4.0)));
        let mut other = base.clone();
        other[0].verdict.account.metrics[0].unit = "s".to_owned();
        assert_eq!(metrics(&all, &other, &plain)[0].baseline_value, None);
        // What one judge alone tells is not shown, be it the first.
        let mut alone = [shown(measured(), 1), shown(measured(), 1), shown(measured(), 1)];
        alone[0].verdict.account.metrics[0].name = "praise".to_owned();
        let names: Vec<String> = agreed(&alone, 0).into_iter().map(|metric| metric.name).collect();
        assert_eq!(names, ["latency_p99"]);
        assert!(agreed(&alone[..2], 0).is_empty());
        assert_eq!(agreed(&alone[..1], 0).len(), 1);
    }
}
