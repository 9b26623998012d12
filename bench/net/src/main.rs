//! Measures the links and the stores, and prints Markdown tables.
//!
//! `cargo run --release --manifest-path bench/net/Cargo.toml -- [transfers|paths|calls|log] [NAME=VALUE …]`

mod path;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::join_all;
use net::{Congestion, EndpointOptions, Handler, Link, MemoryNetwork, Message, QuicLink, Refusal};
use path::Path;
use store::{LogStore, SqliteLog};
use wire::{NodeId, Seq, SigningKey, Term};

const DEADLINE: Duration = Duration::from_secs(120);

/// Takes a payload and says so.
struct Sink;

#[async_trait]
impl Handler for Sink {
    async fn handle(&self, _from: NodeId, message: Message) -> Result<Message, Refusal> {
        Ok(Message::new((message.payload.len() as u64).to_le_bytes()))
    }
}

/// Processor time of this process so far, seconds, user and system.
fn processor_seconds() -> f64 {
    // SAFETY: `usage` is a plain struct for which all zeros is a value, and the call fills it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 * 1e-6;
    seconds(usage.ru_utime) + seconds(usage.ru_stime)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

struct Settings(BTreeMap<String, String>);

impl Settings {
    fn get<T: std::str::FromStr>(&self, name: &str, default: T) -> T {
        self.0.get(name).map_or(default, |text| text.parse().ok().unwrap_or_else(|| panic!("{name}={text}?")))
    }
}

fn main() {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let what = if arguments.first().is_some_and(|first| !first.contains('=')) {
        arguments.remove(0)
    } else {
        "all".to_owned()
    };
    let settings = arguments.iter().map(|argument| {
        let (name, value) = argument.split_once('=').expect("NAME=VALUE");
        (name.to_owned(), value.to_owned())
    });
    let settings = Settings(settings.collect());
    println!("{}", machine());
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(settings.get("threads", 2))
        .enable_all()
        .build()
        .expect("a runtime starts");
    runtime.block_on(async {
        if matches!(&*what, "transfers" | "all") {
            transfers(&settings).await;
        }
        if matches!(&*what, "paths" | "all") {
            paths(&settings);
        }
        if matches!(&*what, "calls" | "all") {
            calls(&settings).await;
        }
        if matches!(&*what, "log" | "all") {
            log(&settings).await;
        }
    });
}

/// One line that says what was measured on.
fn machine() -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let (processor, kernel) = (read("/proc/cpuinfo"), read("/proc/sys/kernel/osrelease"));
    let model = processor.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!(
        "`bench/net/run` on {cores} cores of {}, Linux {}.",
        model.map_or("?", |model| model.1),
        kernel.trim()
    )
}

async fn nodes(count: u8, stripes: u8, congestion: Congestion) -> Vec<Arc<dyn Link>> {
    let mut links: Vec<Arc<dyn Link>> = Vec::new();
    for seed in 0..count {
        let key = SigningKey::from_bytes(&[seed + 1; 32]);
        let options =
            EndpointOptions { stripes, congestion: Some(congestion), ..EndpointOptions::loopback(key) };
        links.push(Arc::new(QuicLink::bind(options, Arc::new(Sink)).await.expect("an endpoint opens")));
    }
    for one in &links {
        for other in &links {
            one.learn(other.id(), other.address());
        }
    }
    links
}

/// All nodes send to all others at once, in rounds, as in an all-reduce.
async fn exchange(links: &[Arc<dyn Link>], payload: &Bytes, transfers: usize) -> (f64, f64) {
    let (start, before) = (Instant::now(), processor_seconds());
    let calls = (0..transfers).map(|index| {
        let from = index % links.len();
        let to = (from + 1 + index / links.len() % (links.len() - 1)) % links.len();
        let message = Message::with_payload([0; 64], payload.clone());
        async move { links[from].call(&links[to].id(), message, DEADLINE).await.expect("it arrives") }
    });
    join_all(calls).await;
    (start.elapsed().as_secs_f64(), processor_seconds() - before)
}

