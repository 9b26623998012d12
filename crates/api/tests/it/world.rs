//! A host in a temporary folder, and those who use it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arena::account::{Account, Machine, Metric, Usage};
use arena::calendar::Moment;
use arena::measure::{CodecItem, Failure, Measures, Outcome, Verdict, Wall};
use arena::record::Statement;
use arena::spec::{ArenaSpec, CompetitionId, CompetitionSpec, Form};
use async_trait::async_trait;
use bytes::Bytes;
use shoal_api::judge::{self, Assignment, Evaluate, EvaluateError, Finding, Settings, Told};
use shoal_api::model::EventKind;
use shoal_api::seals::{Entry, Kept, Opened, Seals};
use shoal_api::{Client, Host, HostError, Parts};
use store::{Durability, FolderBlobs, SqliteLog};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wire::{Hash, Millis, NodeId, SigningKey};

use super::gate::{Gate, GatedLog};

/// Longest that anything in a test may take.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

pub(crate) fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

pub(crate) const OWNER: u8 = 200;
pub(crate) const HOST: u8 = 201;

pub(crate) struct World {
    pub(crate) folder: TempDir,
    pub(crate) address: SocketAddr,
    pub(crate) judges: Vec<(NodeId, String)>,
    spec: ArenaSpec,
    upload_quota: u64,
    pub(crate) upload_stall: Duration,
    pub(crate) blobs_max: u64,
    pub(crate) gate: Arc<Gate>,
    running: Option<(CancellationToken, JoinHandle<Result<(), HostError>>)>,
}

impl World {
    pub(crate) async fn start(more: &str, judges: &[u8]) -> Self {
        Self::with_quota(shoal_api::limits::UPLOAD_QUOTA_BYTES, more, judges).await
    }

    pub(crate) async fn with_quota(upload_quota: u64, more: &str, judges: &[u8]) -> Self {
        let owner = key(OWNER).node_id();
        let text = format!("name = \"test\"\nowners = [\"{owner}\"]\n{more}");
        let judges = judges.iter().map(|seed| (key(*seed).node_id(), format!("operator {seed}"))).collect();
        let mut world = Self {
            folder: tempfile::tempdir().unwrap(),
            address: "127.0.0.1:0".parse().unwrap(),
            judges,
            spec: ArenaSpec::parse(&text).unwrap(),
            upload_quota,
            upload_stall: shoal_api::limits::UPLOAD_STALL,
            blobs_max: 1 << 30,
            gate: Arc::default(),
            running: None,
        };
        world.go().await;
        world
    }

    /// Starts the host; a second time at the same port.
    pub(crate) async fn go(&mut self) {
        let path = self.folder.path().join("log.sqlite");
        let log = within(async {
            loop {
                match SqliteLog::open(&path).await {
                    // The tasks of a host that was cut off let go one after the other.
                    Err(store::LogError::InUse { .. }) => tokio::task::yield_now().await,
                    opened => return opened.unwrap(),
                }
            }
        })
        .await;
        let blobs = self.blobs().await;
        let parts = Parts {
            key: key(HOST),
            spec: self.spec.clone(),
            log: Arc::new(GatedLog { log, gate: Arc::clone(&self.gate) }),
            blobs: Arc::new(blobs),
            judges: self.judges.clone(),
            blobs_max: self.blobs_max,
            upload_quota: self.upload_quota,
            log_quota: self.upload_quota,
            upload_stall: self.upload_stall,
        };
        let host = Host::open(parts).await.unwrap();
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let task = tokio::spawn(host.serve(listener, stop.clone()));
        self.running = Some((stop, task));
    }

    /// The host's blobs.
    pub(crate) async fn blobs(&self) -> FolderBlobs {
        FolderBlobs::open(self.folder.path().join("blobs"), Durability::Synced).await.unwrap()
    }

    /// Ends the host between two instructions; nothing is flushed or said.
    pub(crate) async fn kill(&mut self) {
        let (_, task) = self.running.take().unwrap();
        task.abort();
        drop(task.await);
    }

