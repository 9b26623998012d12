//! Training one epoch, as head, middle or tail of the pipeline (protocol §2.2).

pub mod io;

pub use io::{Action, Answer, Computed, Event, Job, Offer, Refused, Sent};
