//! `shoal arena dashboard`: a terminal around the pure screens of `dash`.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use api::client::{CompetitionQuery, SubmissionQuery};
use api::model::Notes;
use api::{Client, ClientError};
use clap::Args;
use dash::{Answer, BOARD, COMPETITIONS, Dash, Key, LINES, PAGE, Scene, Wish};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Where;
use crate::failure::bad_input;

/// Pause between two drawings, for countdowns.
const TICK: Duration = Duration::from_secs(1);
/// Shortest pause between two refreshes that events ask for.
const REFRESH: Duration = Duration::from_millis(500);
/// Pause between two looks for keys.
const KEYS: Duration = Duration::from_millis(50);
/// Keys and answers that wait.
const QUEUE: usize = 64;
/// Rounds that the screen of a competition asks for.
const ROUNDS: u32 = 5;

#[derive(Args, Debug)]
pub(crate) struct DashboardArgs {
    #[command(flatten)]
    at: Where,
}

/// `shoal arena dashboard`.
pub(super) async fn run(args: &DashboardArgs) -> Result<ExitCode> {
    if !std::io::IsTerminal::is_terminal(&std::io::stdout()) {
        return Err(bad_input(
            "the dashboard needs a terminal; `list`, `show` and `submissions` print the same",
        ));
    }
    let client = Arc::new(args.at.client().await?);
    let mut terminal = ratatui::try_init().context("cannot draw on this terminal")?;
    let shown = show(&client, &mut terminal).await;
    ratatui::try_restore()?;
    shown?;
    Ok(ExitCode::SUCCESS)
}

async fn show(client: &Arc<Client>, terminal: &mut ratatui::DefaultTerminal) -> Result<()> {
    let (mut dash, wishes) = Dash::new(client.address());
    let (answers, mut answered) = mpsc::channel(QUEUE);
    let (pressed, mut keys) = mpsc::channel(QUEUE);
    let end = CancellationToken::new();
    let _end_with_this = end.clone().drop_guard();
    // Reading keys blocks: it has a thread of its own.
    let ended = end.clone();
    tokio::task::spawn_blocking(move || read_keys(&pressed, &ended));
    let mut events = client.events(None, None, None);
    let mut ticks = tokio::time::interval(TICK);
    let mut stale = false;
    let mut refreshed = tokio::time::Instant::now();
    // When the host is asked for events again, after it was away. Keys and answers do not wait for that.
    let mut listen_from = refreshed;
    ask(client, wishes, &answers);
    loop {
        let size = terminal.size()?;
        dash.resize(size.width, size.height);
        terminal.draw(|frame| dash::draw(frame, &Scene { dash: &dash, now: client.now() }))?;
        let wishes = tokio::select! {
            key = keys.recv() => match key {
                Some(Some(key)) => dash.key(key),
                Some(None) => Vec::new(), // drawn anew
                None => return Ok(()),
            },
            Some(answer) = answered.recv() => dash.answer(answer),
            event = async {
                tokio::time::sleep_until(listen_from).await;
                events.next().await
            } => {
                stale = true;
                match event {
                    Ok(event) => dash.happened(&event),
                    Err(_) => listen_from = tokio::time::Instant::now() + REFRESH,
                }
                Vec::new()
            },
            _ = ticks.tick() => Vec::new(),
            () = tokio::time::sleep_until(refreshed + REFRESH), if stale => {
                (stale, refreshed) = (false, tokio::time::Instant::now());
                dash.refresh()
            }
        };
        if wishes.contains(&Wish::Quit) {
            return Ok(());
        }
        ask(client, wishes, &answers);
    }
}

/// Reads keys until the screen ends; an event that is no key asks to draw anew.
fn read_keys(pressed: &mpsc::Sender<Option<Key>>, end: &CancellationToken) {
    while !end.is_cancelled() {
        let key = match event::poll(KEYS) {
            Ok(false) => continue,
            Ok(true) => match event::read() {
                Ok(Event::Key(key)) if key.kind != KeyEventKind::Release => key_of(key).map(Some),
                Ok(Event::Resize(..)) => Some(None),
                Ok(_) => None,
                Err(_) => return,
            },
            Err(_) => return,
        };
        if let Some(key) = key
            && pressed.blocking_send(key).is_err()
        {
            return;
        }
    }
}

