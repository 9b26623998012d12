//! A judge's workplace: the WebAssembly runtime, the jail, compiled components, environments. It evaluates one entry at a
//! time per call and may be shared by threads.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use arena::measure::{Failure, Outcome, Verdict, Wall};
use arena::spec::{CompetitionSpec, Form, Source};
use wire::Hash;

use crate::blame::GivenBack;
use crate::coder::{Coder, ComponentCoder, Contract, ProgramCoder, Stop};
use crate::environment::Environment;
use crate::error::JudgeError;
use crate::form::{self, FormError};
use crate::input::Input;
use crate::kind::{self, Measured};
use crate::limits;
use crate::log::RunLog;
use crate::machine;

/// Code of an entry, a baseline, an evaluator or a generator.
#[derive(Clone, Copy, Debug)]
pub struct Code<'a> {
    /// What it is.
    pub form: Form,
    /// A component, a Python source file, a native executable, or a zip of a program's folder.
    pub bytes: &'a [u8],
}

impl<'a> Code<'a> {
    /// Code of the form that its first bytes tell, which the file's name must not contradict: see [`form::tell`].
    ///
    /// # Errors
    /// It is of no form, or its name says that it is of another.
    pub fn of(name: Option<&str>, bytes: &'a [u8]) -> Result<Self, FormError> {
        Ok(Self { form: form::tell(name, bytes)?, bytes })
    }

    /// The generator or evaluator that a spec names by its hash.
    pub fn reference(bytes: &'a [u8]) -> Result<Self, JudgeError> {
        Self::of(None, bytes).map_err(|error| JudgeError::Reference {
            what: "generator or evaluator",
            reason: error.to_string(),
        })
    }
}

/// One entry before one round.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// Spec of the competition.
    pub spec: &'a CompetitionSpec,
    /// Seed of the round: makes inputs where a generator does, and shuffles calls.
    pub seed: Hash,
    /// What is judged.
    pub entry: Code<'a>,
    /// What it is timed beside. None for the baseline itself.
    pub baseline: Option<Code<'a>>,
    /// Code that the spec names under `inputs`: a generator or an evaluator.
    pub reference: Option<Code<'a>>,
    /// Lock file of the environment that the spec names.
    pub environment: Option<&'a [u8]>,
}

/// What judging an entry gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    /// The verdict; its `log` is the hash of [`Evaluation::log`].
    pub verdict: Verdict,
    /// The log, to be stored as a blob.
    pub log: Vec<u8>,
    /// What the judge itself took besides the entry and the baseline.
    pub cost: Cost,
}

/// Processor time of an evaluation, nanoseconds of this thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Calls of the entry.
    pub entry_ns: u64,
    /// Calls of the baseline, where it was timed beside the entry.
    pub baseline_ns: u64,
    /// Everything, those included, without compiling and starting.
    pub total_ns: u64,
}

impl Cost {
    /// The judge's own share of what the entry took.
    pub fn overhead(&self) -> f64 {
        let own = self.total_ns.saturating_sub(self.entry_ns + self.baseline_ns);
        own as f64 / self.entry_ns.max(1) as f64
    }
}

/// How a judge is set up.
#[derive(Clone, Debug)]
pub struct Setup {
    /// How children of the sandbox are started.
    pub child: sandbox::Child,
    /// Folder for compiled components and environments; none: nothing is kept.
    pub cache: Option<PathBuf>,
}

/// A judge.
#[derive(Debug)]
pub struct Judge {
    setup: Setup,
    runtime: sandbox::Runtime,
    compiled: Mutex<BTreeMap<Hash, sandbox::Codec>>,
    machine: OnceLock<Result<sandbox::Machine, String>>,
    building: Mutex<()>,
    /// How often an entry, under a spec, was given back since this machine was busy.
    given_back: Mutex<GivenBack>,
}

impl Judge {
    /// Starts the runtime.
    pub fn new(setup: Setup) -> Result<Self, JudgeError> {
        let cache = setup.cache.as_ref().map(|folder| folder.join("components"));
        let runtime = sandbox::Runtime::new(setup.child.clone(), cache)
            .map_err(|error| JudgeError::Sandbox(error.to_string()))?;
        Ok(Self {
            setup,
            runtime,
            compiled: Mutex::default(),
            machine: OnceLock::new(),
            building: Mutex::default(),
            given_back: Mutex::default(),
        })
    }

    /// Hash of the runtime's version and settings, as a spec pins it under `resources.runtime`.
    pub fn runtime_hash() -> Hash {
        sandbox::wasm::settings_hash()
    }

