//! Which items a validator replays: drawn by its own secret, so that nobody can foresee it (protocol §3.2 "Targets").

use swarm::record::Work;
use wire::{Direction, Epoch, MicroBatch, NodeId, SigningKey, StageIndex};

/// One item to be replayed.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Item {
    pub(super) epoch: Epoch,
    pub(super) node: NodeId,
    pub(super) stage: StageIndex,
    pub(super) micro_batch: MicroBatch,
    pub(super) direction: Direction,
    /// Loss that the tail stated.
    pub(super) loss: Option<f32>,
}

/// A validator's draws.
#[derive(Debug)]
pub(super) struct Draw {
    key: SigningKey,
    /// Share of items, parts per million.
    rate_ppm: u32,
}

impl Draw {
    pub(super) fn new(key: SigningKey, rate_ppm: u32) -> Self {
        Self { key, rate_ppm }
    }

    /// Drawn items of a report. Only those made with the weights that the epoch opened with: the log knows them by hash.
    pub(super) fn among(&self, node: NodeId, stage: StageIndex, work: &Work) -> Vec<Item> {
        let opening = work.items.iter().filter(|item| item.version == 0);
        let items = opening.map(|item| Item {
            epoch: work.epoch,
            node,
            stage,
            micro_batch: item.micro_batch,
            direction: item.direction,
            loss: item.loss,
        });
        items.filter(|item| self.drawn(item)).collect()
    }

    fn drawn(&self, item: &Item) -> bool {
        let direction = [u8::from(item.direction == Direction::Backward)];
        let parts: [&[u8]; 4] =
            [&item.epoch.0.to_le_bytes(), &item.node.0, &item.micro_batch.0.to_le_bytes(), &direction];
        let draw = self.key.derive("audit draw", &parts);
        let (low, _) = draw.0.split_first_chunk().expect("a hash has 32 bytes");
        u64::from(u32::from_le_bytes(*low)) * 1_000_000 < u64::from(self.rate_ppm) << 32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(micro_batch: u64) -> Item {
        Item {
            epoch: Epoch(1),
            node: NodeId([3; 32]),
            stage: StageIndex(0),
            micro_batch: MicroBatch(micro_batch),
            direction: Direction::Forward,
            loss: None,
        }
    }

    #[test]
    fn the_share_drawn_is_the_rate() {
        let of = |rate_ppm| {
            let draw = Draw::new(SigningKey::from_bytes(&[1; 32]), rate_ppm);
            (0..20_000).filter(|index| draw.drawn(&item(*index))).count()
        };
        assert_eq!(of(0), 0);
        assert_eq!(of(1_000_000), 20_000);
        let tenth = of(100_000);
        assert!((1_850..2_150).contains(&tenth), "{tenth}");
    }

    #[test]
    fn two_validators_draw_differently() {
        let of = |seed| {
            let draw = Draw::new(SigningKey::from_bytes(&[seed; 32]), 500_000);
            (0..64).map(|index| draw.drawn(&item(index))).collect::<Vec<_>>()
        };
        assert_ne!(of(1), of(2));
        assert_eq!(of(1), of(1));
    }
}
