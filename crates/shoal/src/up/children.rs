//! Child processes: started, watched, started again when they die, ended with their parent.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::failure::BAD_INPUT;

/// First pause before a process is started again; doubles each time.
const PAUSE_MIN: Duration = Duration::from_millis(250);
/// Longest pause before a process is started again.
const PAUSE_MAX: Duration = Duration::from_secs(8);
/// A process that lived this long starts with the first pause again.
const STEADY: Duration = Duration::from_secs(30);
/// Starts in a row, each short-lived, after which the run is given up.
const STARTS_MAX: u32 = 6;
/// Longest line of a child, bytes.
const LINE_BYTES_MAX: u64 = 4 << 20;
/// News waiting for `up`.
const NEWS_QUEUE: usize = 1024;
/// Longest part of a line that is remembered as a child's last words, bytes.
const WORDS_BYTES: usize = 4096;

/// A process to run.
#[derive(Clone, Debug)]
pub(super) struct ChildSpec {
    /// Its name, also of its log file.
    pub(super) name: String,
    /// Arguments of this program.
    pub(super) args: Vec<OsString>,
    /// Whether its standard output is of interest.
    pub(super) events: bool,
}

/// How to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// Go on, start again what dies.
    No,
    /// Go on, but a node that ends has ended.
    LetEnd,
    /// Kill.
    AtOnce,
}

/// What happened.
#[derive(Debug)]
pub(super) enum News {
    /// A line of a child's standard output.
    Line(String),
    /// A child died and is about to be started again.
    Restarting {
        /// Its name.
        name: String,
        /// How it died.
        reason: String,
    },
    /// A child ended as it should.
    Ended {
        /// Its name.
        name: String,
    },
    /// A child cannot be kept alive.
    Failed {
        /// Its name.
        name: String,
        /// Why.
        reason: String,
        /// Its exit code.
        code: Option<u8>,
    },
    /// No child is left.
    AllEnded,
}

/// The children of this process.
#[derive(Debug)]
pub(super) struct Children {
    logs: PathBuf,
    tasks: JoinSet<()>,
    news: mpsc::Receiver<News>,
    sender: mpsc::Sender<News>,
    stop: watch::Sender<Stop>,
    interrupted: watch::Sender<Vec<String>>,
}

impl Children {
    /// No children yet; their logs go to `logs`.
    pub(super) fn new(logs: PathBuf) -> Result<Self> {
        std::fs::create_dir_all(&logs)
            .with_context(|| format!("cannot make the folder {}", logs.display()))?;
        let (sender, news) = mpsc::channel(NEWS_QUEUE);
        let (stop, interrupted) = (watch::Sender::new(Stop::No), watch::Sender::new(Vec::new()));
        Ok(Self { logs, tasks: JoinSet::new(), news, sender, stop, interrupted })
    }

    /// Starts a process and keeps it alive.
    pub(super) fn start(&mut self, spec: ChildSpec) {
        let keeper = Keeper {
            log: self.logs.join(format!("{}.log", spec.name)),
            spec,
            words: Arc::default(),
            news: self.sender.clone(),
            stop: self.stop.subscribe(),
            interrupted: self.interrupted.subscribe(),
        };
        self.tasks.spawn(keeper.keep());
    }

    /// The next thing that happens.
    pub(super) async fn next(&mut self) -> News {
        loop {
            tokio::select! {
                biased;
                Some(news) = self.news.recv() => return news,
                joined = self.tasks.join_next() => {
                    if joined.is_none() {
                        return self.news.try_recv().unwrap_or(News::AllEnded);
                    }
                }
            }
        }
    }

    /// From here on whoever ends is not started again, but for the one that tells the events.
    pub(super) fn let_end(&self) {
        self.stop.send_if_modified(|stop| {
            let first = *stop == Stop::No;
            if first {
                *stop = Stop::LetEnd;
            }
            first
        });
    }

    /// Asks one child to end in good order; it is not started again.
    pub(super) fn interrupt(&self, name: &str) {
        self.interrupted.send_modify(|names| names.push(name.to_owned()));
    }

    /// Kills all children and waits until they are gone.
    pub(super) async fn kill(&mut self) {
        self.stop.send_replace(Stop::AtOnce);
        self.news.close();
        while self.tasks.join_next().await.is_some() {}
    }
}

/// Keeps one process alive.
struct Keeper {
    spec: ChildSpec,
    log: PathBuf,
    /// The last line that it wrote to its standard error.
    words: Arc<Mutex<String>>,
    news: mpsc::Sender<News>,
    stop: watch::Receiver<Stop>,
    interrupted: watch::Receiver<Vec<String>>,
}

