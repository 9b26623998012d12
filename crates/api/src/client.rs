//! The client: signs, asks, and tries again where that is safe.

mod events;
mod reads;

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use arena::Refusal;
use arena::record::{STATEMENT_KIND, Statement};
use bytes::Bytes;
use reqwest::{Method, StatusCode, Url};
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;
use wire::{Envelope, Hash, Millis, NodeId, RunId, SigningKey};

pub use events::EventStream;
pub use reads::{CompetitionQuery, SubmissionQuery};

use crate::clock::Clock;
use crate::limits;
use crate::model::{ArenaInfo, Gated, Problem, StatementAnswer, UploadAnswer};
use crate::request::{self, Request};

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The address is none.
    #[error("{address:?} is not the address of a host: write it like http://127.0.0.1:7464")]
    Address {
        /// As given.
        address: String,
    },
    /// Nobody answers there.
    #[error("no answer from {address}: {reason}; is the host running, and is this its address?")]
    Unreachable {
        /// Where.
        address: String,
        /// Why.
        reason: String,
    },
    /// The answer is none of an arena's.
    #[error("{address} gave an answer that is no arena's: {reason}")]
    Malformed {
        /// Where.
        address: String,
        /// What is wrong.
        reason: String,
    },
    /// The host refused.
    #[error("{}", problem.message)]
    Refused {
        /// Status.
        status: u16,
        /// Why.
        problem: Problem,
    },
    /// A gate is closed.
    #[error("{}{}", gate.message, gate.reveal_at.map(|at| format!(" (shown at {at})")).unwrap_or_default())]
    Gated {
        /// Which, and when it opens.
        gate: Gated,
    },
    /// This needs a key.
    #[error("this needs a key: name one with --key, or `shoal arena link --key FILE`")]
    NoKey,
    /// The client's own files failed.
    #[error("{doing} {place}: {source}")]
    Files {
        /// What was tried.
        doing: &'static str,
        /// Where.
        place: String,
        /// Why.
        source: std::io::Error,
    },
    /// A stream broke off.
    #[error("the stream from {address} broke off: {reason}")]
    Broken {
        /// Where.
        address: String,
        /// Why.
        reason: String,
    },
}

impl ClientError {
    /// One word of the host, where it refused.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Refused { problem, .. } => Some(&problem.reason),
            Self::Gated { gate } => Some(&gate.reason),
            _ => None,
        }
    }

    /// What the rules of the arena refused, if it was they: what was stated does not stand. After any other error it may.
    pub fn refusal(&self) -> Option<Refusal> {
        let Self::Refused { problem, .. } = self else { return None };
        serde_json::from_value(problem.refusal.clone()?).ok()
    }

    /// Another try may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Broken { .. } => true,
            // A gateway's word for a host that is away, or a clock that was set since it was measured.
            Self::Refused { status, problem } => {
                matches!(status, 429 | 502 | 503 | 504) || problem.reason == "stale"
            }
            _ => false,
        }
    }
}

/// A client of one host.
pub struct Client {
    http: reqwest::Client,
    base: Url,
    key: Option<SigningKey>,
    arena: ArenaInfo,
    run: RunId,
    clock: Clock,
    /// How far the host's clock is ahead of ours, milliseconds; measured again when the host says to come again.
    ahead: AtomicI64,
    nonce: AtomicU64,
    /// One statement under way: the host takes them in the order of their times. The time of the last.
    stating: Mutex<Millis>,
}

/// Tries of a call that may be repeated.
const TRIES: u32 = 4;

