//! What must be known of a lossy champion before every tensor crosses by it (protocol §7 "Production").
//!
//! In its shadow one in ten micro-batches crosses by it, drawn by the epoch's seed. Two things are looked at. Validators
//! compute micro-batches with it and without it, from the same weights, and state the mean difference: this sees 0.1 %,
//! which the protocol's comparison of two samples cannot, since losses of micro-batches differ by far more. And the stated
//! losses of the micro-batches that crossed by it are held against the others': this sees harm that no validator told of.
//! What else was in force before it waits, and comes back if it goes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use wire::{Hash, MicroBatch, NodeId};

use crate::limits;

/// Whether a micro-batch crosses by a codec in its shadow, in an epoch with this seed.
pub(super) fn drawn(seed: &Hash, micro_batch: MicroBatch) -> bool {
    let draw = Hash::of_parts("shoal 2026-11 shadow", &[&seed.0, &micro_batch.0.to_le_bytes()]);
    let (first, _) = draw.0.split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
    u64::from_le_bytes(*first).is_multiple_of(limits::SHADOW_EVERY)
}

/// What is known so far.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Shadow {
    /// Whether it is harmless, by validator.
    effects: BTreeMap<NodeId, bool>,
    /// Losses of the present epoch: of micro-batches that were to cross by it, and of the others.
    with: Losses,
    without: Losses,
}

impl Shadow {
    pub(super) fn heard(&self, validator: &NodeId) -> bool {
        self.effects.contains_key(validator)
    }

    pub(super) fn effect(&mut self, by: NodeId, harmless: bool) {
        self.effects.insert(by, harmless);
    }

    pub(super) fn loss(&mut self, drawn: bool, micro_nats: u64) {
        let losses = if drawn { &mut self.with } else { &mut self.without };
        losses.add(micro_nats);
    }

    /// An epoch opens: its losses are its own.
    pub(super) fn open(&mut self) {
        (self.with, self.without) = Default::default();
    }

    /// One validator that found harm is enough, before it passed and afterwards.
    pub(super) fn harmful(&self) -> bool {
        self.effects.values().any(|harmless| !harmless)
    }

    /// Whether what crossed by it had higher losses.
    pub(super) fn losses_rose(&self) -> bool {
        self.with.exceed(&self.without)
    }
}

/// Losses of micro-batches, 10⁻⁶ nats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Losses {
    count: u64,
    sum: u64,
    squares: u128,
}

impl Losses {
    fn add(&mut self, micro_nats: u64) {
        self.count += 1;
        self.sum += micro_nats;
        self.squares += u128::from(micro_nats) * u128::from(micro_nats);
    }

    /// Mean, and the square of its standard error.
    fn mean(&self) -> (f64, f64) {
        let (count, sum) = (self.count as f64, self.sum as f64);
        let mean = sum / count;
        let variance = (self.squares as f64 - sum * mean).max(0.0) / (count - 1.0);
        (mean, variance / count)
    }

    /// Whether these are higher than the others by more than 0.1 % and what chance explains (Welch's statistic).
    fn exceed(&self, others: &Self) -> bool {
        if self.count.min(others.count) < limits::SHADOW_LOSSES_MIN {
            return false;
        }
        let ((with, its), (without, theirs)) = (self.mean(), others.mean());
        let allowed = without * limits::SHADOW_EFFECT_PPB as f64 / 1e9;
        with - without - allowed > limits::SHADOW_LOSSES_ERRORS * (its + theirs).sqrt()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn losses(shift: u64) -> (Losses, Losses) {
        let (mut with, mut without) = (Losses::default(), Losses::default());
        for at in 0..40 {
            let loss = 4_000_000 + 10_000 * (at * 7 % 11);
            without.add(loss);
            with.add(loss + shift);
        }
        (with, without)
    }

    #[test]
    fn higher_losses_are_seen_where_chance_does_not_explain_them() {
        for (shift, seen) in [(0, false), (4_000, false), (20_000, false), (60_000, true), (400_000, true)] {
            let (with, without) = losses(shift);
            assert_eq!(with.exceed(&without), seen, "{shift}");
            assert!(!without.exceed(&with), "lower ones do no harm");
        }
        let few = Losses { count: limits::SHADOW_LOSSES_MIN - 1, ..losses(400_000).0 };
        assert!(!few.exceed(&losses(0).1), "too few to say");
    }

    #[test]
    fn about_one_in_ten_is_drawn_and_another_seed_draws_others() {
        let draw = |seed: &Hash| (0..10_000).filter(|at| drawn(seed, MicroBatch(*at))).collect::<Vec<_>>();
        let (one, other) = (draw(&Hash::of(b"one")), draw(&Hash::of(b"other")));
        assert!((850..1150).contains(&one.len()), "{}", one.len());
        assert_ne!(one, other);
    }
}
