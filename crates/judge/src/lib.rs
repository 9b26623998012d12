//! The arena's judge: data sets, entries run in the sandbox, measurements, verdicts; the kinds of competition.
//!
//! It must never know scores, boards or HTTP servers: `arena` scores what is measured here.

mod archive;
pub mod baseline;
mod blame;
mod coder;
mod covers;
pub mod dataset;
pub mod docket;
pub mod environment;
pub mod error;
pub mod form;
mod http;
pub mod input;
pub mod judge;
mod kind;
pub mod limits;
pub mod local;
mod log;
mod machine;
mod mode;
pub mod pack;
mod pair;
mod plan;
mod screening;
pub mod synthetic;

pub use archive::ArchiveError;
pub use dataset::Dataset;
pub use docket::{Abilities, Docket, Task};
pub use error::JudgeError;
pub use form::FormError;
pub use input::{Direction, Input};
pub use judge::{Case, Code, Cost, Evaluation, Judge, Setup};
pub use kind::Told;
