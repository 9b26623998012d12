//! Requests at a fixed rate over kept-alive connections, each timed from when it was due.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use arena::record::{STATEMENT_KIND, Statement};
use arena::spec::{CompetitionId, Form};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;
use wire::{Envelope, Hash, Millis};

use crate::{ENTRANTS, SUBMISSIONS, key, owner, spec};

/// Longest answer, bytes.
const ANSWER_BYTES: usize = 4 << 20;

/// A request: its kind and its bytes.
struct Asked {
    kind: &'static str,
    bytes: Vec<u8>,
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

fn get(kind: &'static str, target: &str) -> Asked {
    let bytes = format!("GET {target} HTTP/1.1\r\nhost: bench\r\n\r\n").into_bytes();
    Asked { kind, bytes }
}

/// What visitors ask for: mostly lists and details; 2 % are durable writes, half of them entries.
fn draw(random: &mut Random, nonce: u64, competition: CompetitionId) -> Asked {
    let anywhere = random.below(SUBMISSIONS);
    let entrant = key(random.below(ENTRANTS)).node_id().to_string();
    match random.below(100) {
        0..2 => {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
            // Every other one is an entry, by a key that has none in this round.
            let (signer, statement) = if nonce.is_multiple_of(2) {
                (owner(), Statement::Announce { competition: None, text: format!("number {nonce}") })
            } else {
                let seal = Hash::of_parts("bench live", &[&now.as_nanos().to_le_bytes(), &nonce.to_le_bytes()]);
                let (form, parents) = (Form::Component, Vec::new());
                let entry = Statement::Submit { competition, seal, form, parents, receipt: None };
                (key(random.below(ENTRANTS)), entry)
            };
            let body = wire::to_bytes(&statement);
            let time = Millis(now.as_millis() as u64);
            let envelope = Envelope::sign(&signer, spec().run_id(), STATEMENT_KIND, body, time, nonce);
            let body = wire::to_bytes(&envelope);
            let head = format!("POST /v1/statements HTTP/1.1\r\nhost: bench\r\ncontent-length: {}\r\n\r\n", body.len());
            Asked { kind: "statement (durable)", bytes: [head.as_bytes(), &body].concat() }
        }
        2..12 => get("competitions", "/v1/competitions"),
        12..22 => get("competition", "/v1/competitions/bench"),
        22..25 => get("rounds", "/v1/competitions/bench/rounds?count=20"),
        25..50 => {
            get("submissions by score", &format!("/v1/submissions?competition=bench&start_idx={anywhere}&count=20"))
        }
        50..60 => {
            get("submissions by time", &format!("/v1/submissions?sort=time&start_idx={anywhere}&count=20"))
        }
        60..68 => get("submissions of a key", &format!("/v1/submissions?competition=bench&entrant={entrant}")),
        68..70 => {
            let part = &entrant[..3];
            get("submissions of a part of a key", &format!("/v1/submissions?competition=bench&entrant={part}"))
        }
        70..85 => get("submission in detail", &format!("/v1/submissions/{anywhere}")),
        85..90 => get("leaderboard", "/v1/competitions/bench/leaderboard?count=50"),
        90..95 => get("leaderboard of the arena", "/v1/leaderboard?count=50"),
        _ => get("profile", &format!("/v1/profiles/{entrant}")),
    }
}

/// A kept-alive connection.
struct Connection(TcpStream, Vec<u8>);

impl Connection {
    async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("it connects");
        stream.set_nodelay(true).expect("an option");
        Self(stream, Vec::with_capacity(64 << 10))
    }

    /// Whether the answer was a success; none if the host has closed the connection, as it does with idle ones.
    async fn ask(&mut self, asked: &Asked) -> Option<bool> {
        let Self(stream, buffer) = self;
        stream.write_all(&asked.bytes).await.ok()?;
        buffer.clear();
        loop {
            if let Some(head) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                let text = String::from_utf8_lossy(&buffer[..head]).to_ascii_lowercase();
                let len = text.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
                let all = head + 4 + len.expect("answers have a length");
                if buffer.len() >= all {
                    return Some(text.starts_with("http/1.1 200"));
                }
            }
            assert!(buffer.len() < ANSWER_BYTES, "an answer over the limit");
            if stream.read_buf(buffer).await.ok()? == 0 {
                return None;
            }
        }
    }
}

/// Asks and prints the table.
pub async fn run(address: SocketAddr, rate: u64, seconds: u64, competition: CompetitionId) {
    let idle: Arc<Mutex<Vec<Connection>>> = Arc::default();
    let times: Arc<Mutex<BTreeMap<&'static str, Vec<Duration>>>> = Arc::default();
    let failed: Arc<Mutex<u64>> = Arc::default();
    let mut random = Random(7);
    let mut running = JoinSet::new();
    let warm = rate * 2;
    let start = Instant::now();
    for number in 0..rate * seconds + warm {
        let due = start + Duration::from_nanos(number * 1_000_000_000 / rate);
        tokio::time::sleep_until(due).await;
        let asked = draw(&mut random, number, competition);
        let (idle, times, failed) = (Arc::clone(&idle), Arc::clone(&times), Arc::clone(&failed));
        running.spawn(async move {
            let kept = idle.lock().expect("no panic").pop();
            let mut connection = match kept {
                Some(connection) => connection,
                None => Connection::open(address).await,
            };
            let good = match connection.ask(&asked).await {
                Some(good) => good,
                // Closed while it was idle: a client asks once more, and the time goes on.
                None => {
                    connection = Connection::open(address).await;
                    connection.ask(&asked).await.expect("a new connection holds for one request")
                }
            };
            let took = due.elapsed();
            if number >= warm {
                times.lock().expect("no panic").entry(asked.kind).or_default().push(took);
                *failed.lock().expect("no panic") += u64::from(!good);
            }
            idle.lock().expect("no panic").push(connection);
        });
        while running.try_join_next().is_some() {}
    }
    while let Some(ended) = running.join_next().await {
        ended.expect("no panic");
    }
    let times = times.lock().expect("no panic");
    let mut all: Vec<Duration> = times.values().flatten().copied().collect();
    println!("| request | number | p50 ms | p99 ms | most ms |\n|---|---|---|---|---|");
    row("all", &mut all);
    for (kind, times) in times.iter() {
        row(kind, &mut times.clone());
    }
    let connections = idle.lock().expect("no panic").len();
    println!("\n{} answers were no success; {connections} connections.", failed.lock().expect("no panic"));
}

fn row(kind: &str, times: &mut [Duration]) {
    times.sort_unstable();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize].as_secs_f64() * 1000.0;
    println!("| {kind} | {} | {:.2} | {:.2} | {:.2} |", times.len(), at(0.5), at(0.99), at(1.0));
}