async fn transfers(settings: &Settings) {
    let bytes: usize = settings.get("bytes", 12_500_000);
    let count: usize = settings.get("count", 16);
    let runs: usize = settings.get("runs", 7);
    println!(
        "\n{count} transfers of {} MB between 4 nodes on loopback, median of {runs}\n",
        bytes as f64 / 1e6
    );
    println!(
        "| link | congestion | stripes | s | MB/s | CPU ns/B | spread s |\n|---|---|---|---|---|---|---|"
    );
    let payload = Bytes::from(vec![0x5a; bytes]);
    let total = (bytes * count) as f64;
    let only: String = settings.get("congestion", String::new());
    for congestion in [Congestion::Cubic, Congestion::Bbr3] {
        let name = format!("{congestion:?}").to_lowercase();
        if !only.is_empty() && only != name {
            continue;
        }
        for stripes in [1, 2, 4, 8] {
            if settings.get("stripes", stripes) != stripes {
                continue;
            }
            let links = nodes(4, stripes, congestion).await;
            exchange(&links, &payload, count.max(12)).await;
            let mut results = Vec::new();
            for _ in 0..runs {
                results.push(exchange(&links, &payload, count).await);
            }
            report("iroh", &name, stripes, total, &results);
            for link in &links {
                link.close().await;
            }
        }
    }
    let network = MemoryNetwork::new();
    let links: Vec<Arc<dyn Link>> = (0..4u8)
        .map(|seed| Arc::new(network.join(NodeId([seed; 32]), Arc::new(Sink))) as Arc<dyn Link>)
        .collect();
    for one in &links {
        for other in &links {
            one.learn(other.id(), other.address());
        }
    }
    let mut results = Vec::new();
    for _ in 0..runs {
        results.push(exchange(&links, &payload, count).await);
    }
    report("memory", "-", 0, total, &results);
}

fn report(link: &str, congestion: &str, stripes: u8, total: f64, results: &[(f64, f64)]) {
    let seconds: Vec<f64> = results.iter().map(|result| result.0).collect();
    let least = seconds.iter().copied().fold(f64::INFINITY, f64::min);
    let most = seconds.iter().copied().fold(0.0, f64::max);
    let wall = median(seconds);
    let cpu = median(results.iter().map(|result| result.1).collect());
    println!(
        "| {link} | {congestion} | {stripes} | {wall:.3} | {:.0} | {:.2} | {least:.3}–{most:.3} |",
        total / wall / 1e6,
        cpu / total * 1e9,
    );
}

/// One transfer after another over a path with a rate, a delay and losses, by each congestion control.
fn paths(settings: &Settings) {
    let bytes: usize = settings.get("path_bytes", 4_000_000);
    let runs: usize = settings.get("path_runs", 5);
    let megabits: f64 = settings.get("rate", 100.0);
    let milliseconds: f64 = settings.get("rtt", 50.0);
    let round = Duration::from_secs_f64(milliseconds / 1e3);
    println!(
        "\n{} MB from one node to another over {megabits} Mbit/s and {milliseconds} ms there and back, a queue of {milliseconds} ms, \
         4 stripes, median of {runs} after a first one\n",
        bytes as f64 / 1e6
    );
    println!(
        "| lost by chance | congestion | s | share of the rate | spread s | packets dropped |\n|---|---|---|---|---|---|"
    );
    for loss in [0.0, 0.001, 0.005, 0.02] {
        for congestion in [Congestion::Cubic, Congestion::Bbr3] {
            let rate = megabits * 125_000.0;
            let path = Path { rate, delay: round / 2, queue: round, loss };
            match over(path, congestion, bytes, runs) {
                Ok((seconds, dropped)) => {
                    let least = seconds.iter().copied().fold(f64::INFINITY, f64::min);
                    let most = seconds.iter().copied().fold(0.0, f64::max);
                    let middle = median(seconds);
                    println!(
                        "| {} % | {} | {middle:.2} | {:.2} | {least:.2}–{most:.2} | {dropped} |",
                        loss * 100.0,
                        format!("{congestion:?}").to_lowercase(),
                        bytes as f64 / middle / rate,
                    );
                }
                Err(reason) => return println!("\nNot measured, it needs root, iproute2 and TUN: {reason}"),
            }
        }
    }
}

