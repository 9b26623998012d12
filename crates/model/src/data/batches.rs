//! Micro-batches as a pure function of (manifest, order, index).
//!
//! The shards of a side are one run of T tokens. Window w of sequence S covers tokens w·S to w·S + S (S + 1 of
//! them: inputs and targets), so there are W = ⌊(T − 1) / S⌋ windows and every token but the last few is a
//! target once in a pass. Row r of micro-batch m is number g = m·batch + r of the run: pass g / W takes the
//! windows in the order of a [`Permutation`] keyed by (seed, pass).

use std::{fmt, io, sync::OnceLock};

use super::{
    DataError,
    permutation::Permutation,
    shards::{DatasetManifest, Shard, ShardEntry},
};
use crate::{
    hash::BlobHash,
    limits::{MAX_BATCH_TOKENS, MAX_SHARD_TOKENS, MAX_SHARDS},
};

const _: () =
    assert!((MAX_SHARDS as u64) * MAX_SHARD_TOKENS < 1 << 62, "every number of windows is permutable");

/// What decides the order of the training windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// Seed of the run's data order.
    pub seed: [u8; 32],
    /// Rows of a micro-batch.
    pub batch: usize,
    /// Targets of a row.
    pub sequence: usize,
}

/// The tokens of one micro-batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MicroBatch {
    /// [batch, sequence + 1]: position i + 1 is the target of position i.
    pub tokens: Vec<u32>,
    /// [`tokens_hash`] of them, which signed frames carry.
    pub hash: BlobHash,
}

/// BLAKE3 of the tokens as little-endian u32.
pub fn tokens_hash(tokens: &[u32]) -> BlobHash {
    let mut hasher = blake3::Hasher::new();
    for chunk in tokens.chunks(1024) {
        let bytes: Vec<u8> = chunk.iter().flat_map(|token| token.to_le_bytes()).collect();
        hasher.update(&bytes);
    }
    BlobHash(*hasher.finalize().as_bytes())
}

/// Where a data set gets the bytes of a shard.
pub type ShardSource = Box<dyn Fn(BlobHash) -> io::Result<Vec<u8>> + Send + Sync>;

/// A data set whose shards are fetched when they are first needed, checked, and kept.
pub struct Dataset {
    manifest: DatasetManifest,
    train: Side,
    held_out: Side,
    source: ShardSource,
}

impl Dataset {
    /// A data set over `manifest` that reads shards from `source`.
    pub fn new(
        manifest: DatasetManifest,
        source: impl Fn(BlobHash) -> io::Result<Vec<u8>> + Send + Sync + 'static,
    ) -> Result<Self, DataError> {
        manifest.check()?;
        let (train, held_out) = (Side::new(&manifest.train), Side::new(&manifest.held_out));
        Ok(Self { manifest, train, held_out, source: Box::new(source) })
    }

    /// The manifest it was made from.
    pub fn manifest(&self) -> &DatasetManifest {
        &self.manifest
    }

    /// Windows of one pass over the training data. Zero when there are too few tokens for one.
    pub fn train_windows(&self, sequence: usize) -> u64 {
        self.train.windows(sequence)
    }

    /// Full batches of the held-out data.
    pub fn held_out_batches(&self, batch: usize, sequence: usize) -> u64 {
        self.held_out.windows(sequence) / (batch as u64).max(1)
    }

    /// The tokens of micro-batch `index`. Any index is valid: passes follow each other without end.
    pub fn micro_batch(&self, order: &Order, index: u64) -> Result<MicroBatch, DataError> {
        let rows = self.train_rows(order, index)?;
        self.read(&self.train, &rows, order.sequence)
    }

    /// Held-out batch `index`: fixed windows, spread over the held-out text, none twice.
    pub fn held_out_batch(&self, index: u64, batch: usize, sequence: usize) -> Result<MicroBatch, DataError> {
        let rows = self.held_out_rows(index, batch, sequence)?;
        self.read(&self.held_out, &rows, sequence)
    }

    /// Shards that [`Dataset::micro_batch`] would fetch now; none once they are held.
    pub fn missing_for(&self, order: &Order, index: u64) -> Result<Vec<BlobHash>, DataError> {
        Ok(self.train.missing(&self.train_rows(order, index)?, order.sequence))
    }

    /// Shards that [`Dataset::held_out_batch`] would fetch now.
    pub fn missing_for_held_out(
        &self,
        index: u64,
        batch: usize,
        sequence: usize,
    ) -> Result<Vec<BlobHash>, DataError> {
        Ok(self.held_out.missing(&self.held_out_rows(index, batch, sequence)?, sequence))
    }