    /// How it was set up.
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// Inputs of a round that a generator makes from its seed.
    pub fn generate(&self, case: &Case<'_>) -> Result<Vec<Input>, JudgeError> {
        kind::of(case.spec.kind).generate(self, case)
    }

    /// Judges an entry on the inputs of a round, in order.
    ///
    /// # Errors
    /// What is wrong with this judge or with the competition. What is wrong with the entry is the verdict.
    pub fn evaluate(&self, case: &Case<'_>, inputs: &[Input]) -> Result<Evaluation, JudgeError> {
        let deadline = case.deadline();
        Self::has_runtime(case.spec)?;
        let mut log = RunLog::default();
        log.line(&format!(
            "{} {} of {} bytes, {} inputs",
            case.spec.kind_name(),
            case.entry.form.name(),
            case.entry.bytes.len(),
            inputs.len()
        ));
        let kind = kind::of(case.spec.kind);
        let screened = self.screen(case, deadline, &mut log);
        let measured = screened.and_then(|()| {
            let measured = kind.measure(self, case, inputs, deadline, &mut log);
            measured.map_err(|stop| self.busy_again(case, stop))
        });
        let (outcome, wall, cost) = match measured {
            Ok(Measured { outputs, measures, wall, cost }) => {
                let hashes: Vec<Hash> = inputs.iter().map(|input| input.hash).collect();
                let inputs = arena::state::inputs_hash(&hashes);
                (Outcome::Measured { inputs, outputs, measures }, wall, cost)
            }
            Err(Stop::Entry(failure, reason)) => {
                log.line(&format!("failed: {failure}"));
                log.entry("entry", &reason);
                if failure.is_screening() {
                    log.account.reason =
                        plain(reason.lines().next().unwrap_or_default(), arena::limits::REASON_BYTES);
                }
                // Where entries are timed by the clock a verdict has a time; here there is none to tell.
                let wall = Wall { task_time_ns: 0, over_baseline_ppm: 0 };
                (Outcome::Failed(failure), Some(wall), Cost::default())
            }
            Err(Stop::Judge(error)) => return Err(error),
        };
        let jail = if case.entry.form == Form::Component { None } else { self.machine().ok() };
        log.account.machine = machine::describe(jail);
        log.closing();
        let (log, account) = log.into_parts();
        Ok(Evaluation {
            verdict: Verdict { outcome, wall, log: Hash::of(&log), account: Box::new(account) },
            log,
            cost,
        })
    }

    /// An entry, ready to be called.
    pub(crate) fn coder(
        &self,
        case: &Case<'_>,
        code: Code<'_>,
        contract: Contract,
        deadline: Instant,
    ) -> Result<Box<dyn Coder>, Stop> {
        match code.form {
            Form::Component => Ok(Box::new(self.component(case.spec, code.bytes, deadline)?)),
            Form::Python | Form::Native => {
                Ok(Box::new(ProgramCoder::new(self, case, code, contract, deadline)?))
            }
        }
    }

    /// An entry that a busy machine stopped is given back [`limits::BUSY_RETURNS`] times in a round; then its time is what
    /// it took here: what the kernel tells is not exact, and an entry that looks starved wherever it goes would never be
    /// judged. The competition's own baseline is always given back.
    fn busy_again(&self, case: &Case<'_>, stop: Stop) -> Stop {
        let Stop::Judge(JudgeError::Busy { what }) = stop else { return stop };
        let code = Hash::of(case.entry.bytes);
        if case.spec.baseline.code == Some(code) {
            return stop;
        }
        let parts = [&case.spec.id().0.0[..], &code.0, &case.seed.0];
        let key = Hash::of_parts("shoal 2026-11 arena given back", &parts);
        if self.given_back.lock().unwrap_or_else(PoisonError::into_inner).again(key) {
            return stop;
        }
        let times = limits::BUSY_RETURNS;
        Stop::Entry(Failure::Time, format!("{what} took too long, as at {times} attempts before"))
    }

    /// What programs are jailed with; found out at the first program.
    pub(crate) fn machine(&self) -> Result<&sandbox::Machine, JudgeError> {
        let probe = || sandbox::Machine::probe(self.setup.child.clone()).map_err(|error| error.to_string());
        self.machine.get_or_init(probe).as_ref().map_err(|reason| JudgeError::NoJail(reason.clone()))
    }

