//! What a judge states about one entry: measurements per input, or why there are none.

use serde::{Deserialize, Serialize};
use wire::{Hash, NodeId};

use crate::account::Account;
use crate::limits;
use crate::number::PPB;

/// A judge's statement about one entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// What was found. Two judges agree if this is equal (or, for a program, near enough).
    pub outcome: Outcome,
    /// Times by the clock. Never compared: the lower median of the judges who agree counts.
    pub wall: Option<Wall>,
    /// Blob with the log of the run; not compared.
    pub log: Hash,
    /// What the judge tells besides; not compared.
    pub account: Box<Account>,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The entry ran.
    Measured {
        /// Hash over the inputs as the judge had them.
        inputs: Hash,
        /// Hash over what the entry gave back (a codec: its compressed bytes) in the order of the inputs.
        outputs: Hash,
        /// One measurement per input, in order.
        measures: Measures,
    },
    /// The entry did not run to its end, or may not.
    Failed(Failure),
}

/// One measurement per input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Measures {
    /// Of a codec.
    Codec(Vec<CodecItem>),
    /// Of a program.
    Program(Vec<ProgramItem>),
}

/// A codec on one input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodecItem {
    /// Bytes of the input.
    pub original_bytes: u64,
    /// Bytes of the compressed form.
    pub compressed_bytes: u64,
    /// Cosine similarity × norm similarity (arena specs §10.2), 10⁻⁹, rounded towards zero.
    pub similarity_ppb: i64,
    /// Every bit of the input came back.
    pub exact: bool,
    /// Fuel of compress and decompress together; 0 where there is no fuel.
    pub fuel: u64,
}

/// A program on one input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramItem {
    /// What the declared evaluator measured, 10⁻⁹ units; `None` if the program gave no answer.
    pub objective_nano: Option<i64>,
    /// Fuel; 0 where there is no fuel.
    pub fuel: u64,
}

/// Times by the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wall {
    /// Mean time of one input (a codec: compress plus decompress), nanoseconds.
    pub task_time_ns: u64,
    /// Lower 95 % bound of the entry's time over the baseline's, measured in pairs, 10⁻⁶; 0 if there is none.
    pub over_baseline_ppm: u64,
}

/// Why an entry has no measurements. Every limit has its own name, so that an entrant knows what to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, thiserror::Error)]
pub enum Failure {
    /// Nobody could get the code that the entry names.
    #[error("the code cannot be fetched")]
    CodeUnavailable,
    /// Does not parse, or lacks what the form asks for.
    #[error("not a valid entry of its form")]
    Invalid,
    /// Asks for what an entry may not have: an import, a module, a call.
    #[error("asks for something that is forbidden")]
    Forbidden,
    /// Hides data or code.
    #[error("hides data or code")]
    Hidden,
    /// Did not become ready.
    #[error("did not start, or not in time")]
    Startup,
    /// Stopped by itself.
    #[error("stopped with an error")]
    Trap,
    /// Used up its fuel.
    #[error("ran out of fuel")]
    Fuel,
    /// Used up its time.
    #[error("ran out of time")]
    Time,
    /// Used up its memory.
    #[error("ran out of memory")]
    Memory,
    /// Wrote too much to its disk.
    #[error("wrote more than it may")]
    Disk,
    /// Started too many processes or threads.
    #[error("started more processes than it may")]
    Processes,
    /// Gave back too much.
    #[error("gave back more than it may")]
    OutputTooLarge,
    /// Gave back something that is no answer.
    #[error("gave back no valid answer")]
    Output,
    /// The same input gave two different outputs.
    #[error("gave two different answers to one input")]
    NotDeterministic,
    /// Tried to leave the sandbox.
    #[error("tried to leave its sandbox")]
    Escape,
}

impl Failure {
    /// Found by screening, before anything ran: a fee stays usable.
    pub fn is_screening(self) -> bool {
        matches!(self, Self::CodeUnavailable | Self::Invalid | Self::Forbidden | Self::Hidden)
    }
}

