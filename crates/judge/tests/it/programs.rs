//! Python programs that speak the HTTP contract, in jails. Skipped, with a word, where a machine has no bubblewrap, no
//! cgroup or no Python.

use std::io::{Cursor, Write};

use arena::measure::{Failure, Measures, Outcome};
use arena::spec::{CompetitionSpec, Form};
use shoal_judge::baseline::zstd;
use shoal_judge::{Case, Code, Evaluation};
use wire::Hash;

use super::bench::{component, inputs, judge, spec};

/// Whether this machine can hold programs; says why not. With `SHOAL_TEST_JAIL` it must.
pub(crate) fn able() -> bool {
    let able =
        judge().can_judge_programs().and_then(|()| shoal_judge::environment::Environment::bare().map(|_| ()));
    if let Err(error) = &able {
        assert!(
            std::env::var_os("SHOAL_TEST_JAIL").is_none(),
            "programs must be jailed on this machine: {error}"
        );
        _ = writeln!(std::io::stderr(), "skipped: {error}");
    }
    able.is_ok()
}

pub(crate) fn program_spec(more: &str) -> CompetitionSpec {
    spec(&format!(
        "[inputs]\nitems = 2\n[submission]\nforms = [\"component\", \"python\"]\n[resources]\nmemory_bytes = 268435456\ncall_s = 3\nstartup_s = 5\nprocesses = 32\ndisk_bytes = 16777216\n{more}"
    ))
}

/// A server of the standard library; `body` defines `compress(data)` and `decompress(data)`.
pub(crate) fn server(body: &str) -> String {
    format!(
        r#"
import argparse, sys, zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

{body}

class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass
    def reply(self, data):
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
    def do_GET(self):
        self.reply(b'{{"status":"healthy"}}')
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        boundary = self.headers["Content-Type"].split("boundary=")[1].encode()
        part = body.split(b"--" + boundary)[1]
        data = part.split(b"\r\n\r\n", 1)[1][:-2]
        self.reply({{"/compress": compress, "/decompress": decompress}}[self.path](data))

parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int, default=8080)
parser.add_argument("--host", default="0.0.0.0")
arguments = parser.parse_args()
ThreadingHTTPServer((arguments.host, arguments.port), Handler).serve_forever()
"#
    )
}

pub(crate) fn run(code: &str, spec: &CompetitionSpec) -> Evaluation {
    run_bytes(code.as_bytes(), spec)
}

pub(crate) fn run_bytes(code: &[u8], spec: &CompetitionSpec) -> Evaluation {
    let entry = Code { form: Form::Python, bytes: code };
    let case = Case {
        spec,
        seed: Hash::of(b"seed"),
        entry,
        baseline: Some(component(zstd().component)),
        reference: None,
        environment: None,
    };
    judge().evaluate(&case, &inputs(2)).unwrap()
}

fn failure_of(body: &str) -> (Failure, String) {
    let evaluation = run(&server(body), &program_spec(""));
    let log = String::from_utf8(evaluation.log).unwrap();
    match evaluation.verdict.outcome {
        Outcome::Failed(failure) => (failure, log),
        Outcome::Measured { .. } => panic!("measured: {log}"),
    }
}

#[test]
fn a_program_of_the_standard_library_is_measured() {
    if !able() {
        return;
    }
    let body = "def compress(data):\n    return zlib.compress(data, 1)\ndef decompress(data):\n    return zlib.decompress(data)\n";
    let evaluation = run(&server(body), &program_spec(""));
    let Outcome::Measured { measures: Measures::Codec(items), .. } = &evaluation.verdict.outcome else {
        panic!("{}", String::from_utf8_lossy(&evaluation.log))
    };
    assert!(
        items.iter().all(|item| item.exact && item.fuel == 0 && item.compressed_bytes < item.original_bytes)
    );
    let wall = evaluation.verdict.wall.unwrap();
    assert!(wall.task_time_ns > 10_000 && wall.over_baseline_ppm > 0, "{wall:?}");
    // What the jails measured, and where.
    let account = &evaluation.verdict.account;
    let usage = account.usage;
    assert!(usage.cpu_ns > 10_000_000 && usage.wall_ns > 10_000_000, "{usage:?}");
    assert!((4 << 20..256 << 20).contains(&usage.memory_peak_bytes), "{usage:?}");
    assert!((2..40).contains(&usage.processes_peak) && usage.fuel == 0, "{usage:?}");
    assert!(account.machine.sandbox.starts_with("bubblewrap, seccomp, cgroup"), "{:?}", account.machine);
    assert_eq!(account.check(), Ok(()));
}

