//! What an evaluator measures besides the objective: one in a line, name, value and (perhaps) unit, with blanks between.

use arena::account::Metric;
use arena::limits::METRICS_MAX;

/// Lines of one input that are looked at.
const LINES_MAX: usize = 4 * METRICS_MAX;

/// Means of an evaluator's metrics over the inputs for which it gave them.
#[derive(Debug, Default)]
pub(super) struct Metrics {
    all: Vec<(Metric, i128, i128)>,
}

impl Metrics {
    /// Adds the lines of one input. A line that is no metric counts for nothing; `wrong` hears what is wrong with it. Lines beyond
    /// [`LINES_MAX`] are not looked at.
    pub(super) fn add(&mut self, text: &str, mut wrong: impl FnMut(String)) {
        let mut seen = Vec::new();
        for line in text.lines().filter(|line| !line.trim().is_empty()).take(LINES_MAX) {
            if let Err(reason) = self.line(line, &mut seen) {
                wrong(reason);
            }
        }
    }

    /// `seen` are the names that this input's lines had.
    fn line(&mut self, line: &str, seen: &mut Vec<String>) -> Result<(), String> {
        let metric = parse(line)?;
        if seen.contains(&metric.name) {
            return Err(format!("metric {} comes twice", metric.name));
        }
        seen.push(metric.name.clone());
        let nano = i128::from(metric.nano);
        let full = self.all.len() >= METRICS_MAX;
        match self.all.iter_mut().find(|(known, _, _)| known.name == metric.name) {
            Some((known, _, _)) if known.unit != metric.unit => {
                return Err(format!("metric {} changes its unit", metric.name));
            }
            Some((_, sum, count)) => {
                *sum += nano;
                *count += 1;
            }
            None if full => return Err(format!("more than {METRICS_MAX} metrics")),
            None => self.all.push((metric, nano, 1)),
        }
        Ok(())
    }

    /// The means, in the order in which the metrics first came.
    pub(super) fn means(self) -> Vec<Metric> {
        let mean = |(metric, sum, count): (Metric, i128, i128)| {
            // Within the bound, as every part of it is.
            Metric { nano: (sum / count.max(1)) as i64, ..metric }
        };
        self.all.into_iter().map(mean).collect()
    }
}

fn parse(line: &str) -> Result<Metric, String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let shown = || line.chars().take(40).collect::<String>();
    let (name, value, unit) = match words[..] {
        [name, value] => (name, value, ""),
        [name, value, unit] => (name, value, unit),
        _ => return Err(format!("{:?} is no metric: expected name, value, unit", shown())),
    };
    let nano = number(value).ok_or_else(|| format!("{value:.40} is no number"))?;
    let nano = nano.ok_or_else(|| format!("{value:.40} is not finite"))?;
    let metric = Metric { name: name.to_owned(), unit: unit.to_owned(), nano };
    metric.check().map_err(|what| format!("{:?}: {what} is not possible", shown()))?;
    Ok(metric)
}

/// A number in 10⁻⁹ units; inner `None` if it is not finite, outer if it is none. What is too large becomes the largest, which no
/// bound lets through.
#[expect(clippy::option_option, reason = "no number, or one that is not finite")]
pub(super) fn number(text: &str) -> Option<Option<i64>> {
    let value: f64 = text.parse().ok()?;
    Some(value.is_finite().then(|| (value * 1e9).round() as i64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_means_over_the_inputs_that_have_them() {
        let mut metrics = Metrics::default();
        let mut wrong = Vec::new();
        for text in ["latency 2 ms\nhits 3\n", "latency 4.5 ms\n\n", "latency nan ms\nlatency fast ms", ""] {
            metrics.add(text, |reason| wrong.push(reason));
        }
        assert_eq!(wrong.len(), 2);
        let metric =
            |name: &str, unit: &str, nano| Metric { name: name.to_owned(), unit: unit.to_owned(), nano };
        assert_eq!(
            metrics.means(),
            [metric("latency", "ms", 3_250_000_000), metric("hits", "", 3_000_000_000)]
        );
    }

    #[test]
    fn what_is_no_metric_is_told() {
        let told = |metrics: &mut Metrics, text: &str| {
            let mut wrong = Vec::new();
            metrics.add(text, |reason| wrong.push(reason));
            wrong.join("\n")
        };
        for (text, reason) in [
            ("latency", "expected name"),
            ("latency 1 ms of it", "expected name"),
            ("Latency 1", "name of a metric"),
            ("latency nan", "not finite"),
            ("latency -inf", "not finite"),
            ("latency 1e300", "value of a metric"),
            ("latency fast", "no number"),
            ("latency 1\nlatency 2", "comes twice"),
            ("latency 1 a-unit-that-is-far-too-long", "unit of a metric"),
        ] {
            let error = told(&mut Metrics::default(), text);
            assert!(error.contains(reason), "{text:?}: {error}");
        }
        let mut metrics = Metrics::default();
        assert_eq!(told(&mut metrics, "latency 1 ms"), "");
        assert!(told(&mut metrics, "latency 1 s").contains("unit"));
        let many: Vec<String> = (0..=METRICS_MAX).map(|index| format!("m{index} 1")).collect();
        assert!(told(&mut Metrics::default(), &many.join("\n")).contains("more than"));
        let endless = "x\n".repeat(1000);
        assert_eq!(told(&mut Metrics::default(), &endless).lines().count(), LINES_MAX);
    }
}
