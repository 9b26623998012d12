//! What is looked at before a program runs: a competition's `[screening]`.
//!
//! Python sources are parsed, not run, by the competition's own interpreter in a jail; executables are read by their headers;
//! everything else is counted as data. It is a tripwire: it tells entrants early and by line what is not wanted, and makes
//! tricks visible. It is not what holds them: that is the jail, and whatever passes here meets it.
//!
//! So what cannot be parsed is not looked at, and is no rejection: where a parser gives up depends on its version and its
//! machine, and judges must agree. Sizes are bounded before, the same everywhere.
//!
//! What was found is kept under the hash of code, rules, interpreter and the parser, so that code that comes again, to this or a
//! later round, is not looked at again. What the parser did not finish is not kept.

mod elf;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use arena::measure::Failure;
use arena::spec::{Form, Screening};
use serde::{Deserialize, Serialize};
use wire::Hash;

use crate::archive;
use crate::coder::{InJail, Stop, unpack};
use crate::environment::Environment;
use crate::error::JudgeError;
use crate::judge::{Case, Judge};
use crate::limits;
use crate::log::RunLog;

/// Parses sources; speaks lines of words (see its first lines).
const SOURCES: &str = include_str!("screening/sources.py");
/// What it says once it can read.
const READY: &[u8] = b"ready\n";

/// Why an entry is not run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rejection {
    pub(crate) failure: Failure,
    /// One finding in a line, with file and line where there are any.
    pub(crate) reason: String,
}

impl Rejection {
    fn new(failure: Failure, reason: impl Into<String>) -> Self {
        Self { failure, reason: reason.into() }
    }
}

/// What a look gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Looked {
    found: Option<Rejection>,
    /// What could not be looked at, for the log: a line for each.
    unread: Vec<String>,
}

impl From<Rejection> for Looked {
    fn from(found: Rejection) -> Self {
        Self { found: Some(found), unread: Vec::new() }
    }
}

impl Looked {
    fn nothing(why: String) -> Self {
        Self { found: None, unread: vec![why] }
    }
}

impl Judge {
    /// Looks at a program before it is run. Components need no more than their runtime looks at, and the baseline is the
    /// competition's own.
    pub(crate) fn screen(&self, case: &Case<'_>, deadline: Instant, log: &mut RunLog) -> Result<(), Stop> {
        let code = Hash::of(case.entry.bytes);
        if case.entry.form == Form::Component || case.spec.baseline.code == Some(code) {
            return Ok(());
        }
        Self::has_architecture(case.spec, case.entry.form)?;
        let parses = case.entry.form == Form::Python && case.spec.screening.python;
        let environment = parses.then(|| self.environment(case)).transpose()?;
        let version = environment.as_ref().map_or("", Environment::version);
        let rules = case.spec.screening.canonical();
        let form = case.entry.form.name();
        let parts = [&code.0[..], form.as_bytes(), rules.as_bytes(), version.as_bytes(), SOURCES.as_bytes()];
        let key = Hash::of_parts("shoal 2026-11 arena screening", &parts);
        let found = if let Some(known) = self.known_screening(&key) {
            known
        } else {
            let looked = self.look(case, environment.as_ref(), deadline)?;
            for line in &looked.unread {
                log.entry("screening", line);
            }
            if looked.unread.is_empty() {
                self.keep_screening(&key, looked.found.as_ref());
            }
            looked.found
        };
        found.map_or(Ok(()), |found| Err(Stop::Entry(found.failure, found.reason)))
    }

    fn screenings(&self) -> Option<PathBuf> {
        self.setup().cache.as_ref().map(|folder| folder.join("screened"))
    }

    #[expect(clippy::option_option, reason = "not looked at yet, or looked at and passed")]
    fn known_screening(&self, key: &Hash) -> Option<Option<Rejection>> {
        wire::from_bytes(&fs::read(self.screenings()?.join(key.to_string())).ok()?).ok()
    }

    /// What cannot be kept is found again.
    fn keep_screening(&self, key: &Hash, found: Option<&Rejection>) {
        let Some(folder) = self.screenings() else { return };
        let write = || -> std::io::Result<()> {
            fs::create_dir_all(&folder)?;
            if fs::read_dir(&folder)?.count() >= limits::SCREENED_KEPT {
                fs::remove_dir_all(&folder)?;
                fs::create_dir_all(&folder)?;
            }
            let aside = tempfile::NamedTempFile::new_in(&folder)?;
            fs::write(aside.path(), wire::to_bytes(&found))?;
            aside.persist(folder.join(key.to_string()))?;
            Ok(())
        };
        drop(write());
    }