#[test]
fn programs_that_break_or_cheat_end_in_their_failures() {
    if !able() {
        return;
    }
    let good = "def decompress(data):\n    return data\n";
    for (name, body, expected) in [
        ("exits", format!("import os\ndef compress(data):\n    os._exit(3)\n{good}"), Failure::Trap),
        ("raises", format!("def compress(data):\n    raise ValueError('no')\n{good}"), Failure::Output),
        ("sleeps", format!("import time\ndef compress(data):\n    time.sleep(60)\n{good}"), Failure::Time),
        ("bloats", format!("def compress(data):\n    return data * 20\n{good}"), Failure::OutputTooLarge),
        (
            "memory bomb",
            format!("def compress(data):\n    return (b'x' * (1 << 29))[:9]\n{good}"),
            Failure::Memory,
        ),
        (
            "different answers",
            format!("import os\ndef compress(data):\n    return os.urandom(8) + data\n{good}"),
            Failure::NotDeterministic,
        ),
        ("never listens", "import time\ntime.sleep(60)".to_owned(), Failure::Startup),
        ("fails at once", "raise SystemExit(2)".to_owned(), Failure::Trap),
    ] {
        let (found, log) = failure_of(&body);
        // A program that ends before it listens is known by its end or by its silence.
        let same = found == expected || (name == "fails at once" && found == Failure::Startup);
        assert!(same, "{name}: {found:?} {log}");
    }
}

/// A command of the spec runs before the entry, on each side, and its failure is the entry's.
#[test]
fn programs_are_prepared_on_each_side() {
    if !able() {
        return;
    }
    let prepare = |script: &str| {
        // A section of its own would come after others; these keys end up in `[resources]`.
        program_spec(&format!("prepare = [\"python\", \"-c\", \"{script}\"]"))
    };
    let body = "
side = open('/tmp/made').read()
def compress(data):
    assert side == 'compress', side
    return zlib.compress(data, 1)
def decompress(data):
    assert side == 'decompress', side
    return zlib.decompress(data)
";
    let spec = prepare("import os; open('/tmp/made', 'w').write(os.environ['SHOAL_SIDE'])");
    let evaluation = run(&server(body), &spec);
    let log = String::from_utf8(evaluation.log).unwrap();
    assert!(matches!(evaluation.verdict.outcome, Outcome::Measured { .. }), "{log}");

    let evaluation = run(&server(body), &prepare("raise SystemExit('nothing to build')"));
    let log = String::from_utf8(evaluation.log).unwrap();
    assert_eq!(evaluation.verdict.outcome, Outcome::Failed(Failure::Startup), "{log}");
    assert!(
        log.contains("was to prepare the program and failed") && log.contains("nothing to build"),
        "{log}"
    );

    // It has as long as the program has to start.
    let evaluation = run(&server(body), &prepare("import time; time.sleep(60)"));
    assert_eq!(evaluation.verdict.outcome, Outcome::Failed(Failure::Startup));
}

#[test]
fn the_two_sides_share_nothing_but_the_bytes() {
    if !able() {
        return;
    }
    let body = "
import os
def compress(data):
    open('/tmp/kept', 'wb').write(data)
    return b'x'
def decompress(data):
    return open('/tmp/kept', 'rb').read()
";
    let (found, log) = failure_of(body);
    assert_eq!(found, Failure::Output, "{log}");
}

