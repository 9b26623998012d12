//! What is looked at before a program runs: by line, by the competition's rules, once.

use std::path::PathBuf;

use arena::measure::{Failure, Outcome};
use arena::spec::Form;
use shoal_judge::{Case, Code, Evaluation, JudgeError};
use wire::Hash;

use super::bench::{component, inputs, judge, spec};
use super::programs::{able, program_spec, run, run_bytes, server, zipped};

const BODY: &str = "def compress(data):\n    return zlib.compress(data, 1)\ndef decompress(data):\n    return zlib.decompress(data)\n";

fn rejected(evaluation: &Evaluation) -> (Failure, &str) {
    let log = String::from_utf8_lossy(&evaluation.log).into_owned();
    let reason = &evaluation.verdict.account.reason;
    assert!(log.contains(reason.as_str()), "{log}");
    match evaluation.verdict.outcome {
        Outcome::Failed(failure) => {
            assert!(failure.is_screening(), "{failure}: {log}");
            // It was not run.
            assert_eq!(evaluation.verdict.account.usage, arena::account::Usage::default());
            (failure, reason)
        }
        Outcome::Measured { .. } => panic!("measured: {log}"),
    }
}

#[test]
fn what_is_not_wanted_is_named_with_file_and_line() {
    if !able() {
        return;
    }
    let long = format!("x = 1\ntable = '{}'\n", "a".repeat((64 << 10) + 1));
    let many = format!("x = 1\ntable = [{}]\n", "1,".repeat((8 << 10) + 1));
    for (body, failure, reason) in [
        ("x = 1\nimport ctypes\n", Failure::Forbidden, ":2: imports ctypes"),
        ("import ctypes.util as u\n", Failure::Forbidden, ":1: imports ctypes"),
        ("from subprocess import run\n", Failure::Forbidden, ":1: imports subprocess"),
        ("import os as o\n\no.system('x')\n", Failure::Forbidden, ":3: uses os.system"),
        ("from os import system as s\n", Failure::Forbidden, ":1: uses os.system"),
        ("from os import *\n", Failure::Forbidden, ":1: imports everything of os"),
        ("import builtins\nf = builtins.exec\n", Failure::Forbidden, ":2: uses exec"),
        ("x = 1\ne = eval\n", Failure::Forbidden, ":2: uses eval"),
        ("import os\ngetattr(os, 'system')('x')\n", Failure::Forbidden, ":2: uses os.system"),
        ("f = getattr(__builtins__, 'ev' + 'al')\n", Failure::Forbidden, ":1: uses __builtins__"),
        ("x = ().__class__.__base__.__subclasses__()\n", Failure::Forbidden, ":1: uses __subclasses__"),
        ("x = vars(len)['__globals__']\n", Failure::Forbidden, ":1: names __globals__"),
        (&long, Failure::Hidden, ":2: a text of 65537 bytes"),
        (&many, Failure::Hidden, ":2: a list of 8193 values"),
        ("x = 1\ndef\n", Failure::Invalid, ":2: does not parse"),
    ] {
        let evaluation = run(body, &program_spec(""));
        let (found, said) = rejected(&evaluation);
        assert_eq!(found, failure, "{body:.60}: {said}");
        assert!(said.starts_with("solution.py:") && said.contains(reason), "{body:.60}: {said}");
    }
    let main = server(BODY);
    let files = |name, text| zipped(&[("solution.py", &main), ("lib/__init__.py", ""), (name, text)], &[]);
    for (code, failure, reason) in [
        (files("lib/a.py", "\n\nimport pty\n"), Failure::Forbidden, "lib/a.py:3: imports pty"),
        (files("lib/a.so", "x"), Failure::Forbidden, "lib/a.so: is a native library"),
        (files("lib/b.pyc", "x"), Failure::Forbidden, "lib/b.pyc: is byte code"),
    ] {
        let evaluation = run_bytes(&code, &program_spec(""));
        let (found, said) = rejected(&evaluation);
        assert_eq!((found, said), (failure, if said.starts_with(reason) { said } else { reason }));
    }
    // However many files cannot be read.
    let names: Vec<String> = (0..40).map(|number| format!("a{number:02}.py")).collect();
    let mut all: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "(")).collect();
    all.extend([("solution.py", main.as_str()), ("zz.py", "import ctypes\n")]);
    let evaluation = run_bytes(&zipped(&all, &[]), &program_spec(""));
    assert_eq!(rejected(&evaluation), (Failure::Forbidden, "zz.py:1: imports ctypes"));
}

#[test]
fn ordinary_code_passes_and_a_competition_sets_its_own_rules() {
    if !able() {
        return;
    }
    let measured = |evaluation: Evaluation| {
        let log = String::from_utf8_lossy(&evaluation.log).into_owned();
        assert!(matches!(evaluation.verdict.outcome, Outcome::Measured { .. }), "{log}");
    };
    let plain = "
import os, re
PATTERN = re.compile('a+')
class Model:
    def eval(self):
        return getattr(self, 'name', getattr(self, str(1), None))
Model().eval()
os.getpid()
";
    measured(run(&format!("{plain}{}", server(BODY)), &program_spec("")));
    let loads = format!("import ctypes\n{}", server(BODY));
    measured(run(&loads, &program_spec("[screening]\nforbidden_modules = []\n")));
    measured(run(&loads, &program_spec("[screening]\npython = false\n")));
    let computed = format!("getattr(zlib, 'comp' + 'ress')\n{BODY}");
    let evaluation = run(&server(&computed), &program_spec("[screening]\ndynamic_attributes = false\n"));
    let (failure, said) = rejected(&evaluation);
    assert_eq!(failure, Failure::Forbidden);
    assert!(said.contains("calls getattr with a name that is computed"), "{said}");
}

