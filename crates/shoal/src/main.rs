//! The one binary: command line, run folders, supervision of a local swarm, live view.
//!
//! It must never decide what the protocol, the model or the daemons decide: it reads arguments, calls them, shows results.

mod arena_cli;
mod bench;
mod champion;
mod cli;
mod codec_cli;
mod failure;
mod interrupt;
mod key;
mod lend;
mod orchestrator;
mod parent;
mod prepare;
mod run;
mod sample;
mod tokenizer;
mod unit;
mod up;
mod verify;
mod watch;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};

/// Stack of the thread that does the work on Windows, which gives the first one less than others do.
const STACK_BYTES: usize = 8 << 20;

/// Exit code of a program that panicked.
const PANICKED: u8 = 101;

fn main() -> ExitCode {
    if !cfg!(windows) {
        return work();
    }
    let worker = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(work);
    match worker.map(std::thread::JoinHandle::join) {
        Ok(Ok(code)) => code,
        Ok(Err(_)) => ExitCode::from(PANICKED),
        Err(error) => failure::report(&anyhow::Error::new(error).context("no thread to work in"), false),
    }
}

fn work() -> ExitCode {
    // Components are compiled, and jails supervised, by children that are this binary.
    sandbox::child::run_if_asked();
    let cli = Cli::parse();
    log_to_stderr(cli.log.as_deref());
    if cli.child {
        parent::die_with_it();
    }
    let json = cli.json;
    let done = match cli.command {
        Command::Up(args) => up::run(&args, json),
        Command::Key(args) => key::run(&args, json),
        Command::Run(args) => run::run(args, json),
        Command::Orchestrator(args) => orchestrator::run(args, json),
        Command::Sample(args) => sample::run(&args, json),
        Command::Tokenizer(args) => tokenizer::run(args, json),
        Command::Bench(args) => bench::run(args, json),
        Command::Verify(args) => verify::run(&args, json),
        Command::Miner(args) => lend::miner(&args, json),
        Command::Validator(args) => lend::validator(&args, json),
        Command::Watch(args) => watch::run(&args, json),
        Command::Arena(args) => arena_cli::run(&args, json),
        Command::Codec(args) => codec_cli::run(args).map(|()| ExitCode::SUCCESS),
    };
    match done {
        Ok(code) => code,
        Err(error) => failure::report(&error, json),
    }
}

/// Logs go to stderr, results to stdout. `--log`, else `SHOAL_LOG`, else warnings.
fn log_to_stderr(level: Option<&str>) {
    use tracing_subscriber::EnvFilter;
    let given = level.map(str::to_owned).or_else(|| std::env::var("SHOAL_LOG").ok());
    let filter =
        given.and_then(|text| EnvFilter::try_new(text).ok()).unwrap_or_else(|| EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        // It would say on stderr, and panic there, that stderr cannot be written to.
        .log_internal_errors(false)
        .init();
}
