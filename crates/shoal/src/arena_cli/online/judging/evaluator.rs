//! This machine's evaluator, as the judge's loop asks for it.

use std::sync::Arc;

use ::judge::{Case, Code, Input, Judge};
use anyhow::Result;
use api::judge::{Assignment, Evaluate, EvaluateError, Finding};
use api::model::EntryRole;
use arena::spec::{CompetitionSpec, Kind, Source};
use async_trait::async_trait;

use crate::arena_cli::eval;

/// The evaluator of `shoal arena eval`: the same verdict on the same inputs.
pub(in crate::arena_cli::online) struct Evaluator {
    judge: Arc<Judge>,
}

impl Evaluator {
    /// Starts the runtime; without a jail it judges components only, and says so. Where the compiler has no limits it
    /// judges nothing.
    pub(in crate::arena_cli::online) fn new() -> Result<Self> {
        sandbox::contained()?;
        let judge = eval::judge()?;
        if let Err(reason) = judge.can_judge_programs() {
            tracing::warn!(%reason, "this machine cannot hold programs: only components are judged");
        }
        Ok(Self { judge: Arc::new(judge) })
    }
}

#[async_trait]
impl Evaluate for Evaluator {
    fn covers(&self, spec: &CompetitionSpec, reference: Option<&[u8]>) -> Result<(), EvaluateError> {
        self.judge.covers(spec, reference).map_err(|error| EvaluateError(error.to_string()))
    }

    async fn evaluate(&self, assignment: Assignment) -> Result<Finding, EvaluateError> {
        let judge = Arc::clone(&self.judge);
        // It computes for seconds: not where requests are served.
        let done = tokio::task::spawn_blocking(move || evaluate(&judge, &assignment));
        done.await.map_err(|error| EvaluateError(error.to_string()))?
    }
}

fn evaluate(judge: &Judge, assignment: &Assignment) -> Result<Finding, EvaluateError> {
    let spec = &assignment.spec;
    let baseline = assignment.baseline.as_ref().filter(|_| assignment.role != EntryRole::Baseline);
    let wrong = |error: &dyn std::fmt::Display| EvaluateError(error.to_string());
    let reference = assignment.reference.as_ref().map(|bytes| Code::reference(bytes));
    let case = Case {
        spec,
        seed: assignment.seed,
        entry: Code { form: assignment.form, bytes: &assignment.code },
        baseline: baseline.map(|(form, bytes)| Code { form: *form, bytes }),
        reference: reference.transpose().map_err(|error| wrong(&error))?,
        environment: assignment.environment.as_deref(),
    };
    let inputs = match spec.inputs.source {
        Source::Generator => judge.generate(&case).map_err(|error| wrong(&error))?,
        Source::Pool => {
            let read = |(index, (_, blob)): (usize, &(wire::Hash, bytes::Bytes))| {
                let name = format!("item {index}");
                match spec.kind {
                    Kind::Codec => Input::of_blob(name, blob, None, ::judge::Direction::Forward),
                    Kind::Program => Input::plain(name, &blob[..]),
                }
            };
            let all: Result<Vec<Input>, _> = assignment.items.iter().enumerate().map(read).collect();
            all.map_err(|error| wrong(&error))?
        }
    };
    let evaluation = judge.evaluate(&case, &inputs).map_err(|error| wrong(&error))?;
    Ok(Finding { verdict: evaluation.verdict, log: evaluation.log.into() })
}
