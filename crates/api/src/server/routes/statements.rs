//! Statements in, the log out.

use std::sync::{Arc, PoisonError};

use arena::Fold as _;
use arena::record::{Input, STATEMENT_KIND, Statement};
use arena::spec::CompetitionSpec;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use ledger::fold::Unfit;
use serde::Deserialize;
use utoipa::IntoParams;
use wire::{Envelope, Seq};

use super::super::App;
use super::super::auth::{Viewer, read};
use super::super::params::Query;
use super::super::problem::ApiError;
use crate::limits;
use crate::model::{BatchAnswer, Problem, StatementAnswer};

/// A statement: a signed envelope in the protocol's binary encoding. Answered when its block is durable; the same
/// envelope again gets the same answer.
#[utoipa::path(post, path = "/v1/statements", tag = "statements",
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, body = StatementAnswer), (status = 400, body = Problem), (status = 401, body = Problem),
        (status = 403, body = Problem), (status = 409, body = Problem), (status = 429, body = Problem)))]
pub(in super::super) async fn state(
    State(app): State<Arc<App>>,
    body: Body,
) -> Result<Json<StatementAnswer>, ApiError> {
    let body = read(body).await?;
    let malformed = |reason: String| ApiError::from(Unfit::Malformed { reason });
    let envelope: Envelope = wire::from_bytes(&body).map_err(|error| malformed(error.to_string()))?;
    let statement = app.examined(&envelope).await?;
    let len = body.len();
    let block = app.commit(Input::Stated(envelope), len).await?;
    Ok(Json(app.told(block, &statement)))
}

/// Several statements in the order given, in one block where they fit; an answer each.
#[utoipa::path(post, path = "/v1/statements/batch", tag = "statements",
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, body = Vec<BatchAnswer>), (status = 400, body = Problem)))]
pub(in super::super) async fn batch(
    State(app): State<Arc<App>>,
    body: Body,
) -> Result<Json<Vec<BatchAnswer>>, ApiError> {
    let body = read(body).await?;
    let malformed = |reason: String| ApiError::from(Unfit::Malformed { reason });
    let envelopes: Vec<Envelope> = wire::from_bytes(&body).map_err(|error| malformed(error.to_string()))?;
    if envelopes.len() > limits::BATCH {
        return Err(ApiError::BadRequest(format!("at most {} statements in a batch", limits::BATCH)));
    }
    // All are examined, then handed in one after the other; only then the answers are awaited.
    let mut examined = Vec::with_capacity(envelopes.len());
    for envelope in envelopes {
        examined.push((app.examined(&envelope).await, envelope));
    }
    let mut waiting = Vec::with_capacity(examined.len());
    for (statement, envelope) in examined {
        waiting.push(statement.map(|statement| {
            let len = envelope.body.len() + 256;
            (app.hand_in(Input::Stated(envelope), len), statement)
        }));
    }
    let mut answers = Vec::with_capacity(waiting.len());
    for waiting in waiting {
        let answer = match waiting {
            Ok((outcome, statement)) => app.outcome(outcome).await.map(|block| app.told(block, &statement)),
            Err(error) => Err(error),
        };
        answers.push(match answer {
            Ok(accepted) => BatchAnswer { status: 200, accepted: Some(accepted), problem: None },
            Err(error) => {
                let (status, problem) = error.problem();
                BatchAnswer { status: status.as_u16(), accepted: None, problem: Some(problem) }
            }
        });
    }
    Ok(Json(answers))
}