impl Client {
    /// Connects to a host: asks for the arena's id and its clock.
    ///
    /// # Errors
    /// No address, nobody there, or not an arena.
    pub async fn connect(address: &str, key: Option<SigningKey>) -> Result<Self, ClientError> {
        // Set once per process; a second time changes nothing.
        drop(rustls::crypto::ring::default_provider().install_default());
        let with_scheme =
            if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
        let wrong = || ClientError::Address { address: address.to_owned() };
        let base = Url::parse(&with_scheme).map_err(|_| wrong())?;
        if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none() {
            return Err(wrong());
        }
        let http = reqwest::Client::builder()
            .connect_timeout(limits::CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .tcp_nodelay(true)
            .tcp_keepalive(limits::KEEPALIVE)
            .build()
            .map_err(|error| ClientError::Unreachable {
                address: address.to_owned(),
                reason: error.to_string(),
            })?;
        let url = base.join("/v1/arena").map_err(|_| wrong())?;
        let unreachable = |error: &reqwest::Error| unreachable(&base, error);
        let sent = http.get(url).timeout(limits::REQUEST_TIMEOUT).send().await;
        let bytes = body(&base, sent.map_err(|error| unreachable(&error))?, limits::ANSWER_BYTES).await?;
        let arena: ArenaInfo = decode(&base, &bytes)?;
        let malformed = |reason: String| ClientError::Malformed { address: base.to_string(), reason };
        let run = arena.run.parse().map_err(|error| malformed(format!("run: {error}")))?;
        let clock = Clock::default();
        let ahead = arena.now.0.0 as i64 - clock.now().0 as i64;
        Ok(Self {
            http,
            base,
            key,
            run,
            clock,
            ahead: AtomicI64::new(ahead),
            nonce: AtomicU64::new(0),
            stating: Mutex::new(Millis(0)),
            arena,
        })
    }

    /// The arena, as it was when the client connected.
    pub fn arena(&self) -> &ArenaInfo {
        &self.arena
    }

    /// Id of the arena.
    pub fn run(&self) -> RunId {
        self.run
    }

    /// Address of the host.
    pub fn address(&self) -> &str {
        self.base.as_str()
    }

    /// The key that signs.
    ///
    /// # Errors
    /// There is none.
    pub fn key(&self) -> Result<&SigningKey, ClientError> {
        self.key.as_ref().ok_or(ClientError::NoKey)
    }

    /// Who asks.
    ///
    /// # Errors
    /// There is no key.
    pub fn id(&self) -> Result<NodeId, ClientError> {
        Ok(self.key()?.node_id())
    }

    /// The host's clock, as far as is known here.
    pub fn now(&self) -> Millis {
        Millis(self.clock.now().0.saturating_add_signed(self.ahead.load(Ordering::Relaxed)))
    }

    fn url(&self, target: &str) -> Result<Url, ClientError> {
        self.base.join(target).map_err(|_| ClientError::Address { address: target.to_owned() })
    }

    /// One request, signed if there is a key.
    async fn send(
        &self,
        method: Method,
        target: &str,
        body: Bytes,
        timeout: Duration,
    ) -> Result<reqwest::Response, ClientError> {
        let url = self.url(target)?;
        let mut asked = self.http.request(method.clone(), url.clone()).timeout(timeout);
        if let Some(header) = self.header(&method, &url, &body) {
            asked = asked.header(reqwest::header::AUTHORIZATION, header);
        }
        if method != Method::GET {
            asked = asked.header(reqwest::header::CONTENT_LENGTH, body.len()).body(in_parts(body));
        }
        let answer = asked.send().await.map_err(|error| unreachable(&self.base, &error))?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let error = self.failure(answer).await;
        if matches!(&error, ClientError::Refused { status: 401 | 503, .. }) && self.key.is_some() {
            self.measure().await;
        }
        Err(error)
    }

    /// Asks for the host's clock again: one that drifted from ours is a reason for which it does not take what is signed.
    async fn measure(&self) {
        let asked = async {
            let sent = self.http.get(self.url("/v1/arena")?).timeout(limits::REQUEST_TIMEOUT).send().await;
            let answer = sent.map_err(|error| unreachable(&self.base, &error))?;
            decode::<ArenaInfo>(&self.base, &body(&self.base, answer, limits::ANSWER_BYTES).await?)
        };
        // Where that fails, too, the last measurement stands.
        if let Ok(arena) = asked.await {
            self.ahead.store(arena.now.0.0 as i64 - self.clock.now().0 as i64, Ordering::Relaxed);
        }
    }

    fn header(&self, method: &Method, url: &Url, body: &[u8]) -> Option<String> {
        let target = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        let request = Request { method: method.to_string(), target, body: Hash::of(body) };
        let nonce = self.nonce.fetch_add(1, Ordering::Relaxed);
        self.key.as_ref().map(|key| request::sign(key, self.run, &request, self.now(), nonce))
    }

    async fn failure(&self, answer: reqwest::Response) -> ClientError {
        let status = answer.status();
        let bytes = match body(&self.base, answer, limits::ANSWER_BYTES).await {
            Ok(bytes) => bytes,
            Err(error) => return error,
        };
        if status == StatusCode::FORBIDDEN
            && let Ok(gate) = serde_json::from_slice::<Gated>(&bytes)
        {
            return ClientError::Gated { gate };
        }
        let problem = serde_json::from_slice(&bytes).unwrap_or_else(|_| Problem {
            reason: "unknown".to_owned(),
            message: format!("the host answered {status}: {}", String::from_utf8_lossy(&bytes)),
            refusal: None,
            quota: None,
        });
        ClientError::Refused { status: status.as_u16(), problem }
    }

    /// Asks for JSON; tries again where the host is busy or away.
    pub(crate) async fn get<T: DeserializeOwned>(&self, target: &str) -> Result<T, ClientError> {
        let bytes = self.get_bytes(target, limits::REQUEST_TIMEOUT, limits::ANSWER_BYTES).await?;
        decode(&self.base, &bytes)
    }

    pub(crate) async fn get_bytes(
        &self,
        target: &str,
        timeout: Duration,
        limit: u64,
    ) -> Result<Bytes, ClientError> {
        let mut pause = limits::RETRY_MIN;
        for _ in 1..TRIES {
            match self.get_once(target, timeout, limit).await {
                Err(error) if error.is_transient() => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(limits::RETRY_MAX);
                }
                done => return done,
            }
        }
        self.get_once(target, timeout, limit).await
    }

