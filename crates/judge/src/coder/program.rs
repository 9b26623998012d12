//! A Python or native program that speaks the HTTP contract of Apex's solutions, one jail per side.
//!
//! It is started as `solution.py --host 127.0.0.1 --port 8080` (or the executable itself) on the loopback of its own
//! network namespace, after the command of the spec that prepares it, if there is one. A process keeps what it has seen, so
//! it is watched by order and repetition; a component is not even able to.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use arena::account::Usage;
use arena::measure::Failure;
use arena::spec::Form;
use tempfile::TempDir;

use super::{Answer, Coder, Meta, Side, Stop, nanos};
use crate::archive::{self, UnpackError};
use crate::blame::{Seen, Watch};
use crate::environment::Environment;
use crate::error::JudgeError;
use crate::http::{self, HttpError};
use crate::judge::{Case, Code, Judge};
use crate::limits;
use crate::mode::set_mode;

/// Port inside the jail.
const PORT: u16 = 8080;
/// Variable that says which side a jail is for: `compress`, `decompress`, `run`.
const SIDE: &str = "SHOAL_SIDE";
/// First word of a command that means the environment's interpreter.
const PYTHON: &str = "python";
/// Folder of the entry inside the jail.
const ENTRY: &str = "/entry";

/// What a program is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Contract {
    /// `/compress` and `/decompress`.
    Codec,
    /// `/run`.
    Answer,
    /// `/measure` with two fields, and `/generate`.
    Evaluator,
}

impl Contract {
    fn path(self, side: Side) -> &'static str {
        match (self, side) {
            (Self::Codec, Side::Compress) => "/compress",
            (Self::Codec, Side::Decompress) => "/decompress",
            (Self::Answer, _) => "/run",
            (Self::Evaluator, Side::Compress) => "/measure",
            (Self::Evaluator, Side::Decompress) => "/generate",
        }
    }

    fn fields(self, side: Side, data: &[u8]) -> Vec<(&'static str, &[u8])> {
        if (self, side) != (Self::Evaluator, Side::Compress) {
            return vec![("file", data)];
        }
        // Length of the input, input, answer: made by the kind itself.
        let (head, rest) = data.split_first_chunk::<8>().unwrap_or((&[0; 8], data));
        let (input, answer) =
            rest.split_at_checked(u64::from_le_bytes(*head) as usize).unwrap_or((rest, &[]));
        vec![("input", input), ("answer", answer)]
    }
}

/// A program with a jail for each side, started when first called.
#[derive(Debug)]
pub(crate) struct ProgramCoder {
    machine: sandbox::Machine,
    program: sandbox::Program,
    contract: Contract,
    startup: Duration,
    call: Duration,
    /// Of the whole evaluation: no call lasts beyond it.
    deadline: Instant,
    sides: [Option<sandbox::Jail>; 2],
    written: String,
    /// Processors that the spec promises.
    cpus: f64,
    /// What the machine did during its calls.
    seen: Seen,
    /// Of jails that have ended.
    usage: Usage,
    /// Holds the code while jails see it.
    _folder: TempDir,
}

impl ProgramCoder {
    pub(crate) fn new(
        judge: &Judge,
        case: &Case<'_>,
        code: Code<'_>,
        contract: Contract,
        deadline: Instant,
    ) -> Result<Self, Stop> {
        let machine = judge.machine()?.clone();
        let environment = judge.environment(case)?;
        let (folder, name) = unpack(code)?;
        let resources = &case.spec.resources;
        let lease = Duration::from_secs(case.spec.judges.lease_s);
        let cpus = f64::from(resources.cpu_milli) / 1000.0;
        let mut argv = Vec::new();
        let mut mounts = vec![sandbox::Mount { from: folder.path().to_owned(), to: ENTRY.into() }];
        // An evaluator or a generator is the opener's own: it needs nobody to prepare it.
        let mut prepare =
            if contract == Contract::Evaluator { Vec::new() } else { resources.prepare.clone() };
        if code.form == Form::Python || prepare.first().is_some_and(|word| word == PYTHON) {
            mounts.extend(environment.in_jail());
        }
        if code.form == Form::Python {
            argv.push(environment.python());
        }
        if let Some(word) = prepare.first_mut().filter(|word| *word == PYTHON) {
            *word = environment.python();
        }
        argv.extend([format!("{ENTRY}/{name}"), "--host".into(), "127.0.0.1".into()]);
        argv.extend(["--port".to_owned(), PORT.to_string()]);
        let mut program = sandbox::Program::new(argv);
        program.prepare = prepare;
        program.env = environment.variables();
        program.mounts = mounts;
        program.folder = ENTRY.into();
        program.limits = sandbox::JailLimits {
            memory_bytes: resources.memory_bytes,
            processes: u64::from(resources.processes),
            cpu: lease.mul_f64(cpus.max(1.0)),
            wall: lease + Duration::from_secs(resources.startup_s),
            cpus: Some(cpus as f32),
            disk_bytes: resources.disk_bytes,
            ..sandbox::JailLimits::default()
        };
        Ok(Self {
            machine,
            program,
            contract,
            startup: Duration::from_secs(resources.startup_s),
            call: Duration::from_secs(resources.call_s),
            deadline,
            sides: [None, None],
            written: String::new(),
            cpus,
            seen: Seen::default(),
            usage: Usage::default(),
            _folder: folder,
        })
    }