/// An archive of these files.
pub(crate) fn zipped(files: &[(&str, &str)], links: &[(&str, &str)]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default();
    for (name, text) in files {
        writer.start_file(*name, options).unwrap();
        writer.write_all(text.as_bytes()).unwrap();
    }
    for (name, target) in links {
        writer.add_symlink(*name, *target, options).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

#[test]
fn a_program_of_several_files_is_measured_and_one_with_links_is_not() {
    if !able() {
        return;
    }
    let body = "from lib.tables import level\ndef compress(data):\n    return zlib.compress(data, level)\ndef decompress(data):\n    return zlib.decompress(data)\n";
    let main = server(body);
    let files = [
        ("solution.py", main.as_str()),
        ("lib/__init__.py", ""),
        ("lib/tables.py", "level = int(open('lib/level').read())\n"),
        ("lib/level", "1"),
    ];
    let good = zipped(&files, &[]);
    assert_eq!(shoal_judge::form::tell(Some("mine.zip"), &good), Ok(Form::Python));
    let evaluation = run_bytes(&good, &program_spec(""));
    let Outcome::Measured { measures: Measures::Codec(items), .. } = &evaluation.verdict.outcome else {
        panic!("{}", String::from_utf8_lossy(&evaluation.log))
    };
    assert!(items.iter().all(|item| item.exact && item.compressed_bytes < item.original_bytes));
    // Tricks end in a verdict with the reason, before anything is run.
    let mut cut = good.clone();
    cut.truncate(good.len() / 2);
    for (code, reason) in [
        (zipped(&files, &[("lib/passwd", "/etc/passwd")]), "only files and folders"),
        (zipped(&[("solution.py", &main), ("../../outside", "x")], &[]), "a name that is not allowed"),
        (zipped(&[("folder/solution.py", &main)], &[]), "no solution.py at its top"),
        (cut, "cannot be read"),
    ] {
        let evaluation = run_bytes(&code, &program_spec(""));
        assert_eq!(evaluation.verdict.outcome, Outcome::Failed(Failure::Invalid));
        let log = String::from_utf8(evaluation.log).unwrap();
        assert!(log.contains(reason), "{log}");
    }
}

/// Solutions for Apex look like this.
const APEX: &str = r#"
import argparse
import uvicorn, zstd
from fastapi import FastAPI, File, UploadFile
from fastapi.responses import Response

app = FastAPI()

@app.get("/health")
async def health():
    return {"status": "healthy"}

@app.post("/compress")
async def compress(file: UploadFile = File(...)):
    return Response(zstd.compress(await file.read(), 3), media_type="application/octet-stream")

@app.post("/decompress")
async def decompress(file: UploadFile = File(...)):
    return Response(zstd.decompress(await file.read()), media_type="application/octet-stream")

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--host", type=str, default="0.0.0.0")
    arguments = parser.parse_args()
    uvicorn.run(app, host=arguments.host, port=arguments.port, log_level="warning")
"#;

/// Hashes of wheels for CPython 3.11 on x86-64 and of pure ones; `tests/apex.lock` is what a competition would name.
const LOCK: &str = include_str!("../apex.lock");

#[test]
fn a_solution_for_apex_runs_unchanged_in_a_locked_environment() {
    if !able() {
        return;
    }
    // Building needs the package index, once; tests have no internet unless the builder is told so.
    if std::env::var_os("SHOAL_TEST_PYPI").is_none() {
        _ = writeln!(
            std::io::stderr(),
            "skipped: set SHOAL_TEST_PYPI=1 where the package index can be reached"
        );
        return;
    }
    let mut spec = program_spec("");
    spec.resources.environment = Some(Hash::of(LOCK.as_bytes()));
    let case = Case {
        spec: &spec,
        seed: Hash::of(b"seed"),
        entry: Code { form: Form::Python, bytes: APEX.as_bytes() },
        baseline: Some(component(zstd().component)),
        reference: None,
        environment: Some(LOCK.as_bytes()),
    };
    let evaluation = judge().evaluate(&case, &inputs(2)).unwrap();
    let Outcome::Measured { measures: Measures::Codec(items), .. } = &evaluation.verdict.outcome else {
        panic!("{}", String::from_utf8_lossy(&evaluation.log))
    };
    assert!(items.iter().all(|item| item.exact && item.compressed_bytes < item.original_bytes));
}
