//! Integer logarithms, so that every machine decides alike.

/// log2 of `x` in 1/65536 steps, rounded down; 0 for 0.
pub(crate) fn log2_q16(x: u64) -> u32 {
    if x == 0 {
        return 0;
    }
    let whole = x.ilog2();
    // The mantissa as a number in [1, 2) with 31 fraction bits, squared sixteen times: each square gives one bit.
    let mut m = if whole >= 31 { x >> (whole - 31) } else { x << (31 - whole) };
    let mut result = whole << 16;
    for bit in (0..16).rev() {
        m = (m * m) >> 31;
        if m >= 1 << 32 {
            m >>= 1;
            result |= 1 << bit;
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log2_is_close() {
        for x in (1..5000_u64).chain([1 << 20, (1 << 40) + 12345, u64::MAX]) {
            let exact = (x as f64).log2() * 65536.0;
            assert!((f64::from(log2_q16(x)) - exact).abs() <= 40.0, "{x}");
        }
    }
}