    fn train_rows(&self, order: &Order, index: u64) -> Result<Vec<u64>, DataError> {
        let windows = self.train.checked_windows("training", order.batch, order.sequence)?;
        let first = u128::from(index) * order.batch as u128;
        let mut permutation: Option<(u64, Permutation)> = None;
        let mut rows = Vec::with_capacity(order.batch);
        for row in first..first + order.batch as u128 {
            let pass = (row / u128::from(windows)) as u64;
            if permutation.as_ref().is_none_or(|(of, _)| *of != pass) {
                permutation = Some((pass, Permutation::new(&pass_key(&order.seed, pass), windows)));
            }
            let (_, permutation) = permutation.as_ref().expect("made above");
            rows.push(permutation.apply((row % u128::from(windows)) as u64));
        }
        Ok(rows)
    }

    fn held_out_rows(&self, index: u64, batch: usize, sequence: usize) -> Result<Vec<u64>, DataError> {
        let windows = self.held_out.checked_windows("held-out", batch, sequence)?;
        let count = windows / batch as u64;
        if index >= count {
            return Err(DataError::HeldOutIndex { index, count });
        }
        let permutation = Permutation::new(&[0; 32], windows);
        Ok((0..batch as u64).map(|row| permutation.apply(index * batch as u64 + row)).collect())
    }

    fn read(&self, side: &Side, windows: &[u64], sequence: usize) -> Result<MicroBatch, DataError> {
        let mut tokens = Vec::with_capacity(windows.len() * (sequence + 1));
        for &window in windows {
            let mut from = window * sequence as u64;
            let to = from + sequence as u64 + 1;
            while from < to {
                let number = side.shard_of(from);
                let shard = self.shard(side, number)?;
                let start = side.starts[number];
                let end = to.min(start + side.entries[number].tokens);
                shard.copy((from - start) as usize, (end - start) as usize, &mut tokens);
                from = end;
            }
        }
        let hash = tokens_hash(&tokens);
        Ok(MicroBatch { tokens, hash })
    }

    fn shard<'a>(&self, side: &'a Side, number: usize) -> Result<&'a Shard, DataError> {
        if let Some(shard) = side.shards[number].get() {
            return Ok(shard);
        }
        let entry = &side.entries[number];
        let bytes =
            (self.source)(entry.hash).map_err(|source| DataError::Fetch { hash: entry.hash, source })?;
        let shard = Shard::decode(&bytes, entry, self.manifest.vocab)?;
        Ok(side.shards[number].get_or_init(|| shard))
    }
}

impl fmt::Debug for Dataset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dataset").field("manifest", &self.manifest).finish_non_exhaustive()
    }
}

/// The key of the window order of one pass.
fn pass_key(seed: &[u8; 32], pass: u64) -> [u8; 32] {
    *blake3::Hasher::new_keyed(seed)
        .update(b"shoal window order 1")
        .update(&pass.to_le_bytes())
        .finalize()
        .as_bytes()
}

struct Side {
    entries: Vec<ShardEntry>,
    /// Tokens before each shard.
    starts: Vec<u64>,
    tokens: u64,
    shards: Vec<OnceLock<Shard>>,
}

impl Side {
    fn new(entries: &[ShardEntry]) -> Self {
        let mut tokens = 0;
        let starts = entries
            .iter()
            .map(|entry| {
                tokens += entry.tokens;
                tokens - entry.tokens
            })
            .collect();
        let shards = entries.iter().map(|_| OnceLock::new()).collect();
        Self { entries: entries.to_vec(), starts, tokens, shards }
    }

    fn windows(&self, sequence: usize) -> u64 {
        self.tokens.saturating_sub(1).checked_div(sequence as u64).unwrap_or(0)
    }

    fn checked_windows(&self, side: &'static str, batch: usize, sequence: usize) -> Result<u64, DataError> {
        let bad = |reason| DataError::Batch { batch, sequence, reason };
        let tokens = sequence.checked_add(1).and_then(|row| row.checked_mul(batch));
        if batch == 0 || sequence == 0 {
            return Err(bad("both must be at least 1"));
        }
        if tokens.is_none_or(|tokens| tokens > MAX_BATCH_TOKENS) {
            return Err(bad("it has too many tokens"));
        }
        match self.windows(sequence) {
            0 => Err(DataError::TooLittle { side, tokens: self.tokens, needed: sequence as u64 + 1 }),
            windows => Ok(windows),
        }
    }

    fn shard_of(&self, token: u64) -> usize {
        self.starts.partition_point(|&start| start <= token) - 1
    }