    pub(crate) async fn stop(&mut self) {
        let (stop, task) = self.running.take().unwrap();
        stop.cancel();
        tokio::time::timeout(PATIENCE, task).await.unwrap().unwrap().unwrap();
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A number that the host tells of itself.
    pub(crate) async fn metric(&self, name: &str) -> u64 {
        let page = reqwest::get(format!("{}/metrics", self.url())).await.unwrap().text().await.unwrap();
        let start = format!("shoal_arena_{name} ");
        page.lines().find_map(|line| line.strip_prefix(&start)?.parse().ok()).unwrap()
    }

    pub(crate) async fn client(&self, seed: u8) -> Arc<Client> {
        Arc::new(Client::connect(&self.url(), Some(key(seed))).await.unwrap())
    }

    pub(crate) async fn stranger(&self) -> Client {
        Client::connect(&self.url(), None).await.unwrap()
    }

    pub(crate) fn seals(&self, seed: u8) -> Seals {
        Seals::new(self.folder.path().join(format!("seals-{seed}")))
    }

    /// A competition whose only round closes `open_s` from now and has `judging_s` for its judges.
    pub(crate) async fn competition(
        &self,
        name: &str,
        open_s: u64,
        judging_s: u64,
        judges: &str,
    ) -> CompetitionId {
        self.rounds(1, name, open_s, judging_s, judges).await
    }

    /// The same with several rounds: it goes on after the first.
    pub(crate) async fn rounds(
        &self,
        rounds: u32,
        name: &str,
        open_s: u64,
        judging_s: u64,
        judges: &str,
    ) -> CompetitionId {
        let client = self.client(OWNER).await;
        let every_s = open_s + judging_s + 20;
        let start = Millis(client.now().0 + open_s * 1000 - every_s * 1000);
        let baseline = code(b'0', 1);
        client.put_blob("competition", baseline.clone()).await.unwrap();
        let text = format!(
            "name = \"{name}\"\nkind = \"codec\"\n[schedule]\nstart = \"{}\"\nevery_s = {every_s}\nrounds = {rounds}\n\
             opening_s = 10\njudging_s = {judging_s}\n[inputs]\nitems = 8\n[takeover]\nalpha_ppm = 0\n\
             [submission]\nper_round_max = 1000\n[reveal]\ncode_delay_s = 3600\n[reward]\nweight_ppm = 100000\nbounties = [{{ raw = 0.001 }}]\n[baseline]\nname = \"plain\"\n\
             code = \"{}\"\nbytes = {}\n[judges]\n{judges}",
            Moment(start),
            Hash::of(&baseline),
            baseline.len(),
        );
        let spec = CompetitionSpec::parse(&text).unwrap();
        client.state(&Statement::Open { spec: spec.canonical() }).await.unwrap();
        spec.id()
    }

    pub(crate) async fn submit(&self, seed: u8, competition: CompetitionId, code: Bytes) -> (u64, Kept) {
        let client = self.client(seed).await;
        let entry = Entry { competition, form: Form::Component, code, parents: Vec::new(), receipt: None };
        let (answer, kept) = self.seals(seed).enter(&client, entry).await.unwrap();
        (answer.submission_id.unwrap(), kept)
    }

    /// Opens all seals of a key once its round asks for it.
    pub(crate) async fn open_seals(&self, seed: u8) {
        let (client, seals) = (self.client(seed).await, self.seals(seed));
        let mut events = client.events(None, None, Some(0));
        loop {
            let mut waiting = 0;
            for kept in seals.all().unwrap() {
                waiting +=
                    u32::from(matches!(seals.open(&client, &kept).await.unwrap(), Opened::Waits { .. }));
            }
            if waiting == 0 {
                return;
            }
            within(async { while events.next().await.unwrap().kind != EventKind::RoundAdvanced {} }).await;
        }
    }

    /// Waits for the end of the competition's round.
    pub(crate) async fn round_over(&self, competition: CompetitionId) {
        let client = self.stranger().await;
        let name = competition.to_string();
        let mut events = client.events(Some(&name), None, Some(0));
        within(async {
            loop {
                let event = events.next().await.unwrap();
                assert_ne!(event.kind, EventKind::RoundVoid, "{event:?}");
                if event.kind == EventKind::RoundCompleted {
                    return;
                }
            }
        })
        .await;
    }

    /// A judge at work.
    pub(crate) async fn judge(&self, seed: u8, lanes: u16) -> Worker {
        self.judge_with(seed, lanes, Arc::new(TestJudge)).await
    }

    pub(crate) async fn judge_with(&self, seed: u8, lanes: u16, evaluator: Arc<dyn Evaluate>) -> Worker {
        let (worker, mut heard) = self.judge_heard(seed, lanes, evaluator).await;
        tokio::spawn(async move { while heard.recv().await.is_some() {} });
        worker
    }

    /// A judge at work, and what it tells.
    pub(crate) async fn judge_heard(
        &self,
        seed: u8,
        lanes: u16,
        evaluator: Arc<dyn Evaluate>,
    ) -> (Worker, tokio::sync::mpsc::Receiver<Told>) {
        self.judge_counted(seed, lanes, evaluator, Arc::default()).await
    }

    pub(crate) async fn judge_counted(
        &self,
        seed: u8,
        lanes: u16,
        evaluator: Arc<dyn Evaluate>,
        tally: Arc<judge::Tally>,
    ) -> (Worker, tokio::sync::mpsc::Receiver<Told>) {
        let (told, heard) = tokio::sync::mpsc::channel(64);
        let settings =
            Settings { key: key(seed), folder: self.judge_folder(seed), lanes, until_idle: false, tally };
        let stop = CancellationToken::new();
        let client = self.client(seed).await;
        let task = tokio::spawn(judge::run(client, settings, evaluator, told, stop.clone()));
        (Worker { stop, task }, heard)
    }

    fn judge_folder(&self, seed: u8) -> PathBuf {
        self.folder.path().join(format!("judge-{seed}"))
    }
}

pub(crate) struct Worker {
    stop: CancellationToken,
    task: JoinHandle<Result<(), shoal_api::ClientError>>,
}

impl Worker {
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.unwrap().unwrap().unwrap();
    }

