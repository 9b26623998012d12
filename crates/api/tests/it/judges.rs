//! Judges at work: what they look at before they take part, and what they give back.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Instant;

use arena::calendar::Moment;
use arena::measure::{Failure, Outcome, Verdict};
use arena::record::Statement;
use arena::spec::CompetitionSpec;
use async_trait::async_trait;
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use shoal_api::judge::{self, Assignment, Evaluate, EvaluateError, Finding, Settings, Told};
use shoal_api::model::{
    ArenaInfo, BatchAnswer, EntryRole, FindingView, LeaseView, Problem, StatementAnswer, WorkAnswer,
};
use shoal_api::{Client, limits};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use wire::{Envelope, Hash, Millis};

use super::world::{BrokenJudge, OWNER, TestJudge, World, code, key, within};

/// A competition whose round is open for an hour.
fn spec_of(name: &str, now: Millis, inputs: &str) -> String {
    let start = Moment(Millis(now.0 - 1000));
    let text = format!(
        "name = \"{name}\"\nkind = \"codec\"\n[schedule]\nstart = \"{start}\"\nevery_s = 3600\nopening_s = 10\n\
         judging_s = 60\nrounds = 1\n[inputs]\nitems = 8\n{inputs}"
    );
    CompetitionSpec::parse(&text).unwrap().canonical()
}

async fn open(world: &World, name: &str, inputs: &str) {
    let client = world.client(OWNER).await;
    client.state(&Statement::Open { spec: spec_of(name, client.now(), inputs) }).await.unwrap();
}

