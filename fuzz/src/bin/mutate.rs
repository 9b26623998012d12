//! A fuzzing driver for stable Rust.
//!
//! `mutate [TARGET|all] [SECONDS] [SEED]`. An input that panics, hangs or wants memory without bounds is kept in
//! `corpus/TARGET/` and ends the run.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people")]

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use shoal_fuzz::{TARGETS, Target, corpus, mutate};

/// Memory that an input may make a target ask for, bytes of addresses. Beyond it the process is aborted.
const ADDRESSES: u64 = 16 << 30;

/// The input under way, on disk: an abort leaves it there.
struct UnderWay {
    file: File,
    path: PathBuf,
}

impl UnderWay {
    fn create(name: &str, seed: u64) -> std::io::Result<Self> {
        let folder = corpus(name);
        std::fs::create_dir_all(&folder)?;
        let path = folder.join(format!("aborted-{seed}.bin"));
        Ok(Self { file: File::create(&path)?, path })
    }

    fn put(&self, input: &[u8]) {
        let written = self.file.set_len(input.len() as u64).and_then(|()| self.file.write_all_at(input, 0));
        written.expect("the corpus can be written");
    }

    fn done(self) {
        drop(std::fs::remove_file(&self.path));
        // Stays where something is kept in it.
        drop(self.path.parent().map(std::fs::remove_dir));
    }
}

fn run(target: &Target, time: Duration, seed: u64) -> Result<u64, String> {
    let name = target.0;
    let under_way = UnderWay::create(name, seed).map_err(|error| format!("{name}: corpus: {error}"))?;
    let end = Instant::now() + time;
    let tried = mutate::run(target, seed, |_| Instant::now() < end, |input| under_way.put(input));
    let told = tried.map_err(|found| {
        let path = corpus(name).join(format!("seed-{seed}-{}.bin", found.input.len()));
        let saved = std::fs::write(&path, &found.input);
        format!("{} ({}: {saved:?})", found.what, path.display())
    });
    under_way.done();
    told
}

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let wanted = args.next().unwrap_or_else(|| "all".into());
    let number = |text: Option<String>, usual: u64| text.and_then(|t| t.parse().ok()).unwrap_or(usual);
    let time = Duration::from_secs(number(args.next(), 10));
    let seed = number(args.next(), 1);
    let limit = Rlimit { current: Some(ADDRESSES), maximum: getrlimit(Resource::As).maximum };
    if let Err(error) = setrlimit(Resource::As, limit) {
        eprintln!("memory is not limited: {error}");
    }
    let mut code = ExitCode::SUCCESS;
    let mut found = 0;
    for target in TARGETS.iter().filter(|t| wanted == "all" || t.0 == wanted) {
        found += 1;
        match run(target, time, seed) {
            Ok(tried) => println!("{}: {tried} inputs, none panics", target.0),
            Err(problem) => {
                eprintln!("{problem}");
                code = ExitCode::FAILURE;
            }
        }
    }
    if found == 0 {
        eprintln!("no target is named {wanted}: {:?}", TARGETS.iter().map(|t| t.0).collect::<Vec<_>>());
        return ExitCode::FAILURE;
    }
    code
}
