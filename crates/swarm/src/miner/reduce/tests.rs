use proptest::prelude::*;

use super::*;
use crate::spec::Ramp;

fn bf16_reference(value: f32) -> f32 {
    half::bf16::from_f32(value).to_f32()
}

/// Numbers of very different sizes, with both zeros and subnormals.
fn numbers(len: usize) -> impl Strategy<Value = Vec<f32>> {
    let one = prop_oneof![
        Just(0.0f32),
        Just(-0.0),
        (-1.0f32..1.0),
        (-1.0f32..1.0).prop_map(|x| x * 1e-39),
        (-1.0f32..1.0).prop_map(|x| x * 1e30),
    ];
    proptest::collection::vec(one, len)
}

fn encoded(wire: MergeWire, values: &[f32]) -> Vec<u8> {
    let mut bytes = vec![0; values.len() * wire.width()];
    let zeros = vec![0.0; values.len()];
    let mut residual = zeros.clone();
    encode_upload(wire, values, &zeros, &zeros, &mut bytes, &mut residual).unwrap();
    bytes
}

fn decoded(wire: MergeWire, bytes: &[u8]) -> Vec<f32> {
    let mut values = vec![0.0; bytes.len() / wire.width()];
    decode(wire, bytes, &mut values);
    values
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

const DITHER: Dither = Dither(0x1234_5678_9abc_def0);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_bf16_upload_is_the_nearest_and_the_residual_the_rest(
        opened in numbers(300), trained in numbers(300), residual in numbers(300),
    ) {
        let mut bytes = vec![0; 600];
        let mut next = vec![0.0; 300];
        encode_upload(MergeWire::Bf16, &opened, &trained, &residual, &mut bytes, &mut next).unwrap();
        for (i, sent) in decoded(MergeWire::Bf16, &bytes).iter().enumerate() {
            let exact = opened[i] - trained[i] + residual[i];
            prop_assert_eq!(sent.to_bits(), bf16_reference(exact).to_bits());
            prop_assert_eq!((sent + next[i]).to_bits() << 1, exact.to_bits() << 1); // a zero may lose its sign
        }
    }

    #[test]
    fn a_reduction_is_the_declared_sum_however_it_is_split(
        a in numbers(9000), b in numbers(9000), c in numbers(9000), cut in 0usize..3,
    ) {
        let factors = [0.25f32, 0.7, 0.05];
        let uploads = [&a, &b, &c].map(|values| encoded(MergeWire::F32, values));
        let summands: Vec<(f32, &[u8])> =
            factors.iter().zip(&uploads).map(|(w, u)| (*w, u.as_slice())).collect();
        let mut whole = vec![0; 36_000];
        reduce(MergeWire::F32, &summands, DITHER, 0, &mut whole);
        let [a, b, c] = [0, 1, 2].map(|i: usize| decoded(MergeWire::F32, &uploads[i]));
        for (i, got) in decoded(MergeWire::F32, &whole).iter().enumerate() {
            let first = factors[0] * a[i];
            let second = first + factors[1] * b[i];
            let third = second + factors[2] * c[i];
            prop_assert_eq!(got.to_bits(), third.to_bits());
        }
        let short: Vec<_> = [&a, &b, &c].map(|values| encoded(MergeWire::Bf16, values)).to_vec();
        let summands: Vec<(f32, &[u8])> = factors.iter().zip(&short).map(|(w, u)| (*w, u.as_slice())).collect();
        let mut whole = vec![0; 18_000];
        reduce(MergeWire::Bf16, &summands, DITHER, BLOCK, &mut whole);
        let at = cut * BLOCK * 2;
        let upper: Vec<(f32, &[u8])> = summands.iter().map(|(w, u)| (*w, &u[at..])).collect();
        let mut part = vec![0; 18_000 - at];
        reduce(MergeWire::Bf16, &upper, DITHER, BLOCK + cut * BLOCK, &mut part);
        prop_assert_eq!(&whole[at..], &part[..]);
    }

    #[test]
    fn a_square_sum_is_close_to_the_naive_one(values in proptest::collection::vec(-1.0f32..1.0, 0..10_000)) {
        let sum = square_sum(MergeWire::F32, &encoded(MergeWire::F32, &values)).unwrap();
        let naive: f64 = values.iter().map(|v| f64::from(*v) * f64::from(*v)).sum();
        prop_assert!((sum - naive).abs() <= 1e-9 * naive.max(1.0));
    }
}

