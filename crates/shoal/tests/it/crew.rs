//! The processes of one run in the test's own hand: started, heard, killed, started again.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::binary::{DEADLINE, Place};

/// Lines of a process that are kept for the message of a failed test.
const KEPT_LINES: usize = 40;
/// Pause between two looks at a process that is about to end: the system offers no event that a deadline fits.
const LOOK: Duration = Duration::from_millis(20);

/// A line that a process wrote, to either of its outputs.
#[derive(Debug)]
pub(crate) struct Said {
    /// Which process.
    pub(crate) member: usize,
    pub(crate) line: String,
}

impl Said {
    /// The line as an event of the orchestrator.
    pub(crate) fn event(&self) -> Option<Value> {
        let event: Value = serde_json::from_str(&self.line).ok()?;
        event.get("event")?;
        Some(event)
    }

    /// The line as the event of this name.
    pub(crate) fn is(&self, name: &str) -> Option<Value> {
        self.event().filter(|event| event["event"] == name)
    }
}

/// One process, in this or an earlier life.
struct Member {
    name: String,
    /// What it is started through, and its arguments.
    command: Vec<String>,
    child: Option<Child>,
    newest: VecDeque<String>,
}

/// All processes of a run; killed when dropped.
pub(crate) struct Crew {
    pub(crate) place: Place,
    /// What they log to stderr.
    log: &'static str,
    members: Vec<Member>,
    sender: Sender<Said>,
    said: Receiver<Said>,
}

impl Crew {
    pub(crate) fn new(place: Place, log: &'static str) -> Self {
        let (sender, said) = channel();
        Self { place, log, members: Vec::new(), sender, said }
    }

    /// Starts `shoal` with `args`, through `wrapper` if that is not empty; returns its number.
    pub(crate) fn start(&mut self, name: &str, wrapper: &[&str], args: &[&str]) -> usize {
        let program = [env!("CARGO_BIN_EXE_shoal"), "--child"];
        let command = wrapper.iter().chain(&program).chain(args).map(|part| (*part).to_owned()).collect();
        let name = name.to_owned();
        self.members.push(Member { name, command, child: None, newest: VecDeque::new() });
        self.start_again(self.members.len() - 1);
        self.members.len() - 1
    }

    /// Gives a process that has ended its next life.
    pub(crate) fn start_again(&mut self, member: usize) {
        let Member { command, child, .. } = &mut self.members[member];
        assert!(child.is_none(), "it lives");
        let mut started = Command::new(&command[0])
            .args(&command[1..])
            .current_dir(self.place.path("."))
            .env("SHOAL_LOG", self.log)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("shoal starts");
        self.sender.send_lines(member, started.stdout.take().expect("piped"));
        self.sender.send_lines(member, started.stderr.take().expect("piped"));
        *child = Some(started);
    }

    pub(crate) fn name(&self, member: usize) -> &str {
        &self.members[member].name
    }

    pub(crate) fn is_alive(&self, member: usize) -> bool {
        self.members[member].child.is_some()
    }

    pub(crate) fn id(&self, member: usize) -> u32 {
        self.members[member].child.as_ref().expect("it lives").id()
    }

    /// Kills with -9 and waits until it is gone.
    pub(crate) fn kill(&mut self, member: usize) {
        let mut child = self.members[member].child.take().expect("it lives");
        child.kill().expect("it can be killed");
        child.wait().expect("it is dead");
    }

    /// As Ctrl-C does.
    pub(crate) fn interrupt(&self, member: usize) {
        let id = self.id(member).to_string();
        assert!(Command::new("kill").args(["-INT", &id]).status().expect("kill runs").success());
    }

    /// The next line of anybody, if there is one within `patience`. No process may end by itself meanwhile.
    pub(crate) fn next(&mut self, patience: Duration) -> Option<Said> {
        let Ok(said) = self.said.recv_timeout(patience) else {
            for member in 0..self.members.len() {
                let ended = self.members[member].child.as_mut().map(|child| child.try_wait().expect("known"));
                assert!(!matches!(ended, Some(Some(_))), "it ended by itself: {}", self.tail(member));
            }
            return None;
        };
        self.keep(&said);
        Some(said)
    }

    fn keep(&mut self, said: &Said) {
        let newest = &mut self.members[said.member].newest;
        if newest.len() == KEPT_LINES {
            newest.pop_front();
        }
        newest.push_back(said.line.clone());
        assert!(!said.line.contains("panicked"), "{}", self.tail(said.member));
    }

    /// Hears everybody until `holds` gives something.
    pub(crate) fn until<T>(&mut self, what: &str, mut holds: impl FnMut(&Said) -> Option<T>) -> T {
        let deadline = Instant::now() + DEADLINE;
        while Instant::now() < deadline {
            if let Some(found) = self.next(Duration::from_millis(200)).and_then(|said| holds(&said)) {
                return found;
            }
        }
        panic!("waited in vain for {what}\n{}", self.tails());
    }

    /// Waits for the end of a process; what all of them say meanwhile goes to `hear`.
    pub(crate) fn end(&mut self, member: usize, mut hear: impl FnMut(&Said)) -> ExitStatus {
        let deadline = Instant::now() + DEADLINE;
        let mut child = self.members[member].child.take().expect("it lives");
        let status = loop {
            while let Ok(said) = self.said.recv_timeout(LOOK) {
                self.keep(&said);
                hear(&said);
            }
            if let Some(status) = child.try_wait().expect("known") {
                break status;
            }
            if Instant::now() > deadline {
                drop(child.kill());
                panic!("{} does not end\n{}", self.name(member), self.tails());
            }
        };
        while let Ok(said) = self.said.recv_timeout(LOOK) {
            self.keep(&said);
            hear(&said);
        }
        status
    }

    /// The newest lines of a process.
    pub(crate) fn tail(&self, member: usize) -> String {
        let Member { name, newest, .. } = &self.members[member];
        let lines: Vec<&str> = newest.iter().map(String::as_str).collect();
        format!("{name}:\n  {}", lines.join("\n  "))
    }

    pub(crate) fn tails(&self) -> String {
        let tails: Vec<String> = (0..self.members.len()).map(|member| self.tail(member)).collect();
        tails.join("\n")
    }
}

trait Lines {
    fn send_lines(&self, member: usize, from: impl Read + Send + 'static);
}

impl Lines for Sender<Said> {
    /// Whole lines only: a process that is killed may leave half of one.
    fn send_lines(&self, member: usize, from: impl Read + Send + 'static) {
        let sender = self.clone();
        std::thread::spawn(move || {
            let mut from = BufReader::new(from);
            let mut line = String::new();
            while from.read_line(&mut line).is_ok_and(|read| read > 0) && line.ends_with('\n') {
                let said = Said { member, line: std::mem::take(&mut line).trim_end().to_owned() };
                if sender.send(said).is_err() {
                    return;
                }
            }
        });
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        for member in &mut self.members {
            if let Some(child) = &mut member.child {
                drop(child.kill());
                drop(child.wait());
            }
        }
    }
}
