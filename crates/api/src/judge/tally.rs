//! What a judge has done since it started: for a page that Prometheus reads, and one that says whether all is well.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arena::measure::Outcome;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::limits;

/// What came of an evaluation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The entry was measured.
    Measured,
    /// The entry was looked at and not run.
    Rejected,
    /// The entry failed while it ran.
    Failed,
}

impl End {
    const ALL: [(Self, &'static str); 3] =
        [(Self::Measured, "measured"), (Self::Rejected, "rejected"), (Self::Failed, "failed")];

    pub(super) fn of(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Measured { .. } => Self::Measured,
            Outcome::Failed(failure) if failure.is_screening() => Self::Rejected,
            Outcome::Failed(_) => Self::Failed,
        }
    }
}

/// Counters of a judge.
#[derive(Debug, Default)]
pub struct Tally {
    lanes: AtomicU64,
    busy: AtomicU64,
    judged: [AtomicU64; End::ALL.len()],
    no_verdict: AtomicU64,
    shown: AtomicU64,
    returned: AtomicU64,
    refused: AtomicU64,
    micros: AtomicU64,
    /// When the host answered last.
    heard: Mutex<Option<Instant>>,
}

impl Tally {
    pub(super) fn begin(&self, lanes: u16) {
        self.lanes.store(lanes.into(), Ordering::Relaxed);
    }

    /// The host answered.
    pub(super) fn heard(&self) {
        *self.heard.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Entries that are evaluated now.
    pub(super) fn busy(&self, count: usize) {
        self.busy.store(count as u64, Ordering::Relaxed);
    }

    /// An evaluation has ended; `None`: without a verdict.
    pub(super) fn ended(&self, end: Option<End>, took: Duration) {
        let counter = match end {
            Some(end) => &self.judged[end as usize],
            None => &self.no_verdict,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(took.as_micros() as u64, Ordering::Relaxed);
    }

    /// A verdict was shown.
    pub(super) fn shown(&self) {
        self.shown.fetch_add(1, Ordering::Relaxed);
    }

    /// A lease was given back.
    pub(super) fn returned(&self) {
        self.returned.fetch_add(1, Ordering::Relaxed);
    }

    /// The host did not take a statement.
    pub(super) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    fn silent(&self) -> Option<Duration> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).map(|heard| heard.elapsed())
    }

    /// The page for Prometheus.
    pub fn page(&self) -> String {
        let mut page = String::new();
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut family = |name: &str, kind: &str, help: &str, rows: &[(String, f64)]| {
            _ = writeln!(page, "# HELP shoal_judge_{name} {help}\n# TYPE shoal_judge_{name} {kind}");
            for (labels, value) in rows {
                _ = writeln!(page, "shoal_judge_{name}{labels} {value}");
            }
        };
        let one = |value: u64| vec![(String::new(), value as f64)];
        let judged = End::ALL
            .map(|(end, word)| (format!("{{outcome=\"{word}\"}}"), load(&self.judged[end as usize]) as f64));
        family("judged_total", "counter", "Verdicts found: entries measured, rejected, failed.", &judged);
        let no_verdict = load(&self.no_verdict);
        let help = "Evaluations without a verdict: this machine, or the competition, failed.";
        family("failures_total", "counter", help, &one(no_verdict));
        let count: u64 = self.judged.iter().map(load).sum::<u64>() + no_verdict;
        let seconds =
            [("_sum".to_owned(), load(&self.micros) as f64 / 1e6), ("_count".to_owned(), count as f64)];
        family("judging_seconds", "summary", "Time of an evaluation, from its fetch to its end.", &seconds);
        family("shown_total", "counter", "Verdicts shown.", &one(load(&self.shown)));
        family("returned_total", "counter", "Leases given back.", &one(load(&self.returned)));
        family(
            "refused_total",
            "counter",
            "Statements that the host did not take.",
            &one(load(&self.refused)),
        );
        family("lanes", "gauge", "Entries that can be judged at a time.", &one(load(&self.lanes)));
        family("lanes_busy", "gauge", "Entries that are judged now.", &one(load(&self.busy)));
        let silent = self.silent().map(|silent| (String::new(), silent.as_secs_f64()));
        let help = "Time since the host answered.";
        family("host_silent_seconds", "gauge", help, &silent.into_iter().collect::<Vec<_>>());
        page
    }
}

/// Whom a page is about.
#[derive(Clone, Debug)]
pub struct Of {
    /// What the judge counts.
    pub tally: Arc<Tally>,
    /// Its key.
    pub judge: String,
    /// Address of the host.
    pub host: String,
}

/// Serves `/healthz` and `/metrics` until `stop`.
pub async fn serve(listener: TcpListener, of: Of, stop: CancellationToken) {
    let nothing = async || (StatusCode::NOT_FOUND, "here are /healthz and /metrics\n");
    let routes = Router::new()
        .route("/healthz", get(health))
        .route("/metrics", get(metrics))
        .fallback(nothing)
        .with_state(Arc::new(of));
    crate::server::serve(listener, routes, limits::JUDGE_CONNECTIONS, stop).await;
}

/// 503 where the host has not answered for long: then nothing is judged.
async fn health(State(of): State<Arc<Of>>) -> Response {
    let silent = of.tally.silent();
    let well = silent.is_some_and(|silent| silent < limits::JUDGE_SILENCE);
    let body = json!({
        "status": if well { "ok" } else { "no answer from the host" },
        "judge": of.judge,
        "host": of.host,
        "host_silent_s": silent.map(|silent| silent.as_secs()),
        "version": env!("CARGO_PKG_VERSION"),
    });
    (if well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, Json(body)).into_response()
}

async fn metrics(State(of): State<Arc<Of>>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], of.tally.page()).into_response()
}
