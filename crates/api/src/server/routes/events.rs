//! Server-sent events: what the log tells, as it becomes durable. A stream goes on where another broke off.

use std::collections::VecDeque;
use std::sync::Arc;

use arena::State as Fold;
use arena::record::{Derived, Record, Statement};
use arena::spec::{CompetitionId, CompetitionSpec};
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{self, KeepAlive, Sse};
use futures_util::{Stream, stream as streams};
use serde::Deserialize;
use tokio::sync::{OwnedSemaphorePermit, watch};
use utoipa::IntoParams;
use wire::{Head, Seq};

use super::super::App;
use super::super::auth::Viewer;
use super::super::params::Query;
use super::super::problem::ApiError;
use super::super::show::{hex, step_name};
use super::find;
use crate::host::shared::Told;
use crate::limits;
use crate::model::{Event, EventKind, Problem, Time};

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in super::super) struct EventsQuery {
    /// Only of this competition.
    competition: Option<String>,
    /// Only of this entry.
    submission: Option<u64>,
    /// Begin with this block. Default: with what comes next, or behind the `Last-Event-ID`.
    from: Option<u64>,
}

struct Feed {
    app: Arc<App>,
    heads: watch::Receiver<Option<Head>>,
    next: Seq,
    /// Records of the first block that were told already.
    skip: u32,
    competition: Option<CompetitionId>,
    submission: Option<u64>,
    ready: VecDeque<Event>,
    _place: OwnedSemaphorePermit,
}

/// Events as they happen, as server-sent events whose data are JSON.
#[utoipa::path(get, path = "/v1/events", tag = "arena", params(EventsQuery),
    responses((status = 200, body = Event, content_type = "text/event-stream"), (status = 400, body = Problem)))]
pub(in super::super) async fn stream(
    State(app): State<Arc<App>>,
    Query(query): Query<EventsQuery>,
    headers: HeaderMap,
    _viewer: Viewer,
) -> Result<Sse<impl Stream<Item = Result<sse::Event, axum::Error>>>, ApiError> {
    let place = Arc::clone(&app.streams).try_acquire_owned().map_err(|_| ApiError::Busy)?;
    let heads = app.shared.heads();
    let last = headers.get("last-event-id").and_then(|value| value.to_str().ok()).and_then(parse_id);
    let newest = app.shared.head().map_or(Seq(0), |head| head.seq.next());
    let (next, skip) = last.unwrap_or((query.from.map_or(newest, Seq), 0));
    let competition = query.competition.as_deref().map(|name| find(&app.shared.view(), name)).transpose()?;
    let feed = Feed {
        app,
        heads,
        next,
        skip,
        competition,
        submission: query.submission,
        ready: VecDeque::new(),
        _place: place,
    };
    let events = streams::unfold(feed, async |mut feed| {
        let event = feed.next().await?;
        let encoded = sse::Event::default().id(&event.id).json_data(&event);
        Some((encoded, feed))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(limits::STREAM_HEARTBEAT)))
}

/// Where a stream goes on behind an event's id.
fn parse_id(text: &str) -> Option<(Seq, u32)> {
    let (block, record) = text.split_once('.')?;
    Some((Seq(block.parse().ok()?), record.parse::<u32>().ok()?.checked_add(1)?))
}

impl Feed {
    /// The next event; none when the host ends or its log fails.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            self.heads.borrow_and_update();
            let blocks = self.app.shared.blocks(self.next, limits::STREAM_BLOCKS).await.ok()?;
            if blocks.is_empty() {
                self.heads.changed().await.ok()?;
                continue;
            }
            let view = self.app.shared.view();
            for told in blocks {
                let skip = std::mem::take(&mut self.skip);
                self.next = told.seq.next();
                let wanted = |event: &Event| {
                    let here = |id: CompetitionId| event.competition_id.as_deref() == Some(&hex(id));
                    self.competition.is_none_or(here)
                        && self.submission.is_none_or(|id| event.submission_id == Some(id))
                };
                let all = events(&view.state, &told).filter(|(index, _)| *index >= skip);
                self.ready.extend(all.map(|(_, event)| event).filter(wanted));
            }
        }
    }
}

