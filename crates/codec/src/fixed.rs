//! Integer logarithms, so that every machine decides alike.

/// log2(1 + i / 256) in 1/65536 steps.
const FRACTIONS: [u16; 256] = fractions();

const fn fractions() -> [u16; 256] {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        // The mantissa as a number in [1, 2) with 31 fraction bits, squared sixteen times: each square gives one bit.
        let mut m = (256 + i as u64) << 23;
        let mut bit = 16;
        while bit > 0 {
            bit -= 1;
            m = (m * m) >> 31;
            if m >= 1 << 32 {
                m >>= 1;
                table[i] |= 1 << bit;
            }
        }
        i += 1;
    }
    table
}

/// log2 of `x` in 1/65536 steps, from its nine leading bits; 0 for 0.
#[inline]
pub(crate) const fn log2_q16(x: u64) -> u32 {
    if x == 0 {
        return 0;
    }
    let whole = x.ilog2();
    let lead = if whole >= 8 { x >> (whole - 8) } else { x << (8 - whole) };
    whole << 16 | FRACTIONS[(lead & 0xff) as usize] as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log2_is_close() {
        for x in (1..5000_u64).chain([1 << 20, (1 << 40) + 12345, u64::MAX]) {
            let exact = (x as f64).log2() * 65536.0;
            assert!((f64::from(log2_q16(x)) - exact).abs() <= 400.0, "{x}");
        }
    }
}