    fn look(
        &self,
        case: &Case<'_>,
        environment: Option<&Environment>,
        deadline: Instant,
    ) -> Result<Looked, Stop> {
        let (folder, program) = match unpack(case.entry) {
            Ok(unpacked) => unpacked,
            Err(Stop::Entry(failure, reason)) => return Ok(Rejection::new(failure, reason).into()),
            Err(stop) => return Err(stop),
        };
        let rules = &case.spec.screening;
        let files = Files::of(folder.path())?;
        if let Err(found) = files.check(case.entry.form, program, rules) {
            return Ok(found.into());
        }
        match environment {
            Some(environment) => {
                let wall = limits::SCREENING_WALL.min(deadline.saturating_duration_since(Instant::now()));
                self.parse(rules, &files.sources(program), folder.path(), environment, wall)
            }
            None => Ok(Looked::default()),
        }
    }

    /// Has the sources parsed in a jail. What comes back is read like anything from a jail: it may be cut short, or nonsense.
    fn parse(
        &self,
        rules: &Screening,
        sources: &[&str],
        folder: &Path,
        environment: &Environment,
        wall: Duration,
    ) -> Result<Looked, Stop> {
        let python = environment.python();
        let mut program = sandbox::Program::new([python.as_str(), "-I", "-S", "-c", SOURCES]);
        program.stdin = questions(rules, sources).into_bytes();
        program.env = environment.variables();
        program.mounts = environment.in_jail();
        program.mounts.push(sandbox::Mount { from: folder.to_owned(), to: "/entry".into() });
        program.folder = "/entry".into();
        program.limits = sandbox::JailLimits {
            memory_bytes: limits::SCREENING_MEMORY_BYTES,
            processes: 4,
            cpu: limits::SCREENING_CPU,
            wall,
            disk_bytes: 1 << 20,
            ..sandbox::JailLimits::default()
        };
        let report = self.machine()?.run(&program).map_err(|error| Stop::host(&error))?;
        outcome(&report, sources)
    }
}

/// What the end of the parser means.
fn outcome(report: &sandbox::Report, sources: &[&str]) -> Result<Looked, Stop> {
    let Some(said) = report.stdout.strip_prefix(READY) else {
        let tail = String::from_utf8_lossy(&report.stderr);
        let why = format!("{:?} {}", report.end, tail.lines().next_back().unwrap_or_default());
        return Err(JudgeError::Sandbox(format!("the parser of sources does not start: {why}")).into());
    };
    match (report.end, answers(said, sources)) {
        (sandbox::End::Exited(0), Some(looked)) => Ok(looked),
        (sandbox::End::Failed(sandbox::Fault::Time), _) if report.usage.cpu < limits::SCREENING_CPU => {
            Err(JudgeError::Busy { what: "parsing an entry's sources" }.into())
        }
        // It gave up, or this machine ended it: nobody knows what it would have found.
        (end, _) => Ok(Looked::nothing(format!("not looked at: the parser ended with {end:?}"))),
    }
}

/// A file of an unpacked entry.
struct EntryFile {
    /// Below the entry's folder.
    name: String,
    bytes: Vec<u8>,
}

/// All of them, by name.
struct Files(Vec<EntryFile>);