/// Seconds of each transfer after the first, and packets lost on the way there.
fn over(path: Path, congestion: Congestion, bytes: usize, runs: usize) -> Result<(Vec<f64>, u64), String> {
    let end = |host: u8, congestion| {
        let key = SigningKey::from_bytes(&[host; 32]);
        let bind = vec![([10, 79, 0, host], 7700).into()];
        EndpointOptions { bind, congestion, ..EndpointOptions::new(key) }
    };
    let runtime =
        || tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    let (devices, entered) = mpsc::channel();
    let (address, listening) = mpsc::channel();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let receiving = devices.clone();
    let receiver = std::thread::spawn(move || {
        let tun = path::enter(2);
        let failed = tun.is_err();
        receiving.send((2, tun)).expect("it is waited for");
        if !failed {
            runtime().block_on(async {
                let link = QuicLink::bind(end(2, None), Arc::new(Sink)).await.expect("an endpoint");
                address.send((link.id(), link.address())).expect("it is waited for");
                _ = stopped.await;
            });
        }
    });
    let sender = std::thread::spawn(move || {
        let tun = path::enter(1);
        let failed = tun.is_err();
        devices.send((1, tun)).expect("it is waited for");
        if failed {
            return Vec::new();
        }
        let Ok((to, address)) = listening.recv() else { return Vec::new() };
        runtime().block_on(async {
            let link = QuicLink::bind(end(1, Some(congestion)), Arc::new(Sink)).await.expect("an endpoint");
            link.learn(to, address);
            let payload = Bytes::from(vec![0x5a; bytes]);
            let mut seconds = Vec::new();
            for _ in 0..=runs {
                let start = Instant::now();
                link.call(&to, Message::with_payload([0; 64], payload.clone()), DEADLINE)
                    .await
                    .expect("it arrives");
                seconds.push(start.elapsed().as_secs_f64());
            }
            seconds.split_off(1)
        })
    });
    let mut tuns = BTreeMap::new();
    for (host, tun) in entered.iter().take(2) {
        tuns.insert(host, tun?);
    }
    let dropped = [Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0))];
    for (host, other) in [(1, 2), (2, 1)] {
        let (from, to) = (tuns[&host].try_clone(), tuns[&other].try_clone());
        let (from, to) = (from.expect("a handle"), to.expect("a handle"));
        path::carry(from, to, path, 0x9e37_79b9_7f4a_7c15 * host, Arc::clone(&dropped[host as usize - 1]));
    }
    let seconds = sender.join().expect("the sender ends");
    _ = stop.send(());
    receiver.join().expect("the receiver ends");
    Ok((seconds, dropped[0].load(Ordering::Relaxed)))
}

/// Small calls: one after another, and 32 at a time.
async fn calls(settings: &Settings) {
    let count: usize = settings.get("calls", 2000);
    println!("\n{count} calls of 200 bytes on loopback\n");
    println!("| at a time | calls/s | µs each | CPU µs each |\n|---|---|---|---|");
    let links = nodes(2, 4, Congestion::Cubic).await;
    for at_a_time in [1, 32] {
        let (start, before) = (Instant::now(), processor_seconds());
        for _ in 0..count / at_a_time {
            let to = links[1].id();
            let calls = (0..at_a_time).map(|_| links[0].call(&to, Message::new([1; 200]), DEADLINE));
            for answer in join_all(calls).await {
                answer.expect("it arrives");
            }
        }
        let (wall, cpu) = (start.elapsed().as_secs_f64(), processor_seconds() - before);
        let each = 1e6 / (count / at_a_time * at_a_time) as f64;
        println!("| {at_a_time} | {:.0} | {:.0} | {:.0} |", 1e6 / (wall * each), wall * each, cpu * each);
    }
}

/// Durable appends to the log.
async fn log(settings: &Settings) {
    let folder: String = settings.get("folder", std::env::temp_dir().display().to_string());
    let folder = tempfile::TempDir::new_in(folder).expect("a folder");
    let log = SqliteLog::open(folder.path().join("log.sqlite")).await.expect("a log opens");
    log.take_term(Term(1)).await.expect("the first term");
    println!("\nAppends to SQLite (write-ahead log, synchronous FULL)\n");
    println!("| block | appends/s | MB/s | median ms | 99 % ms | worst ms |\n|---|---|---|---|---|---|");
    let mut seq = 0;
    for (bytes, count) in [(256, 400), (24_000, 400), (1 << 20, 60)] {
        let block = Bytes::from(vec![7; bytes]);
        let (start, mut each) = (Instant::now(), Vec::new());
        for _ in 0..count {
            let start = Instant::now();
            log.append(Term(1), Seq(seq), block.clone()).await.expect("it is appended");
            each.push(start.elapsed().as_secs_f64() * 1e3);
            seq += 1;
        }
        let wall = start.elapsed().as_secs_f64();
        each.sort_by(f64::total_cmp);
        println!(
            "| {bytes} B | {:.0} | {:.1} | {:.2} | {:.2} | {:.2} |",
            f64::from(count) / wall,
            (bytes * count as usize) as f64 / wall / 1e6,
            each[each.len() / 2],
            each[each.len() * 99 / 100],
            each[each.len() - 1],
        );
    }
}
