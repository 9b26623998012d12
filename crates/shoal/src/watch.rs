//! Shows a run's progress events: a live view on a terminal, plain lines elsewhere, JSON objects with `--json`.

mod live;
mod plain;
mod view;

use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use node::progress::{Progress, Summary};

use crate::cli::WatchArgs;
use crate::failure::bad_input;
use live::Live;
pub(crate) use plain::champion_line;
use view::View;

/// Longest line of an event, bytes.
const LINE_BYTES_MAX: usize = 4 << 20;

/// Whatever shows events.
#[derive(Debug)]
pub(crate) enum Show {
    /// Objects go through to stdout.
    Json,
    /// A picture on stderr that follows the run.
    Live(Box<Live>),
    /// A line on stderr now and then.
    Plain {
        /// Picture to tell from.
        view: Box<View>,
        /// When a status was told last.
        told: Option<Instant>,
    },
}

impl Show {
    /// As fits `--json` and the terminal.
    pub(crate) fn new(json: bool) -> Self {
        if json {
            return Self::Json;
        }
        if std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb") {
            return Self::Live(Box::default());
        }
        Self::Plain { view: Box::default(), told: None }
    }

    /// Shows one event.
    pub(crate) fn event(&mut self, event: &Progress) -> Result<()> {
        match self {
            Self::Json => print(&serde_json::to_string(event)?),
            Self::Live(live) => {
                let drawn = live.event(event);
                self.or_lines(drawn, plain::line(event).as_deref())
            }
            Self::Plain { view, told } => {
                view.apply(event);
                let line = match event {
                    Progress::Status(status) => {
                        let due = told.is_none_or(|at| at.elapsed() >= plain::STATUS_EVERY);
                        due.then(|| {
                            *told = Some(Instant::now());
                            plain::status(status)
                        })
                    }
                    other => plain::line(other),
                };
                line.map_or(Ok(()), |line| note(&line))
            }
        }
    }

    /// Says something that is no event.
    pub(crate) fn say(&mut self, line: &str) -> Result<()> {
        match self {
            Self::Live(live) => {
                let drawn = live.say(line);
                self.or_lines(drawn, Some(line))
            }
            Self::Json | Self::Plain { .. } => note(line),
        }
    }

    /// Goes on with plain lines, from the one that was `missed`, where the terminal cannot be drawn on.
    fn or_lines(&mut self, drawn: Result<()>, missed: Option<&str>) -> Result<()> {
        let (Self::Live(live), Err(error)) = (&mut *self, drawn) else { return Ok(()) };
        let view = Box::new(std::mem::take(&mut live.view));
        *self = Self::Plain { view, told: None };
        note(&format!("{error:#}: lines follow instead of a picture"))?;
        missed.map_or(Ok(()), note)
    }

    /// Draws again, so that clocks go on.
    pub(crate) fn tick(&mut self) -> Result<()> {
        match self {
            Self::Live(live) => {
                let drawn = live.draw();
                self.or_lines(drawn, None)
            }
            Self::Json | Self::Plain { .. } => Ok(()),
        }
    }

    /// Ends the picture and prints the summary to stdout.
    pub(crate) fn finish(&mut self, summary: Option<&Summary>) -> Result<()> {
        if let Self::Live(live) = self {
            let closed = live.close();
            self.or_lines(closed, None)?;
        }
        match (self, summary) {
            (Self::Json, Some(summary)) => {
                print(&serde_json::to_string(&Progress::Summary(Box::new(summary.clone())))?)
            }
            (_, Some(summary)) => print(&plain::summary(summary)),
            (_, None) => Ok(()),
        }
    }
}

/// Writes a line to stdout; a closed pipe is an error like any other.
pub(crate) fn print(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).context("cannot write to standard output")
}

/// Writes a line to stderr.
fn note(line: &str) -> Result<()> {
    writeln!(std::io::stderr().lock(), "{line}").context("cannot write to standard error")
}

/// `shoal watch`.
pub(crate) fn run(args: &WatchArgs, json: bool) -> Result<ExitCode> {
    let input: Box<dyn BufRead> = match &args.file {
        Some(path) => {
            let file = std::fs::File::open(path)
                .map_err(|error| bad_input(format!("cannot read {}: {error}", path.display())))?;
            Box::new(BufReader::new(file))
        }
        None => Box::new(std::io::stdin().lock()),
    };
    let frame = args.frame.as_deref().map(frame_size).transpose()?;
    let mut show = if frame.is_some() { Show::Live(Box::default()) } else { Show::new(json) };
    let mut summary = None;
    for (index, line) in lines(input).enumerate() {
        let line = line.context("cannot read events")?;
        if line.trim().is_empty() {
            continue;
        }
        let event: Progress = serde_json::from_str(&line)
            .map_err(|error| bad_input(format!("line {} is not an event of a run: {error}", index + 1)))?;
        match (&mut show, frame) {
            (Show::Live(live), Some(_)) => live.note(&event),
            _ if matches!(event, Progress::Summary(_)) => {}
            (show, _) => show.event(&event)?,
        }
        if let Progress::Summary(found) = event {
            summary = Some(found);
        }
    }
    if let (Show::Live(live), Some((width, height))) = (&mut show, frame) {
        print(&live.frame(width, height)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    show.finish(summary.as_deref())?;
    Ok(ExitCode::SUCCESS)
}

/// Lines of bounded length.
fn lines(mut input: Box<dyn BufRead>) -> impl Iterator<Item = std::io::Result<String>> {
    std::iter::from_fn(move || {
        let mut line = String::new();
        match std::io::Read::take(&mut input, LINE_BYTES_MAX as u64).read_line(&mut line) {
            Ok(0) => None,
            Ok(_) => Some(Ok(line)),
            Err(error) => Some(Err(error)),
        }
    })
}

fn frame_size(text: &str) -> Result<(u16, u16)> {
    let parsed = text.split_once('x').and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
    parsed
        .filter(|(w, h)| (20..=500).contains(w) && (4..=200).contains(h))
        .ok_or_else(|| bad_input(format!("--frame {text}: write it like 80x20")))
}