    /// Whether this machine can hold programs, and if not, why.
    pub fn can_judge_programs(&self) -> Result<(), JudgeError> {
        self.machine().map(|_| ())
    }

    /// The environment of a competition's programs.
    pub(crate) fn environment(&self, case: &Case<'_>) -> Result<Environment, JudgeError> {
        // Where nothing holds programs, an interpreter that is missing is not what to say.
        self.machine()?;
        match (case.spec.resources.environment, case.environment) {
            (None, _) => Environment::bare(),
            (Some(hash), Some(lock)) if Hash::of(lock) == hash => {
                let cache = self.setup.cache.clone().unwrap_or_else(std::env::temp_dir);
                // One build at a time.
                let _building = self.building.lock().unwrap_or_else(PoisonError::into_inner);
                Environment::build(lock, &cache)
            }
            (Some(hash), _) => Err(JudgeError::MissingCode { what: "environment", hash }),
        }
    }

    /// Baselines, evaluators and generators may not fail.
    pub(crate) fn reference(
        &self,
        case: &Case<'_>,
        code: Code<'_>,
        what: &'static str,
        deadline: Instant,
    ) -> Result<Box<dyn Coder>, JudgeError> {
        let contract = if what == "baseline" { Contract::Codec } else { Contract::Evaluator };
        self.coder(case, code, contract, deadline).map_err(|stop| stop.into_reference(what))
    }

    fn component(
        &self,
        spec: &CompetitionSpec,
        bytes: &[u8],
        deadline: Instant,
    ) -> Result<ComponentCoder, Stop> {
        let hash = Hash::of(bytes);
        let known = self.compiled.lock().unwrap_or_else(PoisonError::into_inner).get(&hash).cloned();
        let codec = if let Some(codec) = known {
            codec
        } else {
            let codec = self.runtime.compile(bytes).map_err(Stop::from_sandbox)?;
            let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
            if compiled.len() >= limits::COMPILED_KEPT {
                compiled.clear();
            }
            compiled.insert(hash, codec.clone());
            codec
        };
        let resources = &spec.resources;
        let cpu = Duration::from_secs(resources.call_s);
        let limits = sandbox::CallLimits {
            fuel: resources.fuel,
            wall: cpu * limits::PATIENCE,
            memory_bytes: resources.memory_bytes,
            output_bytes: 0,
        };
        Ok(ComponentCoder::new(codec, limits, cpu, deadline))
    }
}

impl Case<'_> {
    /// When an evaluation that begins now must be over: the lease has to last for the verdict as well.
    pub(crate) fn deadline(&self) -> Instant {
        Instant::now() + Duration::from_secs(self.spec.judges.lease_s) * 4 / 5
    }

    /// Whether the inputs are made from the seed.
    pub fn generates(&self) -> bool {
        self.spec.inputs.source == Source::Generator
    }

    /// Shuffles the calls: the same at every judge, so that the first failure is the same, and unknown to entrants.
    pub(crate) fn order(&self) -> Hash {
        Hash::of_parts("shoal 2026-11 arena call order", &[&self.seed.0, &Hash::of(self.entry.bytes).0])
    }
}

/// A text without control characters, `most` bytes of it: what a verdict may hold.
pub(crate) fn plain(text: &str, most: usize) -> String {
    let mut plain: String = text.chars().filter(|c| !c.is_control()).collect();
    plain.truncate(plain.floor_char_boundary(most));
    plain
}

/// Names of kinds for logs.
trait KindName {
    fn kind_name(&self) -> &'static str;
}

impl KindName for CompetitionSpec {
    fn kind_name(&self) -> &'static str {
        match self.kind {
            arena::spec::Kind::Codec => "codec",
            arena::spec::Kind::Program => "program",
        }
    }
}

/// A failure of an entry, from a fault of the sandbox.
pub(crate) fn failure(fault: sandbox::Fault) -> Failure {
    use sandbox::Fault;
    match fault {
        Fault::Invalid => Failure::Invalid,
        Fault::Forbidden => Failure::Forbidden,
        Fault::Startup => Failure::Startup,
        Fault::Trap => Failure::Trap,
        Fault::Fuel => Failure::Fuel,
        Fault::Time => Failure::Time,
        Fault::Memory => Failure::Memory,
        Fault::Disk => Failure::Disk,
        Fault::Processes => Failure::Processes,
        Fault::OutputTooLarge => Failure::OutputTooLarge,
        Fault::Output => Failure::Output,
        Fault::Escape => Failure::Escape,
    }
}
