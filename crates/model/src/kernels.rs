//! Fused f32 kernels, forward and backward. Work is cut into tiles whose number depends on shapes alone, and every
//! sum has a declared order, so the bits do not depend on the number of threads.

pub(crate) mod attention;
pub(crate) mod embedding;
pub(crate) mod feed_forward;
pub(crate) mod linear;
pub(crate) mod loss;
pub(crate) mod math;
pub(crate) mod matrix;
pub(crate) mod norm;
pub(crate) mod rope;
pub(crate) mod simd;

#[cfg(test)]
pub(crate) mod checks;

/// Rows per tile of row-wise kernels.
pub(crate) const ROW_TILE: usize = 64;
