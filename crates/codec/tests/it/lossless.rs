//! Lossless codecs: exact, equal on every level, safe on damaged input.

use crate::tensors::{Random, any_tensor, matrix, shared};
use proptest::prelude::*;
use shoal_codec::{
    Auto, CodecId, DType, Header, Level, Limits, Link, Shared, Tensor, Wire, decode_into_at, encode_at,
    with_threads,
};

const LOSSLESS: [CodecId; 4] = [CodecId::Raw, CodecId::Fast, CodecId::Huffman, CodecId::Context];
const UNCHECKED: Limits = Limits { max_decoded_bytes: 1 << 24, verify_checksum: false };

/// Encodes on every level, checks that the bytes are equal, decodes on every level, and returns the payload.
fn check(codec: CodecId, tensor: &Tensor) -> Vec<u8> {
    let mut first = Vec::new();
    for level in Level::available() {
        let mut payload = Vec::new();
        encode_at(level, codec, tensor.view(), &mut payload).unwrap();
        if first.is_empty() {
            first = payload;
        } else {
            assert!(first == payload, "{codec} on {level} writes other bytes than on scalar");
        }
    }
    for level in Level::available() {
        let mut bytes = vec![0xaa; 17];
        let header = decode_into_at(level, &first, &Limits::default(), &Shared::new(), &mut bytes).unwrap();
        assert_eq!((header.dtype, header.shape()), (tensor.dtype(), tensor.shape()));
        assert!(bytes == tensor.bytes(), "{codec} on {level} decodes to other bytes");
    }
    first
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]
    #[test]
    fn every_codec_is_exact_on_every_level(tensor in any_tensor()) {
        for codec in LOSSLESS {
            let payload = check(codec, &tensor);
            prop_assert!(payload.len() <= tensor.bytes().len() + 32);
        }
    }

    #[test]
    fn damage_is_refused_or_decoded_alike_but_never_panics(tensor in any_tensor(), seed: u64) {
        let mut r = Random(seed);
        for codec in LOSSLESS {
            let mut payload = Vec::new();
            encode_at(Level::Scalar, codec, tensor.view(), &mut payload).unwrap();
            let body = Header::parse(&payload, &UNCHECKED).unwrap().header_bytes();
            for _ in 0..8 {
                let mut bad = payload.clone();
                // Early bytes hold the tables, so they are hit more often.
                let reach = if r.next() & 1 == 0 { 64 } else { usize::MAX };
                let at = body + r.next() as usize % (bad.len() - body).clamp(1, reach);
                bad[at] = bad[at].wrapping_add(1 + (r.next() % 255) as u8);
                let mut all = Vec::new();
                for level in Level::available() {
                    let mut bytes = Vec::new();
                    let got = decode_into_at(level, &bad, &UNCHECKED, &Shared::new(), &mut bytes).map(|_| bytes);
                    all.push(got);
                }
                prop_assert!(all.windows(2).all(|w| w[0] == w[1]));
            }
        }
    }
}

#[test]
fn chunk_borders_are_exact() {
    for n in [1, 63, 64, 65, 16383, 16384, 16385, 32768, 40000] {
        for dtype in [DType::Bf16, DType::F16, DType::F32, DType::U16] {
            let tensor = matrix(dtype, 1, n, 0, n as u64);
            for codec in LOSSLESS {
                check(codec, &tensor);
            }
        }
    }
}

#[test]
fn gaussian_bf16_reaches_the_tiers_ratio() {
    let tensor = matrix(DType::Bf16, 512, 512, 0, 7);
    for (codec, least) in [(CodecId::Fast, 1.40), (CodecId::Huffman, 1.47)] {
        let ratio = tensor.bytes().len() as f64 / check(codec, &tensor).len() as f64;
        assert!(ratio >= least, "{codec}: {ratio}");
    }
}

#[test]
fn shared_tensors_are_exact() {
    for (name, tensor) in shared() {
        for codec in LOSSLESS {
            let payload = check(codec, &tensor);
            assert!(payload.len() < tensor.bytes().len() + 64, "{name}");
        }
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bytes() {
    // More than two parts, and rows that do not end where parts do; a few exponents far outside any window.
    for (dtype, rows, cols) in [(DType::Bf16, 1100, 600), (DType::F32, 700, 1024), (DType::U16, 301, 2048)] {
        let tensor = matrix(dtype, rows, cols, 2, 5);
        let mut bytes = tensor.bytes().to_vec();
        for i in (0..bytes.len()).step_by(99_991) {
            bytes[i] ^= 0x7f;
        }
        let tensor = Tensor::new(dtype, tensor.shape().to_vec(), bytes).unwrap();
        for codec in LOSSLESS {
            let alone = check(codec, &tensor);
            for threads in [2, 3, 16] {
                with_threads(threads, || assert!(check(codec, &tensor) == alone, "{codec} on {threads}"));
            }
            let mut r = Random(7);
            for _ in 0..16 {
                let mut bad = alone.clone();
                let at = 40 + r.next() as usize % (bad.len() - 40);
                bad[at] ^= 1 << (r.next() % 8);
                let decode = || {
                    let mut bytes = Vec::new();
                    let got = decode_into_at(Level::detect(), &bad, &UNCHECKED, &Shared::new(), &mut bytes);
                    got.map(|_| bytes).ok()
                };
                assert!(decode() == with_threads(3, decode), "{codec}, byte {at}");
            }
        }
    }
}

#[test]
fn auto_follows_the_link() {
    let tensor = matrix(DType::Bf16, 512, 512, 4, 3);
    let auto = Auto::new(Level::detect());
    let choose = |link: Link| auto.choose(tensor.view(), link, None).unwrap();
    assert_eq!(choose(Link::idle(1e3)), CodecId::Context);
    assert_eq!(choose(Link::idle(1e14)), CodecId::Raw);
    // While the link has work, encoding costs nothing; nor does decoding, unless the decoder has too much to do.
    let gigabit = Link { bytes_per_s: 125e6, backlog_s: 1.0, decoding_s: 0.0 };
    assert_eq!(choose(gigabit), CodecId::Context);
    assert_ne!(choose(Link { decoding_s: 9.0, backlog_s: 0.0, ..gigabit }), CodecId::Context);
    // What a wire has shown stands in for the probe.
    let mut wire = Wire::default();
    assert_eq!(auto.choose_on(&mut wire, tensor.view(), gigabit, None).unwrap(), CodecId::Context);
    let bytes = tensor.bytes().len();
    wire.note(CodecId::Context, bytes, 2 * bytes);
    let next = auto.choose_on(&mut wire, tensor.view(), gigabit, None).unwrap();
    assert_ne!(next, CodecId::Context, "its last payload was twice the tensor");
    for _ in 0..40 {
        auto.choose_on(&mut wire, tensor.view(), gigabit, None).unwrap();
    }
    assert_eq!(auto.choose_on(&mut wire, tensor.view(), gigabit, None).unwrap(), CodecId::Context);
    let bytes = Tensor::new(DType::U8, vec![64], vec![0; 64]).unwrap();
    assert_eq!(auto.choose(bytes.view(), Link::idle(1e3), None).unwrap(), CodecId::Raw);
    assert!(auto.speed(CodecId::Fast).is_some_and(|speed| speed.encode > 0.0));
}
