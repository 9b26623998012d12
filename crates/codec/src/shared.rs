//! What both ends of a wire hold: predictors, by id.

use crate::error::CodecError;
use crate::header::CodecId;
use crate::predictive::Predictor;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Predictors that payloads may name.
#[derive(Clone, Debug, Default)]
pub struct Shared {
    predictors: BTreeMap<u64, Arc<Predictor>>,
}

impl Shared {
    /// Nothing shared.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a predictor and returns its id.
    pub fn add_predictor(&mut self, predictor: Arc<Predictor>) -> u64 {
        let id = predictor.id();
        self.predictors.insert(id, predictor);
        id
    }

    /// Forgets the predictor with this id.
    pub fn remove_predictor(&mut self, id: u64) {
        self.predictors.remove(&id);
    }

    /// The predictor with this id.
    pub fn predictor(&self, id: u64) -> Result<&Predictor, CodecError> {
        let found = self.predictors.get(&id).map(AsRef::as_ref);
        found.ok_or(CodecError::MissingShared { codec: CodecId::Predictive, what: "predictor", id })
    }
}
