//! What judges ask for, and what those in charge enter.

use std::sync::Arc;

use arena::record::{Control, Input, Step};
use arena::state::{Job, Slot};
use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;
use wire::{Hash, Millis, NodeId};

use super::super::App;
use super::super::auth::{Authored, Known};
use super::super::params::{Path, Query};
use super::super::problem::ApiError;
use super::super::show::{hex, round_of};
use super::{find, find_round, parse_hash, parse_key, patience};
use crate::host::shared::View;
use crate::model::{
    AdmitJudge, Due, FindingView, Gated, LeaseView, NonceDue, PaymentEntry, Problem, RoundInputs,
    StatementAnswer, Time, WorkAnswer,
};

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(in super::super) struct WorkQuery {
    /// Mark of the last answer: the next comes when there is something else to say.
    mark: Option<String>,
    /// How long to wait for it, seconds, at most 25.
    wait_s: Option<u64>,
}

/// What the judge who asks has to do now: nonces to bind or open, leases to judge, bind or show.
#[utoipa::path(get, path = "/v1/judge/work", tag = "judging", params(WorkQuery),
    responses((status = 200, body = WorkAnswer), (status = 400, body = Problem), (status = 401, body = Problem), (status = 403, body = Problem)))]
pub(in super::super) async fn work(
    State(app): State<Arc<App>>,
    Query(query): Query<WorkQuery>,
    Known(judge): Known,
) -> Result<Json<WorkAnswer>, ApiError> {
    let deadline = tokio::time::Instant::now() + patience(query.wait_s);
    let mut heads = app.shared.heads();
    loop {
        heads.borrow_and_update();
        let answer = {
            let view = app.shared.view();
            if !view.state.is_judge(judge) {
                return Err(ApiError::Forbidden("an admitted judge"));
            }
            due(&view, judge)
        };
        if query.mark.as_ref() != Some(&answer.mark) {
            return Ok(Json(answer));
        }
        match tokio::time::timeout_at(deadline, heads.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return Ok(Json(answer)),
        }
    }
}

fn due(view: &View, judge: NodeId) -> WorkAnswer {
    let state = &view.state;
    let mut nonces = Vec::new();
    for competition in state.competitions().values() {
        for round in competition.live.values() {
            let due = match (round.step, round.nonces.get(&judge)) {
                (Step::Open | Step::Pooling, None) => Due::Bind,
                (Step::Drawing, Some(nonce)) if nonce.opened.is_none() => Due::Open,
                _ => continue,
            };
            let competition_id = hex(competition.id);
            nonces.push(NonceDue { competition_id, round_number: round.number.0, due });
        }
    }
    let leases: Vec<LeaseView> = state
        .leases_of(judge)
        .filter_map(|(id, lease)| {
            let entry = state.entry(lease.entry)?;
            let (job, code) = (state.job(lease.entry)?, entry.code?);
            let slot = job.slots.iter().find(|slot| slot.lease == id)?;
            Some(LeaseView {
                lease: id.0,
                finding: finding(job, slot),
                submission_id: entry.id.0,
                competition_id: hex(entry.competition),
                round_number: entry.round.0,
                expires: Some(lease.expires).filter(|at| *at < Millis(u64::MAX)).map(Time),
                form: entry.form.name().to_owned(),
                role: entry.role.into(),
                code: hex(code.hash),
                code_bytes: code.bytes,
            })
        })
        .collect();
    let (wanted, queued) = (state.wanted(judge), state.queued(judge));
    let said = serde_json::to_vec(&(&nonces, &leases, wanted)).unwrap_or_default();
    WorkAnswer { mark: Hash::of(&said).short(), nonces, leases, wanted, queued }
}

fn finding(job: &Job, slot: &Slot) -> FindingView {
    match (slot.seal, job.showing) {
        (None, _) => FindingView::ToJudge,
        (Some(_), true) if slot.verdict.is_none() => FindingView::ToShow,
        (Some(_), _) => FindingView::Bound,
    }
}

