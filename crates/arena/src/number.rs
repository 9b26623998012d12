//! Numbers that come out the same everywhere: parts per million, and the exponential from basic operations alone.

/// One, in parts per million.
pub const PPM: u64 = 1_000_000;
/// One, in parts per billion.
pub const PPB: u64 = 1_000_000_000;

/// e^x from additions, multiplications and divisions in a declared order: the libraries of two systems differ in the
/// last bit, this does not. Error below 2 units in the last place.
pub fn exp(x: f64) -> f64 {
    if x.is_nan() {
        return x;
    }
    if x > 709.0 {
        return if x > 709.78 { f64::INFINITY } else { exp(x - 1.0) * std::f64::consts::E };
    }
    if x < -740.0 {
        return 0.0;
    }
    // x = k ln 2 + r, |r| ≤ ½ ln 2, with ln 2 in two parts (as in FreeBSD's e_exp.c).
    let k = (x * std::f64::consts::LOG2_E + 0.5).floor();
    let r = (x - k * 6.931_471_803_691_238e-1) - k * 1.908_214_929_270_587_7e-10;
    let mut sum = 1.0;
    for n in (1..=14).rev() {
        sum = 1.0 + sum * (r / f64::from(n));
    }
    let k = k as i32;
    // Two factors, so that results below the normal range are rounded once.
    let half = k / 2;
    sum * power_of_two(half) * power_of_two(k - half)
}

fn power_of_two(k: i32) -> f64 {
    f64::from_bits(((i64::from(k) + 1023) as u64) << 52)
}

/// `value × parts / 1 000 000`, rounded down; saturates.
pub fn ppm_of(value: u64, parts: u64) -> u64 {
    u64::try_from(u128::from(value) * u128::from(parts) / u128::from(PPM)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn golden_values_of_the_exponential() {
        for (x, bits) in [
            (0.0, 1.0_f64),
            (1.0, std::f64::consts::E),
            (-1.0, 0.367_879_441_171_442_33),
            (0.5, 1.648_721_270_700_128_2),
            (-3.0, 0.049_787_068_367_863_944),
            (10.0, 22_026.465_794_806_718),
            (-20.0, 2.061_153_622_438_558e-9),
        ] {
            let found = exp(x);
            assert!((found - bits).abs() <= bits * 4.5e-16, "exp({x}) = {found:e}, expected {bits:e}");
        }
        assert_eq!(exp(0.0).to_bits(), 1.0_f64.to_bits());
        assert_eq!(exp(800.0), f64::INFINITY);
        assert_eq!(exp(-800.0), 0.0);
        assert!(exp(f64::NAN).is_nan());
        // The bits themselves: they may not change with a compiler.
        assert_eq!(exp(-3.0).to_bits(), 0x3fa9_7db0_ccce_b0af);
    }

    proptest! {
        #[test]
        fn close_to_the_library_everywhere(x in -700.0_f64..709.5) {
            let (found, library) = (exp(x), x.exp());
            prop_assert!((found - library).abs() <= library * 1e-15, "exp({}) = {} library {}", x, found, library);
        }

        #[test]
        fn grows(x in -700.0_f64..700.0, step in 1e-6_f64..1.0) {
            prop_assert!(exp(x + step) > exp(x));
        }
    }
}
