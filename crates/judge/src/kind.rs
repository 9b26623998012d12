//! Kinds of competition: what its inputs are, what an entry does with one, what is measured.

mod codec;
mod program;

use std::time::Instant;

use arena::measure::{Measures, Wall};
use wire::Hash;

use crate::coder::Stop;
use crate::error::JudgeError;
use crate::input::Input;
use crate::judge::{Case, Cost, Judge};
use crate::log::RunLog;

pub use self::program::Told;

/// What was measured.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Measured {
    /// Hash over what the entry gave back, in the order of the inputs.
    pub(crate) outputs: Hash,
    pub(crate) measures: Measures,
    pub(crate) wall: Option<Wall>,
    pub(crate) cost: Cost,
}

/// A kind of competition.
pub(crate) trait Kind {
    /// Inputs of a round from its seed, where the spec says that a generator makes them.
    fn generate(&self, judge: &Judge, case: &Case<'_>) -> Result<Vec<Input>, JudgeError>;

    /// Runs an entry on all inputs, until `deadline` at most.
    fn measure(
        &self,
        judge: &Judge,
        case: &Case<'_>,
        inputs: &[Input],
        deadline: Instant,
        log: &mut RunLog,
    ) -> Result<Measured, Stop>;
}

/// The kind of a spec.
pub(crate) fn of(kind: arena::spec::Kind) -> &'static dyn Kind {
    match kind {
        arena::spec::Kind::Codec => &codec::Codec,
        arena::spec::Kind::Program => &program::Program,
    }
}

/// Hash over outputs in the order of the inputs.
fn outputs_hash(outputs: &[Hash]) -> Hash {
    let parts: Vec<&[u8]> = outputs.iter().map(|hash| &hash.0[..]).collect();
    Hash::of_parts("shoal 2026-11 arena outputs", &parts)
}
