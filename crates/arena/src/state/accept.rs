//! What the checks of inputs share. An input is checked in full before it is folded: what is refused changes nothing.

use crate::refusal::Refusal;

pub(super) fn not_now(what: &str) -> Refusal {
    Refusal::NotNow { what: what.to_owned() }
}

pub(super) fn limit(what: &str, found: u64, limit: u64) -> Result<(), Refusal> {
    if found <= limit {
        return Ok(());
    }
    Err(Refusal::OverLimit { what: what.to_owned(), found, limit })
}

pub(super) fn require(good: bool, refusal: impl FnOnce() -> Refusal) -> Result<(), Refusal> {
    if good { Ok(()) } else { Err(refusal()) }
}