/// Seed and inputs of a round: for its judges as soon as they are fixed, for everybody once it is over.
#[utoipa::path(get, path = "/v1/judge/rounds/{competition}/{round}", tag = "judging",
    params(("competition" = String, Path, description = "Id, first digits of the id, or name"),
        ("round" = String, Path, description = "Number, `current` or `last`")),
    responses((status = 200, body = RoundInputs), (status = 403, body = Gated), (status = 404, body = Problem)))]
pub(in super::super) async fn round_inputs(
    State(app): State<Arc<App>>,
    Path((name, round)): Path<(String, String)>,
    Known(judge): Known,
) -> Result<Json<RoundInputs>, ApiError> {
    let view = app.shared.view();
    let id = find(&view, &name)?;
    let number = find_round(&view, &id, &round)?;
    let found = view.state.competition(&id).ok_or_else(|| ApiError::no_competition(&id))?;
    let answer = |seed: &Hash, items: &[Hash]| {
        Ok(Json(RoundInputs { seed: hex(seed), items: items.iter().map(hex).collect() }))
    };
    if let Some(live) = found.live.get(&number) {
        if view.state.is_judge(judge) && live.step == Step::Judging {
            return answer(&live.seed, &live.items);
        }
        let word = round_of(&view.state, &id, number).0;
        view.state.inputs_gate(&id, number).map_err(|gate| ApiError::Gated(gate, Some(word)))?;
    }
    let summary = found.summaries.iter().rev().find(|summary| summary.round == number);
    let summary = summary.ok_or(ApiError::NotFound { what: "round", name: round })?;
    answer(&summary.seed, &summary.items)
}

impl App {
    async fn enter(&self, signed: &Authored, control: Control) -> Result<Json<StatementAnswer>, ApiError> {
        if !Self::in_charge(&self.shared.view().state, signed.key) {
            return Err(ApiError::Forbidden("the host, or an owner of the arena"));
        }
        let block = self.commit(Input::Control(control), 256).await?;
        Ok(Json(StatementAnswer {
            block: block.0,
            submission_id: None,
            round_number: None,
            competition_id: None,
        }))
    }
}

fn parsed<'a, T: Deserialize<'a>>(signed: &'a Authored) -> Result<T, ApiError> {
    serde_json::from_slice(&signed.body).map_err(|error| ApiError::BadRequest(error.to_string()))
}

/// Admits a judge. For the host and the owners of the arena.
#[utoipa::path(post, path = "/v1/judges", tag = "judging", request_body = AdmitJudge,
    responses((status = 200, body = StatementAnswer), (status = 401, body = Problem), (status = 403, body = Problem)))]
pub(in super::super) async fn admit(
    State(app): State<Arc<App>>,
    signed: Authored,
) -> Result<Json<StatementAnswer>, ApiError> {
    let AdmitJudge { judge, operator } = parsed(&signed)?;
    let judge = parse_key(&judge)?;
    app.enter(&signed, Control::Admitted { judge, operator }).await
}

/// Sends a judge away. For the host and the owners of the arena.
#[utoipa::path(delete, path = "/v1/judges/{key}", tag = "judging",
    params(("key" = String, Path, description = "Key of the judge")),
    responses((status = 200, body = StatementAnswer), (status = 401, body = Problem), (status = 403, body = Problem)))]
pub(in super::super) async fn dismiss(
    State(app): State<Arc<App>>,
    Path(key): Path<String>,
    signed: Authored,
) -> Result<Json<StatementAnswer>, ApiError> {
    let judge = parse_key(&key)?;
    app.enter(&signed, Control::Dismissed { judge }).await
}

/// Enters a payment that arrived. For the host and the owners of the arena.
#[utoipa::path(post, path = "/v1/payments", tag = "judging", request_body = PaymentEntry,
    responses((status = 200, body = StatementAnswer), (status = 401, body = Problem), (status = 403, body = Problem)))]
pub(in super::super) async fn pay(
    State(app): State<Arc<App>>,
    signed: Authored,
) -> Result<Json<StatementAnswer>, ApiError> {
    let PaymentEntry { receipt, payer, amount } = parsed(&signed)?;
    let (receipt, payer) = (parse_hash(&receipt)?, parse_key(&payer)?);
    app.enter(&signed, Control::Paid { receipt, payer, amount }).await
}
