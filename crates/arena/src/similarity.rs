//! Similarity of an input and what came back, as every rule means it: cosine similarity × norm similarity.
//!
//! `similarity(x, y) = (x·y / (‖x‖ ‖y‖)) · (1 − ‖x − y‖ / ‖x‖)` in f64, summed in the order of the elements, so that every
//! judge gets the same bits (the formula of Matrix Compression v2). One departure: where both factors are negative the
//! product is not positive here. By the bare formula a copy with the wrong sign everywhere is as good as no error.

use crate::number::PPB;

/// Similarity of `x` and what a codec made of it; 1 if they are equal. An `x` of zeros is like zeros only (1, else 0).
/// Another length, or an element of `y` that is no number, is like nothing: 0. Elements of `x` must be finite.
pub fn similarity(x: &[f32], y: &[f32]) -> f64 {
    if x.len() != y.len() || y.iter().any(|value| !value.is_finite()) {
        return 0.0;
    }
    let (mut xx, mut yy, mut xy, mut dd) = (0.0_f64, 0.0_f64, 0.0_f64, 0.0_f64);
    for (x, y) in x.iter().zip(y) {
        let (x, y) = (f64::from(*x), f64::from(*y));
        xx += x * x;
        yy += y * y;
        xy += x * y;
        dd += (x - y) * (x - y);
    }
    match () {
        () if dd == 0.0 => 1.0,
        () if xx == 0.0 || yy == 0.0 => 0.0,
        () => {
            let product = (xy / (xx.sqrt() * yy.sqrt())) * (1.0 - (dd / xx).sqrt());
            if xy < 0.0 { -product.abs() } else { product }
        }
    }
}

/// A similarity as a verdict states it: 10⁻⁹, rounded towards zero, within what a verdict may state. Exactly one only
/// for an exact copy.
pub fn to_ppb(similarity: f64, exact: bool) -> i64 {
    let ppb = (similarity * PPB as f64) as i64;
    let most = if exact { PPB as i64 } else { PPB as i64 - 1 };
    ppb.clamp(crate::limits::SIMILARITY_PPB_MIN, most)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn golden_values() {
        for (x, y, expected) in [
            (&[3.0, 4.0][..], &[3.0, 4.0][..], 1.0),
            // cos 1, norm 1 − 1/2.
            (&[2.0, 0.0], &[1.0, 0.0], 0.5),
            (&[2.0, 0.0], &[4.0, 0.0], 0.0),
            // cos −1, norm 1 − 2: two wrongs make no right.
            (&[1.0, -2.0, 3.0], &[-1.0, 2.0, -3.0], -1.0),
            // cos 0.
            (&[1.0, 0.0], &[0.0, 1.0], 0.0),
            // cos 24/25, norm 1 − √2/5.
            (&[3.0, 4.0], &[4.0, 3.0], 0.96 * (1.0 - 0.08_f64.sqrt())),
            (&[0.0, 0.0], &[0.0, 0.0], 1.0),
            (&[0.0, 0.0], &[0.0, 1.0], 0.0),
            (&[1.0, 2.0], &[0.0, 0.0], 0.0),
            (&[1.0, 2.0], &[1.0], 0.0),
            (&[1.0, 2.0], &[1.0, f32::NAN], 0.0),
            (&[1.0, 2.0], &[1.0, f32::INFINITY], 0.0),
            (&[], &[], 1.0),
        ] {
            assert_eq!(similarity(x, y), expected, "{x:?} {y:?}");
        }
    }

    #[test]
    fn parts_per_billion_are_rounded_down_and_one_is_for_copies() {
        assert_eq!(to_ppb(0.990_000_000_9, false), 990_000_000);
        assert_eq!(to_ppb(1.0, false), 999_999_999);
        assert_eq!(to_ppb(1.0, true), 1_000_000_000);
        assert_eq!(to_ppb(-1e300, false), crate::limits::SIMILARITY_PPB_MIN);
        assert_eq!(to_ppb(f64::NAN, false), 0);
    }

    proptest! {
        #[test]
        fn never_above_one_and_one_for_copies(x in proptest::collection::vec(-1e6_f32..1e6, 1..50), seed in 0_u32..1000) {
            prop_assert_eq!(similarity(&x, &x), 1.0);
            let y: Vec<f32> = x.iter().enumerate().map(|(i, v)| v + (i as f32 * seed as f32).sin() * 100.0).collect();
            let found = similarity(&x, &y);
            prop_assert!(found.is_finite() && to_ppb(found, false) < 1_000_000_000);
        }

        #[test]
        fn any_bits_are_measured_without_a_panic(x in proptest::collection::vec(any::<u32>(), 0..20), y in proptest::collection::vec(any::<u32>(), 0..20)) {
            let floats = |bits: Vec<u32>| bits.into_iter().map(f32::from_bits).collect::<Vec<f32>>();
            let _ = to_ppb(similarity(&floats(x), &floats(y)), false);
        }
    }
}