    async fn get_once(&self, target: &str, timeout: Duration, limit: u64) -> Result<Bytes, ClientError> {
        let answer = self.send(Method::GET, target, Bytes::new(), timeout).await?;
        body(&self.base, answer, limit).await
    }

    /// Sends a body that changes something.
    pub(crate) async fn change<T: DeserializeOwned>(
        &self,
        method: Method,
        target: &str,
        bytes: Bytes,
        timeout: Duration,
    ) -> Result<T, ClientError> {
        self.key()?;
        let answer = self.send(method, target, bytes, timeout).await?;
        decode(&self.base, &body(&self.base, answer, limits::ANSWER_BYTES).await?)
    }

    /// States something; durable when this returns.
    ///
    /// # Errors
    /// The host refused, or could not be reached in several tries.
    pub async fn state(&self, statement: &Statement) -> Result<StatementAnswer, ClientError> {
        let mut answers = self.state_all(std::slice::from_ref(statement)).await?;
        answers.pop().unwrap_or_else(|| {
            let reason = "no answer to a statement".to_owned();
            Err(ClientError::Malformed { address: self.base.to_string(), reason })
        })
    }

    /// States several things at once, in this order: one answer each.
    ///
    /// # Errors
    /// The host could not be reached in several tries. What it refused stands in the answers.
    pub async fn state_all(
        &self,
        statements: &[Statement],
    ) -> Result<Vec<Result<StatementAnswer, ClientError>>, ClientError> {
        let key = self.key()?;
        let mut stated = self.stating.lock().await;
        let mut answers = Vec::with_capacity(statements.len());
        let mut rest = statements;
        let mut anew = 0;
        while !rest.is_empty() {
            let mut envelopes = Vec::new();
            let mut bytes = 0;
            for statement in rest.iter().take(limits::BATCH) {
                let body = wire::to_bytes(statement);
                bytes += body.len() + 256;
                if bytes > limits::BODY_BYTES && !envelopes.is_empty() {
                    break;
                }
                let nonce = self.nonce.fetch_add(1, Ordering::Relaxed);
                // The host's clock, measured anew, may be behind what was signed before.
                *stated = self.now().max(*stated);
                envelopes.push(Envelope::sign(key, self.run, STATEMENT_KIND, body, *stated, nonce));
            }
            let told = self.hand_in(&envelopes).await?;
            let stale = |answer: &Result<StatementAnswer, ClientError>| {
                answer.as_ref().is_err_and(|error| error.reason() == Some("replayed"))
            };
            // Another process with this key was faster: what it overtook is signed anew.
            let good = told.iter().position(stale).filter(|_| anew < TRIES).unwrap_or(told.len());
            if good < told.len() {
                anew += 1;
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            rest = &rest[good.min(rest.len())..];
            answers.extend(told.into_iter().take(good));
        }
        Ok(answers)
    }

    /// The same envelopes again are safe: what was accepted is acknowledged once more.
    async fn hand_in(
        &self,
        envelopes: &[Envelope],
    ) -> Result<Vec<Result<StatementAnswer, ClientError>>, ClientError> {
        let bytes = Bytes::from(wire::to_bytes(&envelopes));
        let mut pause = limits::RETRY_MIN;
        let mut tries = 0;
        let told: Vec<crate::model::BatchAnswer> = loop {
            let sent =
                self.change(Method::POST, "/v1/statements/batch", bytes.clone(), limits::REQUEST_TIMEOUT);
            match sent.await {
                Err(error) if error.is_transient() && tries < TRIES => {
                    tries += 1;
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(limits::RETRY_MAX);
                }
                done => break done?,
            }
        };
        if told.len() != envelopes.len() {
            let reason = format!("{} answers to {} statements", told.len(), envelopes.len());
            return Err(ClientError::Malformed { address: self.base.to_string(), reason });
        }
        let refused = |answer: crate::model::BatchAnswer| match (answer.accepted, answer.problem) {
            (Some(accepted), _) => Ok(accepted),
            (None, Some(problem)) => Err(ClientError::Refused { status: answer.status, problem }),
            (None, None) => {
                let reason = "an empty answer to a statement".to_owned();
                Err(ClientError::Malformed { address: self.base.to_string(), reason })
            }
        };
        Ok(told.into_iter().map(refused).collect())
    }

    /// Uploads bytes under their hash.
    ///
    /// # Errors
    /// The host refused or is away.
    pub async fn upload(&self, target: &str, bytes: Bytes) -> Result<UploadAnswer, ClientError> {
        // The host ends what comes too slowly; a line that is dead, the client itself.
        let most = limits::UPLOAD_STALL * limits::UPLOAD_SPANS as u32;
        self.change(Method::PUT, target, bytes, most).await
    }
}

/// A body that is sent part by part, so that an answer that comes before its end is seen: in one piece it would be written
/// for as long as the host takes it, and a refusal behind which the host hangs up would be lost.
fn in_parts(mut body: Bytes) -> reqwest::Body {
    let parts = std::iter::from_fn(move || {
        let len = body.len().min(limits::SENT_PART_BYTES);
        (len > 0).then(|| Ok::<_, std::convert::Infallible>(body.split_to(len)))
    });
    reqwest::Body::wrap_stream(futures_util::stream::iter(parts))
}

fn unreachable(base: &Url, error: &reqwest::Error) -> ClientError {
    use std::error::Error;
    let mut reason = error.to_string();
    let mut cause = error.source();
    while let Some(deeper) = cause {
        reason = deeper.to_string();
        cause = deeper.source();
    }
    ClientError::Unreachable { address: base.to_string(), reason }
}

fn decode<T: DeserializeOwned>(base: &Url, bytes: &[u8]) -> Result<T, ClientError> {
    serde_json::from_slice(bytes)
        .map_err(|error| ClientError::Malformed { address: base.to_string(), reason: error.to_string() })
}

/// The whole body, bounded.
async fn body(base: &Url, mut answer: reqwest::Response, limit: u64) -> Result<Bytes, ClientError> {
    let mut all = bytes::BytesMut::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| unreachable(base, &error))? {
        if (all.len() + chunk.len()) as u64 > limit {
            let reason = format!("longer than {limit} bytes");
            return Err(ClientError::Malformed { address: base.to_string(), reason });
        }
        all.extend_from_slice(&chunk);
    }
    Ok(all.freeze())
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("base", &self.base.as_str()).finish_non_exhaustive()
    }
}
