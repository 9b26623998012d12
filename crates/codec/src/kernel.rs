//! Integer sums of products: 64 rows times the columns so far.

#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod x86;

use crate::simd::Level;

/// Rows worked on together.
pub(crate) const ROWS: usize = 64;

/// Values of 64 rows: for each pair of columns, 64 pairs.
#[derive(Debug)]
pub(crate) struct Block {
    pairs: Vec<[[i16; 2]; ROWS]>,
}

impl Block {
    pub(crate) fn new(columns: usize) -> Self {
        Self { pairs: vec![[[0; 2]; ROWS]; columns.div_ceil(2)] }
    }

    pub(crate) fn clear(&mut self) {
        self.pairs.fill([[0; 2]; ROWS]);
    }

    pub(crate) fn set(&mut self, column: usize, values: &[i16; ROWS]) {
        for (pair, &v) in self.pairs[column / 2].iter_mut().zip(values) {
            pair[column % 2] = v;
        }
    }
}

impl Block {
    /// The values of one column.
    #[inline]
    pub(crate) fn column(&self, column: usize) -> [i16; ROWS] {
        self.pairs[column / 2].map(|pair| pair[column % 2])
    }

    /// Puts two columns, from an even one on.
    #[inline(always)]
    pub(crate) fn set_pair(&mut self, pair: usize, a: &[i16; ROWS], b: &[i16; ROWS]) {
        for ((p, &a), &b) in self.pairs[pair].iter_mut().zip(a).zip(b) {
            *p = [a, b];
        }
    }

    /// Puts one row's values, from the first column on.
    #[inline(always)]
    pub(crate) fn set_row(&mut self, row: usize, values: &[i16]) {
        let (pairs, last) = values.as_chunks::<2>();
        for (p, &v) in self.pairs.iter_mut().zip(pairs) {
            p[row] = v;
        }
        if let (Some(&v), Some(p)) = (last.first(), self.pairs.get_mut(pairs.len())) {
            p[row] = [v, 0];
        }
    }
}

/// Sums of `weights`, a pair for each pair of columns, times the first `columns` columns of the block; sums wrap.
pub(crate) fn predict(level: Level, block: &Block, weights: &[[i16; 2]], columns: usize) -> [i32; ROWS] {
    let pairs = &block.pairs[..columns.div_ceil(2)];
    sums(level, pairs, &weights[..pairs.len()])
}

fn sums(level: Level, pairs: &[[[i16; 2]; ROWS]], weights: &[[i16; 2]]) -> [i32; ROWS] {
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => x86::predict_avx512(pairs, weights),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => x86::predict_avx2(pairs, weights),
        #[cfg(target_arch = "aarch64")]
        Level::Neon => neon::predict(pairs, weights),
        Level::Scalar => predict_scalar(pairs, weights),
    }
}

/// Like [`predict`], of the columns of `range` alone, which starts at an even one.
pub(crate) fn predict_range(
    level: Level,
    block: &Block,
    weights: &[[i16; 2]],
    range: std::ops::Range<usize>,
) -> [i32; ROWS] {
    let (from, to) = (range.start / 2, range.end.div_ceil(2));
    sums(level, &block.pairs[from..to], &weights[from..to])
}

/// Weights that [`nearest`] and [`predict_all`] take together: each load of the block serves all.
pub(crate) const QUERIES: usize = 4;

/// Like [`predict`] for each number below `count`, whose weights `weights_of` gives; sums go to `each`.
pub(crate) fn predict_all<'w>(
    level: Level,
    block: &Block,
    count: usize,
    columns: usize,
    weights_of: impl Fn(usize) -> &'w [[i16; 2]],
    mut each: impl FnMut(usize, &[i32; ROWS]),
) {
    let mut from = 0;
    #[cfg(target_arch = "x86_64")]
    if level == Level::Avx512 {
        let pairs = &block.pairs[..columns.div_ceil(2)];
        while from + QUERIES <= count {
            let weights = [0, 1, 2, 3].map(|q| &weights_of(from + q)[..pairs.len()]);
            for (q, sums) in x86::predict_four_avx512(pairs, &weights).iter().enumerate() {
                each(from + q, sums);
            }
            from += QUERIES;
        }
    }
    while from < count {
        each(from, &predict(level, block, weights_of(from), columns));
        from += 1;
    }
}

/// For each of the queries, a row of the blocks whose sum with its weights is largest in magnitude: the first of those
/// that agree but for the two lowest bits, later sixteens last. `None` where all are zero or there are no blocks. Sums
/// must not wrap.
pub(crate) fn nearest(
    level: Level,
    blocks: &[Block],
    queries: &[&[[i16; 2]]; QUERIES],
    columns: usize,
) -> [Option<usize>; QUERIES] {
    #[cfg(target_arch = "x86_64")]
    if level == Level::Avx512 {
        return x86::nearest_avx512(blocks, &queries.map(|q| &q[..columns.div_ceil(2)]));
    }
    let mut best = [(0, 0); QUERIES];
    for (b, block) in blocks.iter().enumerate() {
        for (best, query) in best.iter_mut().zip(queries) {
            let sums = predict(level, block, query, columns);
            let mut keys = [0_i32; ROWS];
            for (i, (key, s)) in keys.iter_mut().zip(&sums).enumerate() {
                *key = s.abs() & !3 | (3 - i / 16) as i32;
            }
            let most = keys.iter().fold(0, |m: i32, &k| m.max(k));
            if most > best.0 {
                let row = keys.iter().position(|&k| k == most).unwrap_or(0);
                *best = (most, b * ROWS + row);
            }
        }
    }
    best.map(|(key, row)| (key > 3).then_some(row))
}

fn predict_scalar(pairs: &[[[i16; 2]; ROWS]], weights: &[[i16; 2]]) -> [i32; ROWS] {
    let mut sums = [0_i32; ROWS];
    for (pair, &[a, b]) in pairs.iter().zip(weights) {
        for (s, &[x, y]) in sums.iter_mut().zip(pair) {
            let product = i32::from(a) * i32::from(x);
            *s = s.wrapping_add(product).wrapping_add(i32::from(b) * i32::from(y));
        }
    }
    sums
}