/// A number in a verdict that nothing can measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("measurement {index}: {what} is impossible")]
pub struct MeasureError {
    /// Position of the measurement.
    pub index: usize,
    /// Which number.
    pub what: &'static str,
}

impl Measures {
    /// Number of inputs measured.
    pub fn len(&self) -> usize {
        match self {
            Self::Codec(items) => items.len(),
            Self::Program(items) => items.len(),
        }
    }

    /// Whether nothing was measured.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Checks every number against its bounds.
    pub fn check(&self) -> Result<(), MeasureError> {
        let fault = match self {
            Self::Codec(items) => first_fault(items, CodecItem::fault),
            Self::Program(items) => first_fault(items, ProgramItem::fault),
        };
        fault.map_or(Ok(()), |(index, what)| Err(MeasureError { index, what }))
    }
}

fn first_fault<T>(items: &[T], fault: impl Fn(&T) -> Option<&'static str>) -> Option<(usize, &'static str)> {
    items.iter().enumerate().find_map(|(index, item)| fault(item).map(|what| (index, what)))
}

impl CodecItem {
    fn fault(&self) -> Option<&'static str> {
        match () {
            () if !(1..=limits::ITEM_BYTES_MAX).contains(&self.original_bytes) => Some("original_bytes"),
            () if !(1..=limits::ITEM_BYTES_MAX).contains(&self.compressed_bytes) => Some("compressed_bytes"),
            () if !(limits::SIMILARITY_PPB_MIN..=PPB as i64).contains(&self.similarity_ppb) => {
                Some("similarity_ppb")
            }
            () if self.exact && self.similarity_ppb != PPB as i64 => Some("similarity_ppb of an exact copy"),
            () if self.fuel > limits::ITEM_FUEL_MAX => Some("fuel"),
            () => None,
        }
    }
}

impl ProgramItem {
    fn fault(&self) -> Option<&'static str> {
        let bound = limits::OBJECTIVE_NANO_MAX;
        match () {
            () if self.objective_nano.is_some_and(|nano| !(-bound..=bound).contains(&nano)) => {
                Some("objective_nano")
            }
            () if self.fuel > limits::ITEM_FUEL_MAX => Some("fuel"),
            () => None,
        }
    }
}

impl Verdict {
    /// Hash that binds a verdict before it is shown: nobody can copy another judge's.
    pub fn seal(&self, judge: &NodeId, nonce: &Hash) -> Hash {
        Hash::of_parts("shoal 2026-11 blind verdict", &[&judge.0, &nonce.0, &wire::to_bytes(self)])
    }
}

impl Outcome {
    /// Whether two judges found the same. `tolerance_ppm` is 0 where measurements are deterministic; otherwise the mean
    /// objectives of a program may differ by that much of the larger one.
    pub fn agrees(&self, other: &Self, tolerance_ppm: u32) -> bool {
        if self == other {
            return true;
        }
        let (
            Self::Measured { inputs, measures: Measures::Program(ours), .. },
            Self::Measured { inputs: their_inputs, measures: Measures::Program(theirs), .. },
        ) = (self, other)
        else {
            return false;
        };
        if tolerance_ppm == 0 || inputs != their_inputs || ours.len() != theirs.len() {
            return false;
        }
        let answered = |items: &[ProgramItem]| {
            items.iter().map(|item| item.objective_nano.is_some()).collect::<Vec<_>>()
        };
        let sum = |items: &[ProgramItem]| {
            items.iter().filter_map(|item| item.objective_nano).map(i128::from).sum::<i128>()
        };
        let (a, b) = (sum(ours), sum(theirs));
        let allowed = a.abs().max(b.abs()) * i128::from(tolerance_ppm) / 1_000_000;
        answered(ours) == answered(theirs) && (a - b).abs() <= allowed
    }
}

