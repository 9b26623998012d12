//! What judges tell besides their findings, as the API says it.

use arena::account;
use arena::measure::Outcome;

use super::detail::Shown;
use crate::model;

/// A metric of a competition's evaluator.
pub(super) fn metric(metric: &account::Metric) -> model::Metric {
    model::Metric {
        key: metric.name.clone(),
        label: metric.name.replace('_', " "),
        value: metric.nano as f64 / 1e9,
        unit: metric.unit.clone(),
        format: "number".to_owned(),
        direction: "neutral".to_owned(),
        baseline_value: None,
    }
}

/// The metrics of an entry that more than half of the judges who found what most judges found tell of, by name and unit: of each the
/// lower median. No one of several alone decides what is shown.
pub(super) fn metrics(shown: &[Shown], tolerance_ppm: u32) -> Vec<model::Metric> {
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
        let nano = values[(values.len() - 1) / 2];
        metric(&account::Metric { nano, ..like.clone() })
    };
    told.into_iter().map(median).collect()
}

#[cfg(test)]
mod tests {
    use arena::account::{Account, Metric};
    use arena::measure::{Failure, Measures, ProgramItem, Verdict};
    use wire::{Hash, NodeId};

    use super::*;

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
        let found = metrics(&all, 0);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].key.as_str(), found[0].label.as_str()), ("latency_p99", "latency p99"));
        assert_eq!((found[0].value, found[0].unit.as_str()), (1.0, "ms"));
        assert!(metrics(&[], 0).is_empty());
        // What one judge alone tells is not shown, be it the first.
        let mut alone = [shown(measured(), 1), shown(measured(), 1), shown(measured(), 1)];
        alone[0].verdict.account.metrics[0].name = "praise".to_owned();
        let names: Vec<String> = metrics(&alone, 0).into_iter().map(|metric| metric.key).collect();
        assert_eq!(names, ["latency_p99"]);
        assert!(metrics(&alone[..2], 0).is_empty());
        assert_eq!(metrics(&alone[..1], 0).len(), 1);
    }
}