    /// The jail of a side, ready to answer.
    fn jail(&mut self, side: Side) -> Result<&sandbox::Jail, Stop> {
        let place = side as usize;
        if self.sides[place].is_none() {
            let mut program = self.program.clone();
            if !program.prepare.is_empty() {
                program.env.push((SIDE.to_owned(), self.contract.path(side)[1..].to_owned()));
            }
            let jail = self.machine.start(&program).map_err(|error| Stop::host(&error))?;
            let until = (Instant::now() + self.startup).min(self.deadline);
            let watch = Watch::start(&jail);
            self.sides[place] = Some(jail);
            if let Err(stop) = self.healthy(place, until) {
                let late = Instant::now() >= until
                    && self.sides[place].as_ref().is_some_and(|jail| jail.ended().is_none());
                let seen = self.sides[place].as_ref().map(|jail| watch.seen(jail)).unwrap_or_default();
                if late && seen.starved(self.cpus) {
                    return Err(JudgeError::Busy { what: "the start of a program" }.into());
                }
                return Err(self.explain(place, stop));
            }
        }
        self.sides[place].as_ref().ok_or_else(|| Stop::Entry(Failure::Startup, String::new()))
    }

    /// Asks for its health until it answers.
    fn healthy(&self, place: usize, until: Instant) -> Result<(), Stop> {
        let Some(jail) = &self.sides[place] else { return Ok(()) };
        loop {
            let mut stream = connect(jail, until)?;
            match http::get(&mut stream, "/health", until) {
                Ok(true) => return Ok(()),
                Ok(false) if Instant::now() < until && jail.ended().is_none() => {
                    std::thread::sleep(HEALTH_RETRY);
                }
                Ok(false) => return Err(Stop::Entry(Failure::Startup, "/health is not 200".to_owned())),
                Err(error) => return Err(Stop::Entry(Failure::Startup, format!("/health: {error}"))),
            }
        }
    }

    /// If the program has ended, its end says more than the broken connection.
    fn explain(&mut self, place: usize, stop: Stop) -> Stop {
        let Stop::Entry(failure, reason) = stop else { return stop };
        let Some(jail) = self.sides[place].take() else { return Stop::Entry(failure, reason) };
        let until = Instant::now() + END_NOTICE;
        // A process that was killed for memory drops its connection first and is counted after.
        while jail.ended().is_none() && failure != Failure::Time && Instant::now() < until {
            std::thread::sleep(HEALTH_RETRY);
        }
        match jail.stop() {
            Err(error) => Stop::host(&error),
            Ok(report) => {
                self.written.push_str(&String::from_utf8_lossy(&report.stderr));
                self.usage.add(&of_report(&report.usage));
                match (report.failed(), report.end) {
                    (Some(failed), _) => Stop::failed(failed),
                    (None, sandbox::End::Exited(code)) if failure != Failure::OutputTooLarge => {
                        let end = format!("the program has exited with code {code}");
                        let before = if reason == end { String::new() } else { format!("{reason}; ") };
                        Stop::Entry(Failure::Trap, format!("{before}{end}"))
                    }
                    (None, _) => Stop::Entry(failure, format!("{reason} {}", report.note)),
                }
            }
        }
    }

    fn ask(&mut self, side: Side, data: &[u8], most: usize) -> Result<Answer, Stop> {
        let (call, contract, deadline) = (self.call, self.contract, self.deadline);
        let jail = self.jail(side)?;
        let watch = Watch::start(jail);
        let before = jail.usage().cpu;
        let until = (Instant::now() + call).min(deadline);
        let posted = connect(jail, until).and_then(|mut stream| {
            let fields = contract.fields(side, data);
            http::post(&mut stream, contract.path(side), &fields, most, until)
                .map_err(|error: HttpError| Stop::Entry(error.failure(), error.to_string()))
        });
        let (seen, late) = (watch.seen(jail), Instant::now() >= until && jail.ended().is_none());
        self.seen.add(&seen);
        if late && posted.is_err() && seen.starved(self.cpus) {
            return Err(JudgeError::Busy { what: "a call of a program" }.into());
        }
        let bytes = posted?;
        let jail = self.jail(side)?;
        let time_ns = settled(jail).saturating_sub(before).as_nanos() as u64;
        Ok(Answer { bytes, fuel: 0, time_ns })
    }
}