#[test]
fn infinite_and_undefined_numbers_are_refused_and_large_ones_stay_finite() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for wire in [MergeWire::F32, MergeWire::Bf16] {
            let mut bytes = vec![0; wire.width()];
            let refused = encode_upload(wire, &[bad], &[0.0], &[0.0], &mut bytes, &mut [0.0]);
            assert_eq!(refused, Err(NotFinite));
            assert_eq!(square_sum(wire, &bytes), Err(NotFinite), "{bad} must not become finite");
        }
    }
    let mut bytes = [0; 2];
    encode_upload(MergeWire::Bf16, &[f32::MAX], &[0.0], &[0.0], &mut bytes, &mut [0.0]).unwrap();
    assert!(square_sum(MergeWire::Bf16, &bytes).is_ok());
    assert_eq!(dithered_bf16(f32::MIN, u16::MAX), 0xff7f);
}

#[test]
fn dithered_rounding_is_unbiased() {
    let (count, value) = (1 << 16, 1.0 + 0.3 / 128.0);
    let mut bytes = vec![0; count * 2];
    encode_result(MergeWire::Bf16, Dither::new(&Hash([1; 32]), 0), 0, &vec![value; count], &mut bytes);
    let values = decoded(MergeWire::Bf16, &bytes);
    let ups = values.iter().filter(|v| **v > value).count() as f64 / count as f64;
    assert!((ups - 0.3).abs() < 0.01, "{ups}");
    let other = Dither::new(&Hash([1; 32]), 1);
    let mut others = vec![0; count * 2];
    encode_result(MergeWire::Bf16, other, 0, &vec![value; count], &mut others);
    assert_ne!(bytes, others);
}

#[test]
fn nesterov_is_the_published_formula_and_identity_a_subtraction() {
    let ramp = Some(Ramp { from: 0.5, epochs: 20 });
    let mean = encoded(MergeWire::F32, &[0.1, 0.2]);
    for (epoch, ramp, mu) in [(0, None, 0.9f32), (0, ramp, 0.5), (10, ramp, 0.7), (20, ramp, 0.9)] {
        let outer = Outer::Nesterov { learning_rate: 0.7, momentum: 0.9, ramp };
        let (mut weights, mut momentum) = (vec![1.0f32, 2.0], vec![0.5f32, -0.25]);
        outer_step(MergeWire::F32, outer, Epoch(epoch), &mean, &mut weights, &mut momentum);
        for (i, (mean, theta, m)) in [(0.1f32, 1.0f32, 0.5f32), (0.2, 2.0, -0.25)].into_iter().enumerate() {
            let next = mu * m + mean;
            assert_eq!(momentum[i].to_bits(), next.to_bits());
            assert_eq!(weights[i].to_bits(), (theta - 0.7 * (mean + mu * next)).to_bits());
        }
    }
    let mut weights = vec![1.0f32; 5000];
    let mean = encoded(MergeWire::F32, &vec![0.25; 5000]);
    outer_step(MergeWire::F32, Outer::Identity, Epoch(0), &mean, &mut weights, &mut []);
    assert_eq!(bits(&weights), bits(&vec![0.75; 5000]));
}

#[test]
fn weights_do_not_count_speed_twice() {
    let share = |batches, steps| Share { batches, steps, clip: 1.0 };
    let sum = |values: &[f32]| values.iter().sum::<f32>();
    // Equal steps: plain shares of batches.
    assert_eq!(weights(&[share(1, 10), share(3, 10)], 0b11), [0.25, 0.75]);
    // A bit that is not set counts for nothing; the others share its part.
    assert_eq!(weights(&[share(1, 10), share(3, 10)], 0b01), [1.0, 0.0]);
    // Who took four times the steps has an upload four times as long; its share stays that of its batches.
    let uneven = weights(&[share(4, 40), share(1, 10)], 0b11);
    assert!((uneven[0] * 40.0 / (uneven[1] * 10.0) - 4.0).abs() < 1e-5);
    // Cut to 4/N' before the shares are made to sum to one again.
    let mut set = vec![share(1, 1); 7];
    set.push(share(93, 1));
    let capped = weights(&set, 0xff);
    assert!((capped[7] - 0.5 / 0.57).abs() < 1e-6 && (sum(&capped) - 1.0).abs() < 1e-6);
    // Nobody at all, or nobody who stepped.
    assert_eq!(weights(&[share(1, 1)], 0), [0.0]);
    assert_eq!(weights(&[share(0, 0)], 1), [0.0]);
}

#[test]
fn leaf_hashes_of_parts_are_those_of_the_whole() {
    let values: Vec<f32> = (0..10_000).map(|i| i as f32).collect();
    let whole = merkle::leaf_hashes(bytes_of(&values));
    let head = leaf_hashes(10_000, 0, 4, bytes_of(&values[..8192]));
    let tail = leaf_hashes(10_000, 8192, 4, bytes_of(&values[8192..]));
    assert_eq!([head, tail].concat(), whole);
    assert_ne!(
        state_of(10_000, 8192..10_000, &values[8192..], &[]),
        state_of(10_000, 8192..10_000, &values[8192..], &vec![0.0; 1808])
    );
}