/// What a block tells. Scores are not told: whoever may know them asks.
fn events<'a>(state: &'a Fold, told: &'a Told) -> impl Iterator<Item = (u32, Event)> + 'a {
    (0..).zip(told.records.iter()).filter_map(move |(index, record)| {
        let mut event = tell(state, record)?;
        event.id = format!("{}.{index}", told.seq);
        event.at = Time(told.time);
        Some((index, event))
    })
}

fn tell(state: &Fold, record: &Record) -> Option<Event> {
    let new = |kind| Event {
        id: String::new(),
        kind,
        at: Time(wire::Millis(0)),
        competition_id: None,
        round_number: None,
        submission_id: None,
        key: None,
        text: None,
    };
    let round = |kind, competition: &CompetitionId, round: u32, text: Option<String>| {
        Some(Event { competition_id: Some(hex(competition)), round_number: Some(round), text, ..new(kind) })
    };
    let entry = |kind, id: arena::record::EntryId| {
        let entry = state.entry(id)?;
        Some(Event {
            competition_id: Some(hex(entry.competition)),
            round_number: Some(entry.round.0),
            submission_id: Some(id.0),
            key: Some(hex(entry.entrant)),
            ..new(kind)
        })
    };
    match record {
        Record::Control(_) => None,
        Record::Stated(envelope) => match wire::from_bytes(&envelope.body).ok()? {
            Statement::Open { spec } => {
                let spec = CompetitionSpec::parse(&spec).ok()?;
                let (id, key) = (Some(hex(spec.id())), Some(hex(envelope.sender)));
                Some(Event {
                    competition_id: id,
                    key,
                    text: Some(spec.name),
                    ..new(EventKind::CompetitionOpened)
                })
            }
            Statement::Submit { seal, .. } => entry(EventKind::Submitted, state.entry_of_seal(&seal)?.id),
            Statement::Unseal { entry: id, .. } => entry(EventKind::Unsealed, id),
            Statement::Announce { competition, text } => Some(Event {
                competition_id: competition.map(hex),
                key: Some(hex(envelope.sender)),
                text: Some(text),
                ..new(EventKind::Announced)
            }),
            Statement::Register { competition, keys, enter } => {
                let words = if enter { "may enter" } else { "may enter no more" };
                Some(Event {
                    competition_id: Some(hex(competition)),
                    key: Some(hex(envelope.sender)),
                    text: Some(format!("{} keys {words}", keys.len())),
                    ..new(EventKind::Registered)
                })
            }
            Statement::Describe { entry: id, about } => {
                Some(Event { text: Some(about.title), ..entry(EventKind::Described, id)? })
            }
            _ => None,
        },
        Record::Derived(derived) => match derived {
            Derived::RoundOpened { competition, round: number, .. } => {
                round(EventKind::RoundOpened, competition, number.0, None)
            }
            Derived::Advanced { competition, round: number, step } => {
                round(EventKind::RoundAdvanced, competition, number.0, Some(step_name(*step).to_owned()))
            }
            Derived::InputsFixed { competition, round: number, .. } => {
                round(EventKind::RoundAdvanced, competition, number.0, Some("evaluating".to_owned()))
            }
            Derived::RoundCompleted { competition, round: number, takeover, .. } => {
                let event = round(EventKind::RoundCompleted, competition, number.0, None)?;
                Some(Event { submission_id: takeover.map(|entry| entry.0), ..event })
            }
            Derived::RoundVoid { competition, round: number, reason } => {
                round(EventKind::RoundVoid, competition, number.0, Some(reason.to_string()))
            }
            Derived::Completed { competition } => {
                Some(Event { competition_id: Some(hex(competition)), ..new(EventKind::CompetitionCompleted) })
            }
            Derived::Leased { entry: id, judge, .. } => {
                Some(Event { key: Some(hex(judge)), ..entry(EventKind::Leased, *id)? })
            }
            Derived::Settled { entry: id, .. } => entry(EventKind::Settled, *id),
            _ => None,
        },
    }
}