impl Keeper {
    async fn keep(mut self) {
        let name = self.spec.name.clone();
        let mut pause = PAUSE_MIN;
        let mut short_lives = 0;
        loop {
            let born = Instant::now();
            let ended = match self.live().await {
                Ok(ended) => ended,
                Err(error) => {
                    let reason = format!("could not be started: {error:#}");
                    return self.tell(News::Failed { name, reason, code: None }).await;
                }
            };
            let stop = *self.stop.borrow();
            if stop == Stop::AtOnce {
                return;
            }
            // Whoever tells the events ends by itself: its last one is the summary.
            let let_end = stop == Stop::LetEnd && !self.spec.events;
            if ended.success() || let_end || self.asked_to_end() {
                return self.tell(News::Ended { name }).await;
            }
            if born.elapsed() >= STEADY {
                (pause, short_lives) = (PAUSE_MIN, 0);
            }
            short_lives += 1;
            let reason = format!("{}{}", how(ended), self.last_words());
            let code = ended.code().and_then(|code| u8::try_from(code).ok());
            if code == Some(BAD_INPUT) || short_lives >= STARTS_MAX {
                return self.tell(News::Failed { name, reason, code }).await;
            }
            self.tell(News::Restarting { name: name.clone(), reason }).await;
            let events = self.spec.events;
            let over = self.stop.wait_for(|stop| match stop {
                Stop::No => false,
                Stop::LetEnd => !events,
                Stop::AtOnce => true,
            });
            if tokio::time::timeout(pause, over).await.is_ok() {
                return self.tell(News::Ended { name }).await;
            }
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    async fn tell(&self, news: News) {
        // Nobody listens any more once everything is stopped.
        let _ = self.news.send(news).await;
    }

    fn asked_to_end(&self) -> bool {
        self.interrupted.borrow().contains(&self.spec.name)
    }

    /// One life of the process.
    async fn live(&mut self) -> Result<ExitStatus> {
        self.words.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let mut child = self.spawn()?;
        // Dropped only when this process is gone or the child is: the child reads it until it ends.
        let held_open = child.stdin.take();
        let mut readers = JoinSet::new();
        if let Some(stdout) = child.stdout.take() {
            readers.spawn(read(stdout, self.news.clone()));
        }
        if let Some(stderr) = child.stderr.take() {
            readers.spawn(keep_log(stderr, self.log.clone(), Arc::clone(&self.words)));
        }
        if self.asked_to_end() {
            interrupt(&child);
        }
        let status = loop {
            tokio::select! {
                status = child.wait() => break status?,
                changed = self.stop.changed() => {
                    if changed.is_err() || *self.stop.borrow() == Stop::AtOnce {
                        child.start_kill()?;
                        break child.wait().await?;
                    }
                }
                changed = self.interrupted.changed() => {
                    if changed.is_ok() && self.asked_to_end() {
                        interrupt(&child);
                    }
                }
            }
        };
        drop(held_open);
        // Its last lines count, but nobody may hold the pipes open for ever.
        let all = async { while readers.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(Duration::from_secs(5), all).await;
        readers.detach_all();
        Ok(status)
    }

    fn spawn(&self) -> Result<Child> {
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut command = Command::new(program);
        command
            .args(&self.spec.args)
            .stdin(Stdio::piped())
            .stdout(if self.spec.events { Stdio::piped() } else { Stdio::null() })
            // Not the log file itself: on a full disk the reason would be lost.
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        // Ctrl-C on the terminal is for this process, which then tells the children what to do.
        #[cfg(unix)]
        command.process_group(0);
        if std::env::var_os("SHOAL_LOG").is_none() {
            command.env("SHOAL_LOG", "info");
        }
        Ok(command.spawn()?)
    }

    /// The last line of its standard error.
    fn last_words(&self) -> String {
        let line = self.words.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let error = serde_json::from_str::<serde_json::Value>(&line).ok();
        let error = error.as_ref().and_then(|told| told.get("error")?.as_str());
        let line = error.unwrap_or_else(|| line.strip_prefix("shoal: ").unwrap_or(&line));
        if line.is_empty() { String::new() } else { format!(": {line} (see {})", self.log.display()) }
    }
}

#[cfg(unix)]
fn interrupt(child: &Child) {
    use rustix::process::{Pid, Signal};
    let pid = child.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    if let Some(pid) = pid
        && let Err(error) = rustix::process::kill_process(pid, Signal::INT)
    {
        tracing::debug!(%error, "already gone");
    }
}

/// `up` does not run there.
#[cfg(not(unix))]
fn interrupt(_: &Child) {}

fn how(status: ExitStatus) -> String {
    #[cfg(unix)]
    if let Some(signal) = std::os::unix::process::ExitStatusExt::signal(&status) {
        return format!("was killed by signal {signal}");
    }
    status.code().map_or_else(|| "died".to_owned(), |code| format!("ended with code {code}"))
}

/// Appends a child's standard error to its log, as long as the disk takes it, and remembers the last line.
async fn keep_log(stderr: tokio::process::ChildStderr, path: PathBuf, words: Arc<Mutex<String>>) {
    let open = tokio::fs::OpenOptions::new().create(true).append(true).open(&path).await;
    let mut log = open.inspect_err(|error| tracing::warn!(%error, log = %path.display(), "no log")).ok();
    let mut input = BufReader::new(stderr);
    loop {
        let mut line = Vec::new();
        match (&mut input).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        if let Some(log) = &mut log {
            // Written at once, so that whoever looks sees it. What a full disk does not take is lost.
            let _ = log.write_all(&line).await;
            let _ = log.flush().await;
        }
        let text = String::from_utf8_lossy(&line[..line.len().min(WORDS_BYTES)]).trim().to_owned();
        if !text.is_empty() {
            *words.lock().unwrap_or_else(PoisonError::into_inner) = text;
        }
    }
}

/// Hands on lines until the pipe ends.
async fn read(stdout: tokio::process::ChildStdout, news: mpsc::Sender<News>) {
    let mut input = BufReader::new(stdout);
    loop {
        let mut line = Vec::new();
        match (&mut input).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let line = String::from_utf8_lossy(&line).trim().to_owned();
        if !line.is_empty() && news.send(News::Line(line)).await.is_err() {
            return;
        }
    }
}
