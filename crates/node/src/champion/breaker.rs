//! Counts of the champion in force, and the rule that stops a node from using it for the rest of an epoch.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use swarm::limits::{CODEC_FALLBACK_PERCENT, CODEC_FALLBACKS_MIN};
use swarm::record::{CodecCounts, Statement};
use wire::{Epoch, Hash};

/// What became of a tensor that was to cross by the champion.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Outcome {
    /// It crosses by it.
    Carried {
        /// Bytes as they are.
        raw: usize,
        /// Bytes encoded.
        bytes: usize,
        /// Encoding and the sender's own check.
        time: Duration,
        /// What the codec before made of it, and its time, if it was compared.
        previous: Option<(usize, Duration)>,
    },
    /// It crosses by the built-in codec.
    Fell {
        /// Time lost.
        time: Duration,
        /// A tensor came back as another one: no second chance.
        wrong: bool,
    },
    /// The receiver did not take what was counted as carried.
    Refused,
    /// Not tried any more in this epoch.
    Spared,
}

#[derive(Debug, Default)]
pub(super) struct Breaker {
    now: Mutex<Now>,
}

/// The epoch and the component that are counted.
#[derive(Debug, Default)]
struct Now {
    of: Option<(Epoch, Hash)>,
    off: bool,
    /// Over the epoch.
    tensors: u64,
    fallbacks: u64,
    /// Since the last report.
    counts: CodecCounts,
}

impl Breaker {
    pub(super) fn is_off(&self, epoch: Epoch, component: Hash) -> bool {
        let now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        now.of == Some((epoch, component)) && now.off
    }

    pub(super) fn count(&self, epoch: Epoch, component: Hash, outcome: Outcome) {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        match now.of {
            // What is late for its epoch's report is not told.
            Some((newest, _)) if newest > epoch => return,
            Some(of) if of == (epoch, component) => {}
            _ => *now = Now { of: Some((epoch, component)), ..Now::default() },
        }
        now.count(outcome);
        if now.off || now.fallbacks < CODEC_FALLBACKS_MIN {
            return;
        }
        if now.fallbacks * 100 > now.tensors * CODEC_FALLBACK_PERCENT {
            now.off = true;
            tracing::warn!(component = %component.short(), fallbacks = now.fallbacks, "the champion is not used any more in this epoch");
        }
    }

    pub(super) fn report(&self) -> Option<Statement> {
        let mut now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let (epoch, component) = now.of?;
        let counts = std::mem::take(&mut now.counts);
        // A refusal without its tensor would not add up: it waits for the next one.
        if counts.fallbacks > counts.tensors || counts == CodecCounts::default() {
            now.counts = counts;
            return None;
        }
        Some(Statement::CodecWork { epoch, component, counts })
    }
}

impl Now {
    fn count(&mut self, outcome: Outcome) {
        let micros = |time: Duration| time.as_micros() as u64;
        let counts = &mut self.counts;
        match outcome {
            Outcome::Carried { raw, bytes, time, previous } => {
                self.tensors += 1;
                counts.tensors += 1;
                counts.raw_bytes += raw as u64;
                counts.bytes += bytes as u64;
                counts.time_us += micros(time);
                if let Some((previous, previous_time)) = previous {
                    counts.sampled += 1;
                    counts.sampled_bytes += bytes as u64;
                    counts.sampled_us += micros(time);
                    counts.previous_bytes += previous as u64;
                    counts.previous_us += micros(previous_time);
                }
            }
            Outcome::Fell { time, wrong } => {
                self.tensors += 1;
                counts.tensors += 1;
                counts.time_us += micros(time);
                self.fell(wrong);
            }
            Outcome::Refused => self.fell(false),
            Outcome::Spared => {
                self.tensors += 1;
                counts.tensors += 1;
                self.fell(false);
            }
        }
    }

    fn fell(&mut self, wrong: bool) {
        self.fallbacks += 1;
        self.counts.fallbacks += 1;
        self.off |= wrong;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FELL: Outcome = Outcome::Fell { time: Duration::from_millis(1), wrong: false };
    const CARRIED: Outcome =
        Outcome::Carried { raw: 100, bytes: 60, time: Duration::from_micros(5), previous: None };

    #[test]
    fn a_wrong_tensor_ends_it_at_once_and_others_above_one_percent() {
        let (breaker, component) = (Breaker::default(), Hash::of(b"c"));
        for _ in 0..400 {
            breaker.count(Epoch(1), component, CARRIED);
        }
        for _ in 0..4 {
            breaker.count(Epoch(1), component, FELL);
            assert!(!breaker.is_off(Epoch(1), component), "1 % of 404 is not passed yet");
        }
        breaker.count(Epoch(1), component, FELL);
        assert!(breaker.is_off(Epoch(1), component));
        assert!(!breaker.is_off(Epoch(2), component), "another epoch, another try");
        breaker.count(Epoch(2), component, Outcome::Fell { time: Duration::ZERO, wrong: true });
        assert!(breaker.is_off(Epoch(2), component));
        let Some(Statement::CodecWork { epoch, counts, .. }) = breaker.report() else { panic!("a report") };
        assert_eq!((epoch, counts.tensors, counts.fallbacks), (Epoch(2), 1, 1));
        assert!(breaker.report().is_none(), "nothing new");
    }

    #[test]
    fn late_news_of_an_epoch_before_changes_nothing() {
        let (breaker, component) = (Breaker::default(), Hash::of(b"c"));
        breaker.count(Epoch(3), component, CARRIED);
        breaker.count(Epoch(2), component, FELL);
        breaker.count(Epoch(3), component, Outcome::Refused);
        let Some(Statement::CodecWork { counts, .. }) = breaker.report() else { panic!("a report") };
        assert_eq!((counts.tensors, counts.fallbacks, counts.bytes), (1, 1, 60));
    }
}