impl Files {
    /// Reads what was unpacked: bounded then.
    fn of(root: &Path) -> Result<Self, JudgeError> {
        let (mut files, mut folders) = (Vec::new(), vec![root.to_owned()]);
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| JudgeError::File { path, source }
        };
        while let Some(folder) = folders.pop() {
            for item in fs::read_dir(&folder).map_err(failed(&folder))? {
                let path = item.map_err(failed(&folder))?.path();
                if path.is_dir() {
                    folders.push(path);
                    continue;
                }
                let bytes = fs::read(&path).map_err(failed(&path))?;
                let name = path.strip_prefix(root).unwrap_or(&path).display().to_string();
                files.push(EntryFile { name, bytes });
            }
        }
        files.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self(files))
    }

    /// Names of the sources, the program's first: a parser cannot say of another that it is misspelt.
    fn sources(&self, program: &str) -> Vec<&str> {
        let all = self.0.iter().map(|file| file.name.as_str()).filter(|name| is_source(name));
        let mut all: Vec<&str> = all.collect();
        all.sort_by_key(|name| *name != program);
        all
    }

    /// What can be told without parsing.
    fn check(&self, form: Form, program: &str, rules: &Screening) -> Result<(), Rejection> {
        let (mut data, mut sources) = (0_u64, 0_usize);
        for EntryFile { name, bytes } in &self.0 {
            let of_file =
                |found: Rejection| Rejection { reason: format!("{name}: {}", found.reason), ..found };
            let reject = |failure, reason: String| Err(of_file(Rejection::new(failure, reason)));
            if form == Form::Python && is_source(name) {
                sources = sources.saturating_add(bytes.len());
                if bytes.len() > limits::SOURCE_BYTES_MAX {
                    let (found, most) = (bytes.len(), limits::SOURCE_BYTES_MAX);
                    return reject(Failure::Hidden, format!("a source of {found} bytes, at most {most}"));
                }
            } else if form == Form::Native && (name == program || elf::is_elf(bytes)) {
                elf::check(bytes, rules.architecture, rules.literal_bytes_max).map_err(of_file)?;
            } else if let Some(kind) = code_kind(name, bytes).filter(|_| form == Form::Python) {
                if !rules.binaries {
                    return reject(Failure::Forbidden, format!("is {kind}, not a Python source"));
                }
                if elf::is_elf(bytes) {
                    elf::check(bytes, rules.architecture, rules.literal_bytes_max).map_err(of_file)?;
                }
            } else {
                data = data.saturating_add(bytes.len() as u64);
            }
        }
        if sources > limits::SOURCES_BYTES_MAX {
            let most = limits::SOURCES_BYTES_MAX;
            return Err(Rejection::new(
                Failure::Hidden,
                format!("{sources} bytes of sources, at most {most}"),
            ));
        }
        if data > rules.data_bytes_max {
            let most = rules.data_bytes_max;
            return Err(Rejection::new(Failure::Hidden, format!("{data} bytes of data, at most {most}")));
        }
        Ok(())
    }
}

fn is_source(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension == "py")
}

/// Executable code that is no Python source, by its first bytes or its name.
fn code_kind(name: &str, bytes: &[u8]) -> Option<&'static str> {
    let has = |known: &[&str]| {
        let extension = Path::new(name).extension().and_then(|extension| extension.to_str());
        extension.is_some_and(|extension| known.iter().any(|known| extension.eq_ignore_ascii_case(known)))
    };
    match () {
        () if elf::is_elf(bytes) || has(&["so", "pyd", "dll", "dylib"]) => Some("a native library"),
        () if has(&["pyc", "pyo"]) || is_byte_code(bytes) => Some("byte code"),
        // Arrays of numpy are an archive that nothing imports from.
        () if has(&["npz"]) => None,
        () if archive::is_archive(bytes) || has(&["zip", "egg", "whl", "pyz"]) => Some("an archive"),
        () if bytes.starts_with(b"\0asm") => Some("WebAssembly"),
        () if has(&["pth"]) => Some("a path file"),
        () => None,
    }
}

/// Byte code begins with two bytes that change with the version, a line's end, and flags of which two are known, 32 bits,
/// little-endian (PEP 3147, PEP 552).
fn is_byte_code(bytes: &[u8]) -> bool {
    bytes.get(2..4) == Some(b"\r\n") && matches!(bytes.get(4..8), Some([0..=3, 0, 0, 0]))
}

/// What the parser is asked, a line for each.
fn questions(rules: &Screening, sources: &[&str]) -> String {
    let lists = [
        ("module", &rules.forbidden_modules),
        ("name", &rules.forbidden_names),
        ("attribute", &rules.forbidden_attributes),
    ];
    let mut lines: Vec<String> = lists
        .into_iter()
        .flat_map(|(word, list)| list.iter().map(move |value| format!("{word} {value}")))
        .collect();
    lines.push(format!("literal {}", rules.literal_bytes_max));
    if !rules.dynamic_attributes {
        lines.push("static".to_owned());
    }
    lines.extend(sources.iter().map(|name| format!("file {name}")));
    lines.join("\n")
}