/// Processor time of a jail once it stands still: work behind the answer belongs to the call, and the kernel counts what
/// runs only at its next tick.
fn settled(jail: &sandbox::Jail) -> Duration {
    let mut last = jail.usage().cpu;
    for _ in 0..limits::SETTLES_MAX {
        std::thread::sleep(Duration::from_millis(limits::SETTLE_MS));
        let now = jail.usage().cpu;
        if now.saturating_sub(last) < Duration::from_nanos(limits::SETTLED_NS) {
            return now;
        }
        last = now;
    }
    last
}

/// Between two questions for a program's health or end.
const HEALTH_RETRY: Duration = Duration::from_millis(10);
/// How long a program whose connection broke has to be seen as ended.
const END_NOTICE: Duration = Duration::from_millis(500);

fn connect(jail: &sandbox::Jail, until: Instant) -> Result<TcpStream, Stop> {
    let left = until.saturating_duration_since(Instant::now());
    let stream = jail.connect_tcp(PORT, left).map_err(Stop::from_sandbox)?;
    // Small heads wait for nobody.
    _ = stream.set_nodelay(true);
    Ok(stream)
}

impl Coder for ProgramCoder {
    fn call(&mut self, side: Side, data: &[u8], _meta: &Meta, most: usize) -> Result<Answer, Stop> {
        self.ask(side, data, most).map_err(|stop| self.explain(side as usize, stop))
    }

    fn has_fuel(&self) -> bool {
        false
    }

    fn starved(&self) -> bool {
        self.seen.starved(self.cpus)
    }

    fn usage(&self) -> Usage {
        self.usage
    }

    fn written(&mut self) -> String {
        for jail in self.sides.iter_mut().filter_map(Option::take) {
            if let Ok(report) = jail.stop() {
                self.written.push_str(&String::from_utf8_lossy(&report.stderr));
                self.usage.add(&of_report(&report.usage));
            }
        }
        let tail = self.written.len().saturating_sub(limits::LOG_BYTES_MAX / 2);
        let tail = (tail..=self.written.len()).find(|at| self.written.is_char_boundary(*at)).unwrap_or(0);
        self.written.split_off(tail)
    }
}

fn of_report(usage: &sandbox::Usage) -> Usage {
    Usage {
        cpu_ns: nanos(usage.cpu),
        wall_ns: nanos(usage.wall),
        memory_peak_bytes: usage.memory_peak_bytes,
        processes_peak: u32::try_from(usage.processes_peak).unwrap_or(u32::MAX),
        disk_peak_bytes: usage.disk_peak_bytes,
        fuel: 0,
    }
}

/// Writes the code, one file or an archive of several, to a folder that a jail can see; the program's name there.
pub(crate) fn unpack(code: Code<'_>) -> Result<(TempDir, &'static str), Stop> {
    let failed = |path: &Path, source| Stop::Judge(JudgeError::File { path: path.to_owned(), source });
    let folder = tempfile::Builder::new()
        .prefix("shoal-entry-")
        .tempdir()
        .map_err(|error| failed(&std::env::temp_dir(), error))?;
    let open = |path: &Path| set_mode(path, 0o755).map_err(|error| failed(path, error));
    open(folder.path())?;
    let name = if code.form == Form::Python { archive::PYTHON } else { archive::NATIVE };
    let path: PathBuf = folder.path().join(name);
    if archive::is_archive(code.bytes) {
        archive::unpack(code.bytes, folder.path(), name).map_err(|error| match error {
            UnpackError::Archive(error) => Stop::Entry(Failure::Invalid, error.to_string()),
            UnpackError::File(path, error) => failed(&path, error),
        })?;
    } else {
        std::fs::write(&path, code.bytes).map_err(|error| failed(&path, error))?;
        open(&path)?;
    }
    Ok((folder, name))
}

/// What the jail of Python programs sees beside the entry.
pub(crate) trait InJail {
    fn python(&self) -> String;
    fn in_jail(&self) -> Vec<sandbox::Mount>;
    fn variables(&self) -> Vec<(String, String)>;
}

impl InJail for Environment {
    fn python(&self) -> String {
        self.interpreter().display().to_string()
    }

    fn in_jail(&self) -> Vec<sandbox::Mount> {
        let mount = |(from, to): &(PathBuf, PathBuf)| sandbox::Mount { from: from.clone(), to: to.clone() };
        self.mounts().iter().map(mount).collect()
    }

    fn variables(&self) -> Vec<(String, String)> {
        // The entry's folder is read-only; nothing is looked up in a home folder.
        [
            ("PYTHONDONTWRITEBYTECODE", "1"),
            ("PYTHONNOUSERSITE", "1"),
            ("PYTHONUNBUFFERED", "1"),
            ("PYTHONHASHSEED", "0"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }
}
