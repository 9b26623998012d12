//! What a judge looks at before it binds a part of a round's seed: whether it can judge the competition. This goes on beside
//! its loop: a stranger's file, however large or slow, keeps no lease waiting.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arena::spec::CompetitionId;
use tokio::task::JoinSet;

use super::Desk;
use crate::limits;

/// Looks at competitions: what came of them, and those under way.
#[derive(Default)]
pub(super) struct Looks {
    /// What the evaluator said. What did not come to it is asked again.
    covered: BTreeMap<CompetitionId, bool>,
    /// How often a look failed before it came to the evaluator.
    failed: BTreeMap<CompetitionId, u32>,
    under_way: BTreeSet<CompetitionId>,
    tasks: JoinSet<Look>,
}

/// What the evaluator lacks.
type Covers = Result<(), String>;

/// A look that has ended: what the evaluator lacks, or why it was not asked.
struct Look {
    competition: CompetitionId,
    name: String,
    found: Result<Covers, String>,
}

impl Looks {
    /// What is known of a competition.
    pub(super) fn known(&self, competition: CompetitionId) -> Option<bool> {
        self.covered.get(&competition).copied()
    }

    /// Whether a competition can be judged here. Where that is not known it is found out, and `None` for now.
    pub(super) fn covers(
        &mut self,
        desk: &Arc<Desk>,
        competition: CompetitionId,
        name: &str,
    ) -> Option<bool> {
        let known = self.known(competition);
        let full = self.under_way.len() >= limits::JUDGE_LOOKS;
        if known.is_none() && !full && self.under_way.insert(competition) {
            let (desk, name) = (Arc::clone(desk), name.to_owned());
            let pause = self.failed.get(&competition).map_or(Duration::ZERO, |times| {
                limits::RETRY_MIN.saturating_mul(1 << (*times).min(16)).min(limits::LOOK_AGAIN_MAX)
            });
            self.tasks.spawn(async move {
                tokio::time::sleep(pause).await;
                let (name, found) = desk.look_at(name).await;
                Look { competition, name, found }
            });
        }
        known
    }

    /// The next look that ends; what is to be told of it. Pends where none is under way.
    pub(super) async fn ended(&mut self) -> Option<String> {
        let look = loop {
            match self.tasks.join_next().await {
                Some(Ok(look)) => break look,
                Some(Err(error)) => tracing::warn!(%error, "a look at a competition"),
                None => std::future::pending().await,
            }
        };
        self.under_way.remove(&look.competition);
        match look.found {
            Ok(covers) => {
                self.failed.remove(&look.competition);
                self.covered.insert(look.competition, covers.is_ok());
                covers.err().map(|reason| format!("{} is left to other judges: {reason}", look.name))
            }
            Err(error) => {
                let times = self.failed.entry(look.competition).or_default();
                *times += 1;
                // Once: it may be so for hours.
                let first = *times == 1;
                first.then(|| format!("{} is not judged here yet, and looked at again: {error}", look.name))
            }
        }
    }
}

impl Desk {
    /// What the evaluator says of a competition, and its name for people.
    async fn look_at(self: Arc<Self>, id: String) -> (String, Result<Covers, String>) {
        let spec = match self.spec(&id).await {
            Ok(spec) => spec,
            Err(error) => return (id, Err(error.to_string())),
        };
        let reference = match spec.inputs.code {
            None => None,
            Some(hash) => match self.reference(hash).await {
                Ok(code) => Some(code),
                Err(error) => return (spec.name.clone(), Err(error.to_string())),
            },
        };
        let (evaluator, name) = (Arc::clone(&self.evaluator), spec.name.clone());
        let covers = tokio::task::spawn_blocking(move || evaluator.covers(&spec, reference.as_deref()));
        let found = covers.await.map_err(|error| error.to_string());
        (name, found.map(|covers| covers.map_err(|error| error.to_string())))
    }
}