/// What it answers: findings, then how many sources it looked at. `None` for anything else.
fn answers(text: &[u8], sources: &[&str]) -> Option<Looked> {
    let text = std::str::from_utf8(text).ok()?;
    let (rest, last) = text.trim_end().rsplit_once('\n').unwrap_or(("", text.trim_end()));
    let mut words = last.split('\t');
    let looked = (words.next()? == "looked at") && words.next()?.parse() == Ok(sources.len());
    let found: usize = words.next().filter(|_| looked)?.parse().ok()?;
    let (mut findings, mut unread) = (Vec::new(), Vec::new());
    for line in rest.lines() {
        let [kind, file, line, said] = <[&str; 4]>::try_from(line.split('\t').collect::<Vec<_>>()).ok()?;
        let failure = match kind {
            "forbidden" => Failure::Forbidden,
            "hidden" => Failure::Hidden,
            "invalid" => Failure::Invalid,
            "unread" if sources.contains(&file) => {
                unread.push(format!("{file}: {said:.200}"));
                continue;
            }
            _ => return None,
        };
        let line: u32 = line.parse().ok()?;
        if !sources.contains(&file) {
            return None;
        }
        findings.push((failure, format!("{file}:{line}: {said:.200}")));
    }
    let more = found.saturating_sub(findings.len());
    let Some((failure, _)) = findings.first() else {
        return (more == 0).then_some(Looked { found: None, unread });
    };
    let mut lines: Vec<&str> = findings.iter().map(|(_, line)| line.as_str()).collect();
    let rest = format!("and {more} more");
    if more > 0 {
        lines.push(&rest);
    }
    Some(Looked { found: Some(Rejection::new(*failure, lines.join("\n"))), unread })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(all: &[(&str, &[u8])]) -> Files {
        let file =
            |(name, bytes): &(&str, &[u8])| EntryFile { name: (*name).to_owned(), bytes: bytes.to_vec() };
        Files(all.iter().map(file).collect())
    }

    #[test]
    fn files_that_are_neither_source_nor_data_are_told() {
        let rules = Screening { data_bytes_max: 100, ..Screening::default() };
        let main = ("solution.py", &b"import lib\n"[..]);
        let check = |more: (&str, &[u8]), rules: &Screening| {
            files(&[main, more]).check(Form::Python, "solution.py", rules)
        };
        for (name, bytes) in [
            ("table.bin", &[9; 100][..]),
            ("table.csv", b"id\r\n1\r\n2\r\n"),
            ("short.csv", b"id\r\n"),
            ("weights.npz", b"PK\x03\x04"),
        ] {
            assert_eq!(check((name, bytes), &rules), Ok(()), "{name}");
        }
        let large = vec![b'#'; limits::SOURCE_BYTES_MAX + 1];
        for (name, bytes, failure, reason) in [
            ("lib.so", &b"\x7fELF"[..], Failure::Forbidden, "lib.so: is a native library"),
            ("data.txt", b"\x7fELF", Failure::Forbidden, "data.txt: is a native library"),
            ("lib.pyc", b"", Failure::Forbidden, "lib.pyc: is byte code"),
            ("lib.dat", b"\xa7\x0d\r\n\x03\0\0\0", Failure::Forbidden, "lib.dat: is byte code"),
            ("more.egg", b"", Failure::Forbidden, "more.egg: is an archive"),
            ("more", b"PK\x03\x04", Failure::Forbidden, "more: is an archive"),
            ("x.pth", b"import os", Failure::Forbidden, "x.pth: is a path file"),
            ("table.bin", &[9; 101], Failure::Hidden, "101 bytes of data, at most 100"),
            ("lib.py", &large, Failure::Hidden, "lib.py: a source of"),
        ] {
            let found = check((name, bytes), &rules).unwrap_err();
            assert_eq!(found.failure, failure, "{}", found.reason);
            assert!(found.reason.starts_with(reason), "{}", found.reason);
        }
        let four = vec![b'#'; limits::SOURCE_BYTES_MAX];
        let names = ["a.py", "b.py", "c.py", "d.py", "e.py"].map(|name| (name, &four[..]));
        let found = files(&names).check(Form::Python, "solution.py", &rules).unwrap_err();
        assert!(found.reason.starts_with("5242880 bytes of sources"), "{}", found.reason);
        assert_eq!(files(&names[..4]).check(Form::Python, "solution.py", &rules), Ok(()));
        let binaries = Screening { binaries: true, ..rules };
        assert_eq!(check(("lib.pyc", b""), &binaries), Ok(()));
        assert_eq!(check(("lib.so", b"\x7fELF"), &binaries).unwrap_err().failure, Failure::Invalid);
        let native = files(&[("solution", b"#!/bin/sh\n")]);
        assert_eq!(native.check(Form::Native, "solution", &binaries).unwrap_err().failure, Failure::Invalid);
    }

    #[test]
    fn what_a_parser_says_is_not_believed_beyond_its_form() {
        let sources = ["solution.py", "lib/a.py"];
        let read = |text: &str| answers(text.as_bytes(), &sources);
        assert_eq!(read("looked at\t2\t0\n"), Some(Looked::default()));
        let unread = read("unread\tlib/a.py\t0\tRecursionError\nlooked at\t2\t0\n").unwrap();
        assert_eq!((unread.found, &unread.unread[..]), (None, &["lib/a.py: RecursionError".to_owned()][..]));
        let two = "forbidden\tsolution.py\t3\timports ctypes\nhidden\tlib/a.py\t9\ta text\nlooked at\t2\t5\n";
        let found = read(two).unwrap().found.unwrap();
        assert_eq!(found.failure, Failure::Forbidden);
        assert_eq!(found.reason, "solution.py:3: imports ctypes\nlib/a.py:9: a text\nand 3 more");
        for nonsense in [
            "",
            "looked at\t1\t0\n",
            "looked at\t2\n",
            "looked at\t2\t1\n",
            // What was not read stands for nothing that was found and is not told.
            "unread\tlib/a.py\t0\tRecursionError\nlooked at\t2\t1\n",
            "forbidden\tother.py\t3\tx\nlooked at\t2\t1\n",
            "forbidden\tsolution.py\tline\tx\nlooked at\t2\t1\n",
            "good\tsolution.py\t3\tx\nlooked at\t2\t1\n",
            "forbidden\tsolution.py\nlooked at\t2\t1\n",
        ] {
            assert_eq!(read(nonsense), None, "{nonsense:?}");
        }
        assert_eq!(answers(b"\xff\xfe", &sources), None);
    }

    #[test]
    fn the_judges_own_faults_and_what_ends_the_parser_are_no_verdicts() {
        use sandbox::{End, Fault};
        let report = |end, stdout: &str, cpu| {
            let usage = sandbox::Usage { cpu, ..sandbox::Usage::default() };
            let (note, stderr) = (String::new(), b"python: no such library\n".to_vec());
            sandbox::Report { end, note, stdout: stdout.into(), stderr, truncated: false, usage }
        };
        let sources = ["solution.py"];
        let of = |end, stdout, cpu| outcome(&report(end, stdout, cpu), &sources);
        let full = "ready\nforbidden\tsolution.py\t3\timports ctypes\nlooked at\t1\t1\n";
        let (none, all) = (Duration::ZERO, limits::SCREENING_CPU);
        assert_eq!(of(End::Exited(0), full, none).unwrap().found.unwrap().failure, Failure::Forbidden);
        for (end, stdout, cpu) in [
            (End::Exited(1), full, none),
            (End::Exited(137), "ready\n", none),
            (End::Failed(Fault::Memory), "ready\n", none),
            (End::Failed(Fault::Time), full, all),
            (End::Exited(0), "ready\nnonsense", none),
        ] {
            let looked = of(end, stdout, cpu).unwrap();
            assert_eq!((looked.found, looked.unread.len()), (None, 1), "{end:?}");
        }
        for end in [End::Exited(127), End::Exited(0), End::Failed(Fault::Memory)] {
            let Err(Stop::Judge(JudgeError::Sandbox(why))) = of(end, "", none) else { panic!("{end:?}") };
            assert!(why.contains("no such library"), "{why}");
        }
        let busy = of(End::Failed(Fault::Time), "ready\n", none);
        assert!(matches!(busy, Err(Stop::Judge(JudgeError::Busy { .. }))));
    }
}
