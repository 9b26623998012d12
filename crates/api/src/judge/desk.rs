//! One entry's way through a judge: what its evaluation needs is fetched, it is evaluated, its log is uploaded, its verdict kept.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use arena::measure::Verdict;
use arena::record::LeaseId;
use arena::spec::{CompetitionSpec, Form};
use bytes::Bytes;
use wire::Hash;

use super::tally::End;
use super::{Assignment, Evaluate, Finding, form, write};
use crate::client::{Client, ClientError};
use crate::limits;
use crate::model::LeaseView;

/// Rounds kept in memory, and references.
const ROUNDS_KEPT: usize = 4;

/// What evaluations share.
pub(super) struct Desk {
    pub(super) client: Arc<Client>,
    pub(super) evaluator: Arc<dyn Evaluate>,
    rounds: tokio::sync::Mutex<BTreeMap<(String, u32), Arc<RoundDesk>>>,
    /// Generators and evaluators that were fetched.
    references: Mutex<BTreeMap<Hash, Bytes>>,
}

/// A verdict that is kept.
pub(super) struct Found {
    pub(super) end: End,
    /// For people.
    pub(super) words: String,
}

/// What all entries of a round share.
struct RoundDesk {
    spec: Arc<CompetitionSpec>,
    seed: Hash,
    items: Arc<Vec<(Hash, Bytes)>>,
    baseline: Option<(Form, Bytes)>,
    reference: Option<Bytes>,
    environment: Option<Bytes>,
}

impl Desk {
    pub(super) fn new(client: Arc<Client>, evaluator: Arc<dyn Evaluate>) -> Self {
        let (rounds, references) = (tokio::sync::Mutex::default(), Mutex::default());
        Self { client, evaluator, rounds, references }
    }

    pub(super) fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(
        &self,
        text: &str,
    ) -> Result<T, ClientError> {
        text.parse().map_err(|error: T::Err| ClientError::Malformed {
            address: self.client.address().to_owned(),
            reason: format!("{text:?}: {error}"),
        })
    }

    pub(super) async fn spec(&self, competition: &str) -> Result<Arc<CompetitionSpec>, ClientError> {
        let text = self.client.spec(competition).await?;
        let malformed =
            |reason: String| ClientError::Malformed { address: self.client.address().to_owned(), reason };
        let spec = CompetitionSpec::parse(&text).map_err(|error| malformed(error.to_string()))?;
        let good = spec.id() == self.parsed(competition)?;
        good.then(|| Arc::new(spec)).ok_or_else(|| malformed("the spec is another competition's".to_owned()))
    }

    /// Evaluates an entry, uploads the log, keeps the verdict.
    pub(super) async fn find(&self, lease: &LeaseView, path: &Path) -> Result<Found, String> {
        let Finding { verdict, log } = self.evaluate(lease).await?;
        // The log first: a shown verdict names it. Without it the verdict still counts.
        if let Err(error) = self.client.put_blob("log", log).await {
            tracing::warn!(%error, entry = lease.submission_id, "a log was not uploaded");
        }
        write(path, &wire::to_bytes(&verdict)).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Found { end: End::of(&verdict.outcome), words: found_words(&verdict) })
    }

    async fn evaluate(&self, lease: &LeaseView) -> Result<Finding, String> {
        let said = |error: ClientError| error.to_string();
        let round = self.round(&lease.competition_id, lease.round_number).await.map_err(said)?;
        let form = form(&lease.form).ok_or_else(|| format!("no form is called {:?}", lease.form))?;
        let name = match form {
            Form::Component => "code.wasm",
            Form::Python => "code.py",
            Form::Native => "code.bin",
        };
        let code = self.client.raw(lease.submission_id, name).await.map_err(said)?;
        if Hash::of(&code).to_string() != lease.code {
            return Err("the host gave other code than the entry's".to_owned());
        }
        let assignment = Assignment {
            lease: LeaseId(lease.lease),
            entry: lease.submission_id,
            spec: Arc::clone(&round.spec),
            role: lease.role,
            seed: round.seed,
            form,
            code,
            baseline: round.baseline.clone(),
            reference: round.reference.clone(),
            environment: round.environment.clone(),
            items: Arc::clone(&round.items),
        };
        self.evaluator.evaluate(assignment).await.map_err(|error| error.to_string())
    }

    /// A generator or evaluator: of one that is kept no byte is fetched again.
    pub(super) async fn reference(&self, hash: Hash) -> Result<Bytes, ClientError> {
        let kept = || self.references.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(code) = kept().get(&hash) {
            return Ok(code.clone());
        }
        let code = self.client.blob(&hash).await?;
        if code.len() <= limits::REFERENCE_KEPT_BYTES {
            let mut kept = kept();
            if kept.len() >= ROUNDS_KEPT {
                kept.pop_first();
            }
            kept.insert(hash, code.clone());
        }
        Ok(code)
    }

    async fn round(&self, competition: &str, number: u32) -> Result<Arc<RoundDesk>, ClientError> {
        // Held while it is fetched: the round's other entries wait for it instead of fetching it as well.
        let mut rounds = self.rounds.lock().await;
        if let Some(found) = rounds.get(&(competition.to_owned(), number)) {
            return Ok(Arc::clone(found));
        }
        let spec = self.spec(competition).await?;
        let answer = self.client.round_inputs(competition, number).await?;
        let mut items = Vec::with_capacity(answer.items.len());
        for item in &answer.items {
            let hash: Hash = self.parsed(item)?;
            items.push((hash, self.client.blob(&hash).await?));
        }
        let blob = async |hash: Option<Hash>| match hash {
            Some(hash) => self.client.blob(&hash).await.map(Some),
            None => Ok(None),
        };
        let reference = match spec.inputs.code {
            Some(hash) => Some(self.reference(hash).await?),
            None => None,
        };
        let found = Arc::new(RoundDesk {
            seed: self.parsed(&answer.seed)?,
            items: Arc::new(items),
            baseline: blob(spec.baseline.code).await?.map(|code| (spec.baseline.form, code)),
            reference,
            environment: blob(spec.resources.environment).await?,
            spec,
        });
        if rounds.len() >= ROUNDS_KEPT {
            rounds.pop_first();
        }
        rounds.insert((competition.to_owned(), number), Arc::clone(&found));
        Ok(found)
    }
}

fn found_words(verdict: &Verdict) -> String {
    match &verdict.outcome {
        arena::measure::Outcome::Failed(failure) => failure.to_string(),
        arena::measure::Outcome::Measured { measures, .. } => format!("{} inputs measured", measures.len()),
    }
}