/// Hears a judge until it tells of trouble that says this.
async fn trouble(heard: &mut tokio::sync::mpsc::Receiver<Told>, words: &str) {
    within(async {
        loop {
            let told = heard.recv().await.unwrap();
            if matches!(&told, Told::Trouble(said) if said.contains(words)) {
                return;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generator_that_the_host_lost_is_looked_at_again() {
    let world = World::start("", &[1]).await;
    let generator = Bytes::from_static(b"generator");
    let inputs = format!("code = \"{}\"\n", Hash::of(&generator));
    let owner = world.client(OWNER).await;
    let early = Statement::Open { spec: spec_of("lost", owner.now(), &inputs) };
    let error = owner.state(&early).await.unwrap_err().to_string();
    assert!(error.contains("upload what the spec names first (inputs.code"), "{error}");
    owner.put_blob("competition", generator.clone()).await.unwrap();
    open(&world, "lost", &inputs).await;
    std::fs::remove_file(world.blobs().await.path(Hash::of(&generator))).unwrap();
    let (worker, mut heard) = world.judge_heard(1, 1, Arc::new(TestJudge)).await;
    trouble(&mut heard, "looked at again").await;
    let client = world.client(1).await;
    let mut work = client.work(None, 0).await.unwrap();
    assert_eq!(work.nonces.len(), 1);
    world.client(OWNER).await.put_blob("competition", generator).await.unwrap();
    within(async {
        while !work.nonces.is_empty() {
            work = client.work(Some(&work.mark), 25).await.unwrap();
        }
    })
    .await;
    worker.stop().await;
}

/// A judge that looks at one competition until the test lets it go on.
struct Slow {
    begun: tokio::sync::mpsc::UnboundedSender<()>,
    gate: Mutex<mpsc::Receiver<()>>,
}

#[async_trait]
impl Evaluate for Slow {
    fn covers(&self, spec: &CompetitionSpec, _reference: Option<&[u8]>) -> Result<(), EvaluateError> {
        if spec.name == "slow" {
            self.begun.send(()).unwrap();
            let _ = self.gate.lock().unwrap().recv();
        }
        Ok(())
    }

    async fn evaluate(&self, assignment: Assignment) -> Result<Finding, EvaluateError> {
        TestJudge.evaluate(assignment).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_that_takes_long_keeps_no_lease_waiting() {
    let world = World::start("", &[1]).await;
    let (begun, mut looking) = tokio::sync::mpsc::unbounded_channel();
    let (release, gate) = mpsc::channel();
    open(&world, "slow", "").await;
    let slow = Slow { begun, gate: Mutex::new(gate) };
    let worker = world.judge_with(1, 1, Arc::new(slow)).await;
    within(looking.recv()).await.unwrap();
    let id = world.competition("matrix", 3, 20, "agree = 1\ntakeover = 1\nmax = 1\nlease_s = 20").await;
    let (entry, _) = world.submit(10, id, code(b'5', 1)).await;
    world.open_seals(10).await;
    world.round_over(id).await;
    let found = world.stranger().await.submission(entry, false).await.unwrap();
    assert_eq!(found.submission.state, "scored");
    drop(release);
    worker.stop().await;
}

/// A judge that can judge nothing that is asked here.
struct Unable;

#[async_trait]
impl Evaluate for Unable {
    fn covers(&self, _spec: &CompetitionSpec, _reference: Option<&[u8]>) -> Result<(), EvaluateError> {
        Err(EvaluateError("no jail here".to_owned()))
    }

    async fn evaluate(&self, _assignment: Assignment) -> Result<Finding, EvaluateError> {
        Err(EvaluateError("no jail here".to_owned()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn until_idle_ends_where_only_others_can_judge() {
    let world = World::start("", &[1]).await;
    open(&world, "programs", "").await;
    let (told, _heard) = tokio::sync::mpsc::channel(64);
    let folder = world.folder.path().join("unable");
    let settings = Settings { key: key(1), folder, lanes: 1, until_idle: true, tally: Arc::default() };
    let client = world.client(1).await;
    let run = judge::run(client, settings, Arc::new(Unable), told, CancellationToken::new());
    within(run).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_judge_whose_leases_are_not_taken_back_waits_for_their_end() {
    let world = World::start("rate_entries = 1000", &[1]).await;
    let id = world.competition("matrix", 6, 1500, "agree = 1\ntakeover = 1\nmax = 2\nlease_s = 1200").await;
    let (worker, mut heard) = world.judge_heard(1, 4, Arc::new(BrokenJudge)).await;
    for variant in 0..14 {
        world.submit(10, id, code(b'5', variant)).await;
    }
    world.open_seals(10).await;
    // One refusal for each lane; none is asked for a second time.
    for _ in 0..4 {
        trouble(&mut heard, "leases given back in this round").await;
    }
    let due = world.client(1).await.work(None, 0).await.unwrap();
    assert_eq!(due.leases.len(), 4);
    worker.stop().await;
}

/// Judges as [`TestJudge`] does, but for code '4': there the machine fails.
struct Sometimes;

#[async_trait]
impl Evaluate for Sometimes {
    fn covers(&self, _spec: &CompetitionSpec, _reference: Option<&[u8]>) -> Result<(), EvaluateError> {
        Ok(())
    }

    async fn evaluate(&self, assignment: Assignment) -> Result<Finding, EvaluateError> {
        if assignment.code.first() == Some(&b'4') {
            return Err(EvaluateError("no room on this disk".to_owned()));
        }
        TestJudge.evaluate(assignment).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_judge_tells_how_it_fares() {
    let mut world = World::start("rate_entries = 1000", &[1]).await;
    let id = world.competition("matrix", 4, 30, "agree = 1\ntakeover = 1\nmax = 1\nlease_s = 20").await;
    let tally: Arc<judge::Tally> = Arc::default();
    let (worker, mut heard) = world.judge_counted(1, 3, Arc::new(Sometimes), Arc::clone(&tally)).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let of = judge::Of { tally: Arc::clone(&tally), judge: key(1).node_id().to_string(), host: world.url() };
    let stop = CancellationToken::new();
    let served = tokio::spawn(judge::serve(listener, of, stop.clone()));
    let get = async |path: &str| {
        let answer = reqwest::get(format!("http://{address}{path}")).await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let value = async |name: &str| {
        let page = get("/metrics").await.1;
        let start = format!("shoal_judge_{name} ");
        page.lines().find_map(|line| line.strip_prefix(&start)?.parse::<f64>().ok())
    };
    for (quality, variant) in [(b'9', 1), (b'3', 2), (b'x', 3), (b'4', 4)] {
        world.submit(10, id, code(quality, variant)).await;
    }
    world.open_seals(10).await;
    let (mut shown, mut failed) = (0, false);
    within(async {
        // Two measured, one rejected, the baseline; what fails here is given back.
        while shown < 4 || !failed || value("returned_total").await < Some(1.0) {
            match heard.recv().await.unwrap() {
                Told::Shown { .. } => shown += 1,
                Told::Trouble(words) => failed |= words.contains("no room"),
                _ => {}
            }
        }
    })
    .await;
    assert_eq!(value("judged_total{outcome=\"measured\"}").await, Some(3.0));
    assert_eq!(value("judged_total{outcome=\"rejected\"}").await, Some(1.0));
    assert_eq!(value("judged_total{outcome=\"failed\"}").await, Some(0.0));
    assert!(value("failures_total").await >= Some(1.0));
    assert!(value("judging_seconds_count").await >= Some(5.0));
    assert_eq!((value("shown_total").await, value("lanes").await), (Some(4.0), Some(3.0)));
    assert!(value("lanes_busy").await <= Some(1.0) && value("host_silent_seconds").await < Some(60.0));
    let (status, health) = get("/healthz").await;
    let health: serde_json::Value = serde_json::from_str(&health).unwrap();
    assert_eq!((status, &health["status"]), (200, &"ok".into()));
    assert_eq!(health["judge"], key(1).node_id().to_string());
    assert_eq!(get("/v1/arena").await.0, 404);
    worker.stop().await;
    world.stop().await;
    stop.cancel();
    within(served).await.unwrap();
    // Before a host has answered nothing is well.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let of = judge::Of { tally: Arc::default(), judge: String::new(), host: world.url() };
    tokio::spawn(judge::serve(listener, of, CancellationToken::new()));
    assert_eq!(reqwest::get(format!("http://{address}/healthz")).await.unwrap().status().as_u16(), 503);
}

/// How often a host takes nothing.
const BUSY: u32 = 3;

/// A host that asks a judge for one verdict, and is busy at first: it answers, and takes no statement.
async fn busy(arena: ArenaInfo) -> SocketAddr {
    let lease = LeaseView {
        lease: 7,
        finding: FindingView::ToShow,
        submission_id: 3,
        competition_id: Hash::of(b"competition").to_string(),
        round_number: 1,
        expires: None,
        form: "component".to_owned(),
        role: EntryRole::Challenger,
        code: Hash::of(b"code").to_string(),
        code_bytes: 4,
    };
    let work =
        WorkAnswer { mark: "mark".to_owned(), nonces: Vec::new(), leases: vec![lease], wanted: 1, queued: 0 };
    let asked = Arc::new(AtomicU32::new(0));
    let batch = async move |body: Bytes| {
        let free = asked.fetch_add(1, Ordering::Relaxed) >= BUSY;
        let answer = || {
            let problem = Problem {
                reason: "busy".to_owned(),
                message: "the host is busy".to_owned(),
                refusal: None,
                quota: None,
            };
            let accepted =
                StatementAnswer { block: 1, submission_id: None, round_number: None, competition_id: None };
            BatchAnswer {
                status: if free { 200 } else { 503 },
                accepted: free.then_some(accepted),
                problem: (!free).then_some(problem),
            }
        };
        let stated: Vec<Envelope> = wire::from_bytes(&body).unwrap();
        Json(stated.iter().map(|_| answer()).collect::<Vec<_>>())
    };
    let routes = Router::new()
        .route("/v1/arena", get(async move || Json(arena)))
        .route("/v1/judge/work", get(async move || Json(work)))
        .route("/v1/statements/batch", post(batch));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = TowerToHyperService::new(routes.clone());
            let served = hyper::server::conn::http1::Builder::new();
            tokio::spawn(served.serve_connection(TokioIo::new(stream), service));
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_judge_rests_where_the_host_takes_nothing_and_tells_what_it_took() {
    let world = World::start("", &[1]).await;
    let folder = world.folder.path().join("refused");
    std::fs::create_dir_all(&folder).unwrap();
    let outcome = Outcome::Failed(Failure::Invalid);
    let verdict = Verdict { outcome, wall: None, log: Hash::of(b"log"), account: Box::default() };
    std::fs::write(folder.join("7.verdict"), wire::to_bytes(&verdict)).unwrap();
    let address = busy(world.stranger().await.arena().clone()).await;
    let client = Arc::new(Client::connect(&address.to_string(), Some(key(1))).await.unwrap());
    let (told, mut heard) = tokio::sync::mpsc::channel(64);
    let settings = Settings { key: key(1), folder, lanes: 1, until_idle: false, tally: Arc::default() };
    let stop = CancellationToken::new();
    let start = Instant::now();
    let worker = tokio::spawn(judge::run(client, settings, Arc::new(TestJudge), told, stop.clone()));
    for _ in 0..BUSY {
        let said = within(heard.recv()).await.unwrap();
        assert!(matches!(&said, Told::Trouble(words) if words.contains("busy")), "{said:?}");
    }
    assert_eq!(within(heard.recv()).await, Some(Told::Shown { lease: 7, entry: 3 }));
    // Once, twice and four times the shortest pause.
    assert!(start.elapsed() >= limits::RETRY_MIN * 7, "{:?}", start.elapsed());
    stop.cancel();
    within(worker).await.unwrap().unwrap();
}