#[test]
fn what_a_parser_gives_up_on_is_no_rejection() {
    if !able() {
        return;
    }
    let deep = format!("x = {}1{}\n", "(".repeat(5000), ")".repeat(5000));
    for body in [deep.as_str(), "x = '\\0'\n\0\n"] {
        let evaluation = run(body, &program_spec(""));
        let log = String::from_utf8_lossy(&evaluation.log).into_owned();
        assert!(log.contains("screening| solution.py: not looked at"), "{log}");
        let outcome = evaluation.verdict.outcome;
        assert!(matches!(outcome, Outcome::Failed(failure) if !failure.is_screening()), "{log}");
    }
    // Long names and long chains cost no more than their length.
    let chain = format!("def unused(x):\n    return x{}\n", ".a".repeat(20_000));
    let import = format!("def unused():\n    import a{}\n", ".a".repeat(2_000));
    let other = "def (\n";
    let main = server(BODY);
    let files =
        [("solution.py", main.as_str()), ("lib/a.py", &chain), ("lib/b.py", &import), ("lib/c.py", other)];
    let evaluation = run_bytes(&zipped(&files, &[]), &program_spec(""));
    let log = String::from_utf8_lossy(&evaluation.log).into_owned();
    assert!(matches!(evaluation.verdict.outcome, Outcome::Measured { .. }), "{log}");
    assert!(log.contains("screening| lib/c.py: not looked at"), "{log}");
    assert!(!log.contains("the parser ended"), "{log}");
}

#[test]
fn code_that_comes_again_is_not_looked_at_again_unless_the_rules_changed() {
    if !able() {
        return;
    }
    let folder: PathBuf = judge().setup().cache.clone().unwrap().join("screened");
    let kept = || -> Vec<PathBuf> {
        std::fs::read_dir(&folder).into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
    };
    let code = "# only of this test\nimport ctypes\n";
    let at_once = run(code, &program_spec(""));
    assert_eq!(rejected(&at_once), (Failure::Forbidden, "solution.py:2: imports ctypes"));
    let says = |path: &PathBuf| std::fs::read(path).unwrap();
    let about = |text: &str| {
        let found = kept().into_iter().filter(|path| {
            let bytes = says(path);
            bytes.windows(text.len()).any(|window| window == text.as_bytes())
        });
        found.collect::<Vec<_>>()
    };
    let ours = about("solution.py:2: imports ctypes");
    assert!(!ours.is_empty());
    // Something that only a kept finding can say.
    for path in &ours {
        std::fs::write(path, wire::to_bytes(&Some((Failure::Hidden, "kept".to_owned())))).unwrap();
    }
    assert_eq!(rejected(&run(code, &program_spec(""))), (Failure::Hidden, "kept"));
    let other = run(code, &program_spec("[screening]\nliteral_bytes_max = 1000\n"));
    assert_eq!(rejected(&other).0, Failure::Forbidden);
    // What is damaged is found again.
    for path in &ours {
        std::fs::write(path, b"\xff").unwrap();
    }
    assert_eq!(rejected(&run(code, &program_spec(""))).0, Failure::Forbidden);
}

#[test]
fn executables_are_read_by_their_headers() {
    let Ok(program) = std::fs::read("/usr/bin/env") else { return };
    if !able() || std::env::consts::ARCH != "x86_64" {
        return;
    }
    let evaluate = |code: &[u8], more: &str| {
        let native = spec(&format!(
            "[inputs]\nitems = 2\n[submission]\nforms = [\"component\", \"native\"]\n[resources]\nstartup_s = 5\n{more}"
        ));
        let case = Case {
            spec: &native,
            seed: Hash::of(b"seed"),
            entry: Code { form: Form::Native, bytes: code },
            baseline: Some(component(shoal_judge::baseline::zstd().component)),
            reference: None,
            environment: None,
        };
        judge().evaluate(&case, &inputs(2))
    };
    // It passes and is run; being no server it ends.
    let found = evaluate(&program, "").unwrap().verdict;
    assert!(matches!(found.outcome, Outcome::Failed(failure) if !failure.is_screening()), "{found:?}");
    assert_eq!(found.account.reason, "");
    let mut appended = program.clone();
    appended.extend(vec![7; (64 << 10) + 1]);
    let mut cut = program.clone();
    cut.truncate(1000);
    for (code, failure, reason) in [
        (&appended, Failure::Hidden, "solution: has 65537 bytes behind its last part"),
        (&cut, Failure::Invalid, "solution: is a damaged executable"),
        (&b"#!/bin/sh\nexit 0\n".to_vec(), Failure::Invalid, "solution: is no ELF executable"),
    ] {
        let evaluation = evaluate(code, "").unwrap();
        let (found, said) = rejected(&evaluation);
        assert_eq!(found, failure, "{said}");
        assert!(said.starts_with(reason), "{said}");
    }
    let other = evaluate(&program, "[screening]\narchitecture = \"aarch64\"\n").unwrap_err();
    assert!(matches!(other, JudgeError::Architecture { asked: "aarch64", .. }), "{other}");
}
