//! What places, contributions and bounties are worth.

use serde::Serialize;

use super::reader::{Reader, SpecError};
use super::section::YEAR_S;
use crate::limits;

/// What a place is worth.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rewards {
    /// Share of the arena's rewards, 10⁻⁶. Only an owner's competition has one.
    pub weight_ppm: u32,
    /// Share of it that is burned right after a takeover, 10⁻⁶.
    pub base_burn_ppm: u32,
    /// Time in which the burn rises to all of it, seconds; 0 = never.
    pub decay_s: u64,
    /// Shares of the places of the board, 10⁻⁶; the rest is burned. One number: the winner takes it.
    pub split_ppm: Vec<u32>,
    /// Share of each payment that goes to the makers of the parents that the entry names, 10⁻⁶.
    pub lineage_ppm: u32,
    /// Share of what is not burned that goes to all who ever took the lead, by how far each raised the bar, 10⁻⁶; the places
    /// share the rest. Came later than the other keys: the canonical text has it only where it is above 0, so that specs
    /// from before keep their ids.
    #[serde(skip_serializing_if = "is_zero")]
    pub contribution_ppm: u32,
    /// Marks that are paid for besides. In the canonical text only where there are any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bounties: Vec<Bounty>,
}

/// A share for the first champion whose raw score reaches a mark.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Bounty {
    /// The mark.
    pub raw: f64,
    /// Share of what is not burned, 10⁻⁶.
    pub share_ppm: u32,
    /// How many completed rounds it is paid for, whoever leads by then.
    pub rounds: u32,
}

impl Bounty {
    fn read(reader: &mut Reader) -> Result<Self, SpecError> {
        Ok(Self {
            raw: reader.float("raw", limits::BOUNTY_RAW_MAX)?,
            share_ppm: reader.number("share_ppm", 100_000, 1..=1_000_000)? as u32,
            rounds: reader.number("rounds", 10, 1..=limits::BOUNTY_ROUNDS_MAX)? as u32,
        })
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde calls")]
fn is_zero(value: &u32) -> bool {
    *value == 0
}

impl Rewards {
    pub(super) fn read(reader: &mut Reader) -> Result<Self, SpecError> {
        let rewards = Self {
            weight_ppm: reader.number("weight_ppm", 0, 0..=1_000_000)? as u32,
            base_burn_ppm: reader.number("base_burn_ppm", 900_000, 0..=1_000_000)? as u32,
            decay_s: reader.number("decay_s", 864_000, 0..=100 * YEAR_S)?,
            split_ppm: reader.numbers("split_ppm", &[1_000_000], limits::PLACES_MAX, 0..=1_000_000)?,
            lineage_ppm: reader.number("lineage_ppm", 0, 0..=500_000)? as u32,
            contribution_ppm: reader.number("contribution_ppm", 0, 0..=1_000_000)? as u32,
            bounties: reader.sections("bounties", limits::BOUNTIES_MAX, Bounty::read)?,
        };
        let promised: u64 = rewards.bounties.iter().map(|bounty| u64::from(bounty.share_ppm)).sum();
        if promised > 1_000_000 {
            let allowed = "bounties whose share_ppm add up to at most 1000000";
            return Err(reader.fault("bounties", &promised, allowed));
        }
        let sum: u64 = rewards.split_ppm.iter().map(|share| u64::from(*share)).sum();
        if sum > 1_000_000 {
            return Err(reader.fault(
                "split_ppm",
                &format!("{:?}", rewards.split_ppm),
                "shares that add up to at most 1000000",
            ));
        }
        Ok(rewards)
    }
}
