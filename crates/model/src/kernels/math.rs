//! Elementary functions in f64 from additions and multiplications alone: the same bits with every system library.

const LN_2: f64 = std::f64::consts::LN_2;
/// π/2 as the sum of three numbers with ever smaller magnitude (Cody and Waite).
const HALF_PI: [f64; 3] = [1.570_796_251_296_997, 7.549_789_415_861_596e-8, 5.390_302_529_957_765e-15];

/// Sine and cosine of an angle of at most a few million, to about 1e-14.
pub(crate) fn sin_cos(x: f64) -> (f64, f64) {
    let n = (x / std::f64::consts::FRAC_PI_2).round();
    let r = ((x - n * HALF_PI[0]) - n * HALF_PI[1]) - n * HALF_PI[2];
    let r2 = r * r;
    let (mut sine, mut cosine) = (0.0, 0.0);
    for k in (0..10).rev() {
        let k = f64::from(k);
        sine = 1.0 - r2 / ((2.0 * k + 2.0) * (2.0 * k + 3.0)) * sine;
        cosine = 1.0 - r2 / ((2.0 * k + 1.0) * (2.0 * k + 2.0)) * cosine;
    }
    // The loops start from 0 instead of 1: the terms left out are below 1e-19.
    let sine = sine * r;
    match (n as i64).rem_euclid(4) {
        0 => (sine, cosine),
        1 => (cosine, -sine),
        2 => (-sine, -cosine),
        _ => (-cosine, sine),
    }
}

/// Natural logarithm of a positive, normal number, to about 1e-15.
pub(crate) fn ln(x: f64) -> f64 {
    let bits = x.to_bits();
    let mut exponent = ((bits >> 52) & 0x7ff) as i64 - 1023;
    let mut mantissa = f64::from_bits((bits & 0x000f_ffff_ffff_ffff) | 0x3ff0_0000_0000_0000);
    if mantissa > std::f64::consts::SQRT_2 {
        mantissa *= 0.5;
        exponent += 1;
    }
    let t = (mantissa - 1.0) / (mantissa + 1.0);
    let t2 = t * t;
    let series = (0..14).rev().fold(0.0, |sum, k| sum * t2 + 1.0 / f64::from(2 * k + 1));
    exponent as f64 * LN_2 + 2.0 * t * series
}

/// Exponential, for results that are normal numbers, to about 1e-15.
pub(crate) fn exp(x: f64) -> f64 {
    let n = (x / LN_2).round();
    let r = x - n * LN_2;
    let series = (1..20).rev().fold(1.0, |sum, k| 1.0 + sum * r / f64::from(k));
    series * f64::from_bits(((n as i64 + 1023) as u64) << 52)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_match_the_system_library() {
        for i in -4000..4000 {
            let x = f64::from(i) * 0.037;
            let (s, c) = sin_cos(x);
            assert!((s - x.sin()).abs() < 1e-13 && (c - x.cos()).abs() < 1e-13, "{x}");
            assert!((exp(x) / x.exp() - 1.0).abs() < 1e-13, "{x}");
            let y = x.abs() * 10.0 + 1e-9;
            assert!((ln(y) - y.ln()).abs() < 1e-13, "{y}");
        }
        let (s, c) = sin_cos(131_071.0);
        assert!((s - 131_071f64.sin()).abs() < 1e-10 && (c - 131_071f64.cos()).abs() < 1e-10);
    }
}