    /// Ends it between two instructions.
    pub(crate) async fn kill(self) {
        self.task.abort();
        drop(self.task.await);
    }
}

pub(crate) async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("in time")
}

/// "Code" whose first byte says how good it is: '0' is plain, '9' the best, 'x' fails.
pub(crate) fn code(quality: u8, variant: u64) -> Bytes {
    let mut bytes = vec![quality];
    bytes.extend_from_slice(format!("\nvariant {variant}\n").as_bytes());
    bytes.into()
}

/// Measures by the code's first byte: the same at every judge.
pub(crate) struct TestJudge;

#[async_trait]
impl Evaluate for TestJudge {
    fn covers(&self, _spec: &CompetitionSpec, _reference: Option<&[u8]>) -> Result<(), EvaluateError> {
        Ok(())
    }

    async fn evaluate(&self, assignment: Assignment) -> Result<Finding, EvaluateError> {
        let Assignment { spec, code, seed, .. } = assignment;
        let quality = u64::from(code.first().copied().unwrap_or(b'0') - b'0');
        let log = Bytes::from_static(b"line one\nline two\nline three\n");
        let item = |index: u32| CodecItem {
            original_bytes: 2 << 20,
            compressed_bytes: (1 << 20) - quality * 50_000 + u64::from(seed.0[index as usize % 32]),
            similarity_ppb: 999_000_000,
            exact: false,
            fuel: 1_000_000,
        };
        let outcome = if quality > 9 {
            Outcome::Failed(Failure::Forbidden)
        } else {
            Outcome::Measured {
                inputs: Hash::of_parts("generated", &[&seed.0]),
                outputs: Hash::of(&code),
                measures: Measures::Codec((0..spec.inputs.items).map(item).collect()),
            }
        };
        let wall = Some(Wall { task_time_ns: 1_000_000, over_baseline_ppm: 0 });
        Ok(Finding {
            verdict: Verdict { outcome, wall, log: Hash::of(&log), account: Box::new(told(quality > 9)) },
            log,
        })
    }
}

/// What a judge tells besides.
fn told(failed: bool) -> Account {
    let metric = |name: &str, unit: &str, nano| Metric { name: name.to_owned(), unit: unit.to_owned(), nano };
    let metrics =
        vec![metric("rows_per_s", "1/s", 2_500_000_000), metric("ratio_backward", "", 4_500_000_000)];
    let machine = Machine {
        cpu_model: "Test CPU".to_owned(),
        cores: 3,
        memory_bytes: 4 << 30,
        sandbox: "none".to_owned(),
    };
    Account {
        reason: if failed { "solution.py:3: imports ctypes" } else { "" }.to_owned(),
        metrics: if failed { Vec::new() } else { metrics },
        usage: Usage { cpu_ns: 1_500_000_000, memory_peak_bytes: 3 << 20, fuel: 7, ..Usage::default() },
        machine,
    }
}

/// A judge whose machine fails: it has no verdict on anything.
pub(crate) struct BrokenJudge;

#[async_trait]
impl Evaluate for BrokenJudge {
    fn covers(&self, _spec: &CompetitionSpec, _reference: Option<&[u8]>) -> Result<(), EvaluateError> {
        Ok(())
    }

    async fn evaluate(&self, _assignment: Assignment) -> Result<Finding, EvaluateError> {
        Err(EvaluateError("no room on this disk".to_owned()))
    }
}