impl App {
    /// Checks what the fold cannot: rates, that judges can fetch code and inputs, that nobody else could before.
    async fn examined(&self, envelope: &Envelope) -> Result<Statement, ApiError> {
        // A signature that does not verify must not use up somebody's rate.
        envelope.verify(&self.run()).map_err(|error| ApiError::from(Unfit::from(error)))?;
        self.rate(envelope.sender)?;
        if envelope.kind != STATEMENT_KIND {
            return Err(Unfit::Kind { kind: envelope.kind }.into());
        }
        let statement: Statement = wire::from_bytes(&envelope.body)
            .map_err(|error| ApiError::from(Unfit::Malformed { reason: error.to_string() }))?;
        // The hash alone does not do: it is public once another has opened the same code.
        if let Statement::Unseal { entry, code, .. } = &statement
            && !self.brought.lock().unwrap_or_else(PoisonError::into_inner).has(envelope.sender, *code)
        {
            return Err(ApiError::BadRequest(format!(
                "upload the code of entry {entry} first: judges could not fetch it"
            )));
        }
        if let Statement::Open { spec } = &statement
            && let Ok(spec) = CompetitionSpec::parse(spec)
        {
            for (key, hash) in spec.files() {
                if !self.blobs.has(hash).await? {
                    return Err(ApiError::BadRequest(format!(
                        "upload what the spec names first ({key} = {hash}: shoal arena open SPEC --with FILE): judges could not fetch it"
                    )));
                }
            }
        }
        if let Statement::Pool { competition, round, items } = &statement {
            {
                let view = self.shared.view();
                let state = &view.state;
                // What was accepted is acknowledged again.
                if state.last(&envelope.sender).is_some_and(|last| last.hash == envelope.hash()) {
                    return Ok(statement);
                }
                // First whether this key may name it: nobody else hears what is stored here, or makes the host look.
                state.may_pool(envelope.sender, competition, *round, items)?;
            }
            self.pool_is_sealed(items).await?;
        }
        Ok(statement)
    }

    fn told(&self, block: Seq, statement: &Statement) -> StatementAnswer {
        let mut answer =
            StatementAnswer { block: block.0, submission_id: None, round_number: None, competition_id: None };
        match statement {
            Statement::Submit { seal, .. } => {
                let view = self.shared.view();
                let entry = view.state.entry_of_seal(seal);
                answer.submission_id = entry.map(|entry| entry.id.0);
                answer.round_number = entry.map(|entry| entry.round.0);
            }
            Statement::Open { spec } => {
                answer.competition_id = CompetitionSpec::parse(spec).ok().map(|spec| spec.id().to_string());
            }
            _ => {}
        }
        answer
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in super::super) struct LogQuery {
    /// First block. Default: the whole log from its header on.
    from: Option<u64>,
}

/// The log, signed and hash-chained: a header, then each block behind its length. Everybody can fold it and compare.
/// Blocks with verdicts of rounds that are not over come when those are.
#[utoipa::path(get, path = "/v1/log", tag = "statements", params(LogQuery),
    responses((status = 200, body = Vec<u8>, content_type = "application/octet-stream"), (status = 400, body = Problem)))]
pub(in super::super) async fn log(
    State(app): State<Arc<App>>,
    Query(query): Query<LogQuery>,
    _viewer: Viewer,
) -> Result<Response, ApiError> {
    let from = Seq(query.from.unwrap_or(0));
    let (end, host) = {
        let view = app.shared.view();
        let head = app.shared.head().map_or(0, |head| head.seq.0 + 1);
        (view.index.hidden_from().map_or(head, |hidden| hidden.0.min(head)), view.state.host())
    };
    let mut bytes = if query.from.is_none() {
        ledger::file::LogHeader { run: app.run(), orchestrator: host }.to_bytes()
    } else {
        Vec::new()
    };
    let mut next = from;
    while next.0 < end && bytes.len() < limits::LOG_ANSWER_BYTES {
        let blocks =
            app.verdicts.read(next, (end - next.0).min(u64::from(limits::STREAM_BLOCKS)) as u32).await?;
        if blocks.is_empty() {
            break;
        }
        for block in blocks {
            bytes.extend_from_slice(&(block.len() as u32).to_le_bytes());
            bytes.extend_from_slice(&block);
            next = next.next();
        }
    }
    let headers = [
        (header::CONTENT_TYPE.as_str(), "application/octet-stream".to_owned()),
        ("x-shoal-next", next.0.to_string()),
        ("x-shoal-end", end.to_string()),
    ];
    Ok((headers, bytes).into_response())
}
