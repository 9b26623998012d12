//! Counters of the server and figures of the arena, as Prometheus reads them.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::App;

/// Upper bounds of the request times' buckets, milliseconds.
const BUCKETS_MS: [u64; 10] = [1, 2, 5, 10, 20, 50, 100, 500, 2000, 10_000];

/// Counters.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    requests: [AtomicU64; 6],
    buckets: [AtomicU64; 11],
    micros: AtomicU64,
    in_flight: AtomicU64,
    accepted: AtomicU64,
    refused: AtomicU64,
}

impl Metrics {
    /// One more request under way, until this is dropped: also when its client leaves.
    pub(crate) fn begin(&self) -> UnderWay<'_> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        UnderWay(&self.in_flight)
    }

    pub(crate) fn done(&self, status: u16, took: Duration) {
        self.requests[usize::from(status / 100).min(5)].fetch_add(1, Ordering::Relaxed);
        let bucket = BUCKETS_MS
            .iter()
            .position(|bound| took <= Duration::from_millis(*bound))
            .unwrap_or(BUCKETS_MS.len());
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(took.as_micros() as u64, Ordering::Relaxed);
    }

    pub(crate) fn inputs(&self, accepted: bool) {
        let counter = if accepted { &self.accepted } else { &self.refused };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// A request under way.
#[derive(Debug)]
pub(crate) struct UnderWay<'a>(&'a AtomicU64);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The whole page.
pub(crate) fn page(app: &App) -> String {
    let mut page = String::new();
    let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let metrics = &app.metrics;
    let mut family = |name: &str, kind: &str, help: &str, rows: &[(String, f64)]| {
        _ = writeln!(page, "# HELP shoal_arena_{name} {help}\n# TYPE shoal_arena_{name} {kind}");
        for (labels, value) in rows {
            _ = writeln!(page, "shoal_arena_{name}{labels} {value}");
        }
    };
    let one = |value: u64| vec![(String::new(), value as f64)];
    let classes =
        (1..6).map(|class| (format!("{{status=\"{class}xx\"}}"), load(&metrics.requests[class]) as f64));
    family("requests_total", "counter", "Requests answered.", &classes.collect::<Vec<_>>());
    let mut sum = 0;
    let mut rows = Vec::new();
    for (index, counter) in metrics.buckets.iter().enumerate() {
        sum += load(counter);
        let bound = BUCKETS_MS.get(index).map_or("+Inf".to_owned(), |ms| (*ms as f64 / 1000.0).to_string());
        rows.push((format!("_bucket{{le=\"{bound}\"}}"), sum as f64));
    }
    rows.push(("_sum".into(), load(&metrics.micros) as f64 / 1e6));
    rows.push(("_count".into(), sum as f64));
    family("request_seconds", "histogram", "Time to the head of an answer, without streams.", &rows);
    family("requests_in_flight", "gauge", "Requests worked on.", &one(load(&metrics.in_flight)));
    let inputs = [
        ("{outcome=\"accepted\"}".to_owned(), load(&metrics.accepted) as f64),
        ("{outcome=\"refused\"}".to_owned(), load(&metrics.refused) as f64),
    ];
    family("inputs_total", "counter", "Statements and controls handed in over HTTP.", &inputs);
    family(
        "blob_bytes",
        "gauge",
        "Bytes of all blobs, and of those that are coming.",
        &one(app.space.bytes()),
    );
    let head = app.shared.head().map_or(0, |head| head.seq.0);
    family("block", "gauge", "Newest durable block.", &one(head));
    let view = app.shared.view();
    let state = &view.state;
    let rounds = || state.competitions().values().flat_map(|found| found.live.values());
    let (settled, jobs) =
        rounds().map(arena::state::Round::progress).fold((0, 0), |a, b| (a.0 + b.0, a.1 + b.1));
    let open = state.competitions().values().filter(|found| found.completed_at.is_none()).count();
    family("competitions", "gauge", "Competitions that are not over.", &one(open as u64));
    family("rounds", "gauge", "Rounds that are open or judged.", &one(rounds().count() as u64));
    family(
        "entries_total",
        "counter",
        "Entries, automatic ones included.",
        &one(state.entries().len() as u64),
    );
    family("queue", "gauge", "Entries that judges have not settled.", &one((jobs - settled) as u64));
    family("leases", "gauge", "Leases under way.", &one(state.leases().len() as u64));
    let judges = state.judges().iter().filter(|(_, judge)| judge.admitted);
    let judges: Vec<_> =
        judges.map(|(key, judge)| (format!("{{judge=\"{}\"}}", key.short()), judge.judged as f64)).collect();
    family("verdicts_total", "counter", "Verdicts shown, by judge.", &judges);
    page
}
