//! What both ends of a wire hold: predictors and bases, by id.

use crate::error::CodecError;
use crate::header::CodecId;
use crate::lossy::Basis;
use crate::predictive::Predictor;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Predictors and bases that payloads may name.
#[derive(Clone, Debug, Default)]
pub struct Shared {
    predictors: BTreeMap<u64, Arc<Predictor>>,
    bases: BTreeMap<u64, Arc<Basis>>,
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

    /// Adds a basis and returns its id.
    pub fn add_basis(&mut self, basis: Arc<Basis>) -> u64 {
        let id = basis.id();
        self.bases.insert(id, basis);
        id
    }

    /// Forgets the basis with this id.
    pub fn remove_basis(&mut self, id: u64) {
        self.bases.remove(&id);
    }

    /// The basis with this id.
    pub fn basis(&self, id: u64) -> Result<&Basis, CodecError> {
        let found = self.bases.get(&id).map(AsRef::as_ref);
        found.ok_or(CodecError::MissingShared { codec: CodecId::Klt, what: "basis", id })
    }

    /// The predictor with this id.
    pub fn predictor(&self, id: u64) -> Result<&Predictor, CodecError> {
        let found = self.predictors.get(&id).map(AsRef::as_ref);
        found.ok_or(CodecError::MissingShared { codec: CodecId::Predictive, what: "predictor", id })
    }
}
