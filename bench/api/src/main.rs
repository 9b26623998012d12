//! Measures the arena's API: builds a log with 100,000 submissions, serves it, asks at a fixed rate.
//!
//! `shoal-bench-api build FOLDER`, then `shoal-bench-api measure FOLDER [RATE] [SECONDS]`

mod build;
mod load;

use std::sync::Arc;
use std::time::Instant;

use api::{Host, Parts};
use arena::spec::ArenaSpec;
use store::{Durability, FolderBlobs, LogStore, SqliteLog};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use wire::SigningKey;

/// Submissions of the log.
pub const SUBMISSIONS: u64 = 100_000;
/// Entries of a round.
pub const PER_ROUND: u64 = 1000;
/// Keys that enter.
pub const ENTRANTS: u64 = 5000;

/// A key by its number.
pub fn key(number: u64) -> SigningKey {
    SigningKey::from_bytes(&wire::Hash::of(&number.to_le_bytes()).0)
}

/// Key of the host.
pub fn host_key() -> SigningKey {
    key(1 << 40)
}

/// Key of the owner, who also opens the competition.
pub fn owner() -> SigningKey {
    key(1 << 41)
}

/// The arena.
pub fn spec() -> ArenaSpec {
    let text = format!("name = \"bench\"\nowners = [\"{}\"]\nrate_entries = 100000\n", owner().node_id());
    ArenaSpec::parse(&text).expect("a spec")
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["build", folder] => runtime.block_on(build::build(folder.as_ref())),
        ["measure", folder] => runtime.block_on(measure(folder, 500, 30)),
        ["measure", folder, rate, seconds] => {
            let number = |text: &str| text.parse().expect("a number");
            runtime.block_on(measure(folder, number(rate), number(seconds)));
        }
        _ => eprintln!("usage: shoal-bench-api build|measure FOLDER [RATE] [SECONDS]"),
    }
}

async fn measure(folder: &str, rate: u64, seconds: u64) {
    let start = Instant::now();
    let log: Arc<dyn LogStore> = Arc::new(SqliteLog::open(format!("{folder}/log.sqlite")).await.expect("a log"));
    let blobs = FolderBlobs::open(format!("{folder}/blobs"), Durability::Synced).await.expect("blobs");
    let parts = Parts {
        key: host_key(),
        spec: spec(),
        log,
        blobs: Arc::new(blobs),
        judges: Vec::new(),
        blobs_max: 1 << 40,
        upload_quota: 1 << 40,
        log_quota: 1 << 40,
        upload_stall: api::limits::UPLOAD_STALL,
    };
    let host = Host::open(parts).await.expect("the log folds");
    let opened = start.elapsed();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
    let address = listener.local_addr().expect("an address");
    let stop = CancellationToken::new();
    let serving = tokio::spawn(host.serve(listener, stop.clone()));
    println!(
        "`shoal-bench-api measure FOLDER {rate} {seconds}`: {SUBMISSIONS} submissions of {ENTRANTS} keys in {} \
         rounds, in SQLite; host and clients in one process on {} cores; requests are sent when they are due, whether or \
         not earlier ones were answered, and timed from then on. Folding the log at the start took {:.1} s.\n",
        SUBMISSIONS / PER_ROUND,
        std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        opened.as_secs_f64(),
    );
    // The arena is new to whoever looks: its clock went on, its next round opens.
    let client = api::Client::connect(&format!("http://{address}"), None).await.expect("it answers");
    let found = client.competition("bench").await.expect("the competition");
    let rounds = client.rounds("bench", 0, 5).await.expect("its rounds").rounds;
    let open = rounds.iter().find(|round| round.state == "open").expect("a round is open");
    let judged = rounds.iter().find(|round| round.state == "evaluating").expect("a round is before its judges");
    println!(
        "Round {} is open; round {} waits for its judges with {} of {} entries.\n",
        open.round_number,
        judged.round_number,
        judged.to_judge - judged.judged,
        judged.to_judge
    );
    load::run(address, rate, seconds, found.id.parse().expect("an id")).await;
    stop.cancel();
    serving.await.expect("the host ends").expect("in good order");
}