fn key_of(event: KeyEvent) -> Option<Key> {
    let key = match event.code {
        KeyCode::Char('c') if event.modifiers.contains(KeyModifiers::CONTROL) => Key::Char('q'),
        KeyCode::Char(c) => Key::Char(c),
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Escape,
        KeyCode::Backspace => Key::Backspace,
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        _ => return None,
    };
    Some(key)
}

/// Asks beside the screen, so that it never waits for the host.
fn ask(client: &Arc<Client>, wishes: Vec<Wish>, answers: &mpsc::Sender<Answer>) {
    for wish in wishes {
        let (client, answers) = (Arc::clone(client), answers.clone());
        tokio::spawn(async move {
            let answer = match grant(&client, wish).await {
                Ok(Some(answer)) => answer,
                Ok(None) => return,
                Err(error) => Answer::Failed(error.to_string()),
            };
            drop(answers.send(answer).await);
        });
    }
}

async fn grant(client: &Client, wish: Wish) -> Result<Option<Answer>, ClientError> {
    let answer = match wish {
        Wish::Quit => return Ok(None),
        Wish::Competitions { completed, start } => {
            let query = CompetitionQuery { completed, start, count: COMPETITIONS, ..Default::default() };
            Answer::Competitions(Box::new(client.competitions(&query).await?))
        }
        Wish::Competition { id } => {
            let (found, rounds) = tokio::try_join!(client.competition(&id), client.rounds(&id, 0, ROUNDS))?;
            Answer::Competition(Box::new(found), Box::new(rounds))
        }
        Wish::Submissions(wanted) => {
            let query = SubmissionQuery {
                competition: Some(wanted.competition.clone()),
                entrant: wanted.entrant.clone(),
                round: None,
                filter: wanted.filter,
                sort: wanted.sort,
                start: wanted.start,
                count: PAGE,
            };
            let page = client.submissions(&query).await?;
            Answer::Submissions(wanted, Box::new(page))
        }
        Wish::Board { competition, start } => {
            let board = Box::new(client.board(&competition, start, BOARD).await?);
            Answer::Board { competition, start, board }
        }
        Wish::News { competition: None } => {
            Answer::News { competition: None, own: Notes { notes: Vec::new() }, arena: client.notes().await? }
        }
        Wish::News { competition: Some(id) } => {
            let (own, arena) = tokio::try_join!(client.competition_notes(&id), client.notes())?;
            Answer::News { competition: Some(id), own, arena }
        }
        Wish::Submission { id } => Answer::Submission(Box::new(client.submission(id, false).await?)),
        Wish::File { id, name, start } => match client.file(id, &name, start, LINES).await {
            Err(ClientError::Gated { gate }) => Answer::Gated { id, name, gate: Box::new(gate) },
            other => Answer::File(id, Box::new(other?)),
        },
        Wish::Download { id, name, path, overwrite } => {
            let bytes = client.raw(id, &name).await?;
            // Only the bytes tell an archive; a path that somebody wrote stays as it is.
            let path = if path == dash::proposed_path(id, &name) {
                dash::proposed_path(id, dash::file_name(&name, &bytes))
            } else {
                path
            };
            match save(Path::new(&path), &bytes, overwrite) {
                Ok(()) => Answer::Downloaded(path),
                Err(_) if !overwrite && Path::new(&path).exists() => Answer::Exists { id, name, path },
                Err(error) => Answer::Failed(error.to_string()),
            }
        }
    };
    Ok(Some(answer))
}

/// Writes a file; one that is there is only replaced if that was asked for.
pub(super) fn save(path: &Path, bytes: &[u8], overwrite: bool) -> Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder)
            .map_err(|error| bad_input(format!("{}: {error}", folder.display())))?;
    }
    let mut options = std::fs::OpenOptions::new();
    options.write(true).truncate(overwrite).create(overwrite).create_new(!overwrite);
    let wrong = |error: std::io::Error| bad_input(format!("{}: {error}", path.display()));
    options.open(path).and_then(|mut file| file.write_all(bytes)).map_err(wrong)
}