/// The place of the outcome that most judges found, and how many did. Of two that are even the first.
pub fn plurality(outcomes: &[&Outcome], tolerance_ppm: u32) -> Option<(usize, usize)> {
    let count = |of: &Outcome| outcomes.iter().filter(|outcome| outcome.agrees(of, tolerance_ppm)).count();
    let counts = outcomes.iter().map(|outcome| count(outcome)).enumerate();
    // The last of equal ones is kept.
    counts.rev().max_by_key(|(_, count)| *count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item() -> CodecItem {
        CodecItem {
            original_bytes: 100,
            compressed_bytes: 40,
            similarity_ppb: 995_000_000,
            exact: false,
            fuel: 7,
        }
    }

    #[test]
    fn impossible_measurements_are_named() {
        Measures::Codec(vec![item()]).check().unwrap();
        type Change = (fn(&mut CodecItem), &'static str);
        let changes: [Change; 6] = [
            (|i| i.original_bytes = 0, "original_bytes"),
            (|i| i.compressed_bytes = 0, "compressed_bytes"),
            (|i| i.compressed_bytes = u64::MAX, "compressed_bytes"),
            (|i| i.similarity_ppb = 1_000_000_001, "similarity_ppb"),
            (|i| i.exact = true, "similarity_ppb of an exact copy"),
            (|i| i.fuel = u64::MAX, "fuel"),
        ];
        for (change, what) in changes {
            let mut bad = item();
            change(&mut bad);
            let error = Measures::Codec(vec![item(), bad]).check().unwrap_err();
            assert_eq!(error, MeasureError { index: 1, what });
        }
        let bad = ProgramItem { objective_nano: Some(i64::MIN), fuel: 0 };
        assert_eq!(Measures::Program(vec![bad]).check().unwrap_err().what, "objective_nano");
    }

    fn program(values: &[Option<i64>]) -> Outcome {
        let items = values.iter().map(|nano| ProgramItem { objective_nano: *nano, fuel: 0 }).collect();
        Outcome::Measured {
            inputs: Hash([1; 32]),
            outputs: Hash([2; 32]),
            measures: Measures::Program(items),
        }
    }

    #[test]
    fn agreement_is_equality_unless_a_tolerance_is_given() {
        let a = program(&[Some(1_000_000), Some(2_000_000)]);
        let b = program(&[Some(1_000_100), Some(2_000_100)]);
        assert!(a.agrees(&a, 0));
        assert!(!a.agrees(&b, 0));
        assert!(!a.agrees(&b, 60));
        assert!(a.agrees(&b, 70));
        assert!(!a.agrees(&program(&[Some(3_000_000), None]), 1_000_000));
        assert!(!a.agrees(&Outcome::Failed(Failure::Trap), 1_000_000));
        assert!(Outcome::Failed(Failure::Trap).agrees(&Outcome::Failed(Failure::Trap), 0));
        let (x, y) = (item(), CodecItem { fuel: 8, ..item() });
        let codec = |item| Outcome::Measured {
            inputs: Hash([1; 32]),
            outputs: Hash([2; 32]),
            measures: Measures::Codec(vec![item]),
        };
        assert!(!codec(x).agrees(&codec(y), 1_000_000));
    }

    #[test]
    fn a_seal_binds_judge_nonce_and_verdict() {
        let account = Box::default();
        let verdict =
            Verdict { outcome: Outcome::Failed(Failure::Trap), wall: None, log: Hash([0; 32]), account };
        let (judge, nonce) = (NodeId([1; 32]), Hash([2; 32]));
        let seal = verdict.seal(&judge, &nonce);
        assert_ne!(seal, verdict.seal(&NodeId([2; 32]), &nonce));
        assert_ne!(seal, verdict.seal(&judge, &Hash([3; 32])));
        assert_ne!(seal, Verdict { log: Hash([1; 32]), ..verdict.clone() }.seal(&judge, &nonce));
        let account = Box::new(Account { reason: "another".to_owned(), ..Account::default() });
        assert_ne!(seal, Verdict { account, ..verdict }.seal(&judge, &nonce));
    }
}