    fn missing(&self, windows: &[u64], sequence: usize) -> Vec<BlobHash> {
        let mut numbers: Vec<_> = windows
            .iter()
            .flat_map(|window| {
                let from = window * sequence as u64;
                self.shard_of(from)..=self.shard_of(from + sequence as u64)
            })
            .filter(|&number| self.shards[number].get().is_none())
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers.into_iter().map(|number| self.entries[number].hash).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    /// A data set whose token at position i is i, in shards of the given sizes.
    fn counting(train: &[u64], held_out: &[u64]) -> Dataset {
        let vocab = 100_000;
        let mut blobs = HashMap::new();
        let mut side = |sizes: &[u64]| {
            let mut next = 0_u32;
            let entry = |&tokens: &u64| {
                let bytes = Shard::encode(&(next..next + tokens as u32).collect::<Vec<_>>(), vocab);
                next += tokens as u32;
                let entry = ShardEntry { hash: BlobHash::of(&bytes), tokens };
                blobs.insert(entry.hash, bytes);
                entry
            };
            sizes.iter().map(entry).collect::<Vec<_>>()
        };
        let (train, held_out) = (side(train), side(held_out));
        let manifest = DatasetManifest { tokenizer: BlobHash::of(b"t"), vocab, train, held_out };
        Dataset::new(manifest, move |hash| blobs.get(&hash).cloned().ok_or(io::ErrorKind::NotFound.into()))
            .unwrap()
    }

    fn order(batch: usize, sequence: usize) -> Order {
        Order { seed: [3; 32], batch, sequence }
    }

    #[test]
    fn golden_micro_batch() {
        let batch = counting(&[50, 50], &[10]).micro_batch(&order(2, 4), 5).unwrap();
        assert_eq!(batch.tokens, [4, 5, 6, 7, 8, 24, 25, 26, 27, 28]);
        assert_eq!(batch.hash, tokens_hash(&batch.tokens));
    }

    #[test]
    fn impossible_batches_are_refused() {
        let data = counting(&[50], &[10]);
        assert!(matches!(data.micro_batch(&order(0, 4), 0), Err(DataError::Batch { .. })));
        assert!(matches!(data.micro_batch(&order(2, 0), 0), Err(DataError::Batch { .. })));
        assert!(matches!(data.micro_batch(&order(usize::MAX, 4), 0), Err(DataError::Batch { .. })));
        assert!(matches!(data.micro_batch(&order(1, 50), 0), Err(DataError::TooLittle { .. })));
        assert!(matches!(data.held_out_batch(3, 1, 4), Err(DataError::HeldOutIndex { count: 2, .. })));
        assert!(data.micro_batch(&order(2, 4), u64::MAX).is_ok());
    }

    #[test]
    fn a_wrong_or_missing_shard_is_named() {
        let good = counting(&[50], &[10]);
        let manifest = good.manifest().clone();
        let absent = Dataset::new(manifest.clone(), |_| Err(io::ErrorKind::NotFound.into())).unwrap();
        assert_eq!(absent.missing_for(&order(2, 4), 0).unwrap(), [manifest.train[0].hash]);
        assert!(matches!(absent.micro_batch(&order(2, 4), 0), Err(DataError::Fetch { .. })));
        let wrong = Dataset::new(manifest, |_| Ok(vec![1, 2, 3])).unwrap();
        assert!(matches!(wrong.micro_batch(&order(2, 4), 0), Err(DataError::Shard { .. })));
    }

    proptest! {
        #[test]
        fn a_pass_takes_every_window_once(
            sizes in prop::collection::vec(1_u64..60, 1..6), batch in 1_usize..5, sequence in 1_usize..8, pass in 0_u64..3
        ) {
            let data = counting(&sizes, &[5]);
            let windows = data.train_windows(sequence);
            prop_assume!(windows > 0);
            let order = order(batch, sequence);
            let (first, last) = (pass * windows, (pass + 1) * windows);
            let mut seen = Vec::new();
            for index in first / batch as u64..=last / batch as u64 {
                let rows = data.micro_batch(&order, index).unwrap().tokens;
                for (row, tokens) in rows.chunks(sequence + 1).enumerate() {
                    let number = index * batch as u64 + row as u64;
                    prop_assert_eq!(tokens[0] % sequence as u32, 0);
                    prop_assert!(tokens.windows(2).all(|pair| pair[1] == pair[0] + 1));
                    if (first..last).contains(&number) {
                        seen.push(u64::from(tokens[0]) / sequence as u64);
                    }
                }
                prop_assert!(data.missing_for(&order, index).unwrap().is_empty());
            }
            seen.sort_unstable();
            prop_assert_eq!(seen, (0..windows).collect::<Vec<_>>());
        }

        #[test]
        fn held_out_batches_are_fixed_and_disjoint(tokens in 20_u64..200, batch in 1_usize..4, sequence in 1_usize..8) {
            let data = counting(&[10], &[tokens]);
            let count = data.held_out_batches(batch, sequence);
            let mut seen = Vec::new();
            for index in 0..count {
                let rows = data.held_out_batch(index, batch, sequence).unwrap().tokens;
                seen.extend(rows.chunks(sequence + 1).map(|row| row[0]));
            }
            let before = seen.len();
            seen.sort_unstable();
            seen.dedup();
            prop_assert_eq!((before, seen.len()), (count as usize * batch, count as usize * batch));
        }
    }
}
