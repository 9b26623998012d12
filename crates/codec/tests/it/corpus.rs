//! Kept payloads: good ones decode to what they always did, bad ones are refused alike on every instruction set.
//!
//! `good-NAME-HASH.bin` decodes to bytes with that XXH3-64; `bad-NAME.bin` is refused; `shared-*.bin` are the predictor
//! and the basis that some of them name. Whatever else lies there came from fuzzing and only has to be survived.
//! `SHOAL_WRITE_CORPUS=1` writes the good and bad ones anew, after a change of format.

use crate::tensors::matrix;
use shoal_codec::{
    Basis, CodecId, DType, Level, Limits, LowRank, Predictor, Shared, Target, checksum, decode_into_at,
    encode_at, encode_klt, encode_lossy, encode_low_rank, encode_predictive,
};
use std::path::PathBuf;
use std::sync::Arc;

fn folder() -> PathBuf {
    crate::tensors::crate_folder().join("tests/corpus")
}

fn limits() -> Limits {
    Limits { max_decoded_bytes: 1 << 20, verify_checksum: false }
}

fn shared() -> Shared {
    let mut shared = Shared::new();
    let read = |name| std::fs::read(folder().join(name)).unwrap();
    shared.add_predictor(Arc::new(Predictor::from_bytes(&read("shared-predictor.bin")).unwrap()));
    shared.add_basis(Arc::new(Basis::from_bytes(&read("shared-basis.bin")).unwrap()));
    shared
}

fn write_corpus() {
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.starts_with("good-") || name.starts_with("bad-") {
            std::fs::remove_file(path).unwrap();
        }
    }
    let level = Level::Scalar;
    let target = Target::similarity(0.97).unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder().join(name), bytes).unwrap();
    let wire = matrix(DType::Bf16, 150, 12, 3, 42);
    let predictor = Predictor::learn(&[wire.view()]).unwrap();
    let basis = Basis::learn(&[wire.view()]).unwrap();
    write("shared-predictor.bin", predictor.to_bytes());
    write("shared-basis.bin", basis.to_bytes());
    let shared = shared();
    let good = |name: &str, payload: &[u8]| {
        let mut out = Vec::new();
        decode_into_at(level, payload, &limits(), &shared, &mut out).unwrap();
        write(&format!("good-{name}-{:016x}.bin", checksum(&out)), payload);
        // The same, with its body cut short by a byte and the header none the wiser.
        write(&format!("bad-{name}.bin"), &payload[..payload.len() - 1]);
    };
    for dtype in [DType::Bf16, DType::F16, DType::F32, DType::U16] {
        let tensor = matrix(dtype, 70, 24, 0, 7);
        for codec in [CodecId::Raw, CodecId::Fast, CodecId::Huffman, CodecId::Context] {
            let mut payload = Vec::new();
            encode_at(level, codec, tensor.view(), &mut payload).unwrap();
            good(&format!("{codec}-{dtype}"), &payload);
        }
        for codec in [CodecId::Uniform, CodecId::Int8] {
            let mut payload = Vec::new();
            encode_lossy(level, codec, target, tensor.view(), &mut payload).unwrap();
            good(&format!("{codec}-{dtype}"), &payload);
        }
    }
    let mut payload = Vec::new();
    encode_predictive(level, &predictor, wire.view(), &mut payload).unwrap();
    good("predictive", &payload);
    payload.clear();
    encode_klt(level, &basis, target, wire.view(), &mut payload).unwrap();
    good("klt", &payload);
    payload.clear();
    encode_low_rank(
        level,
        &mut LowRank::new(2).unwrap(),
        matrix(DType::Bf16, 60, 50, 2, 8).view(),
        &mut payload,
    )
    .unwrap();
    good("low-rank", &payload);
}

#[test]
fn kept_payloads_decode_as_ever() {
    if std::env::var_os("SHOAL_WRITE_CORPUS").is_some() {
        write_corpus();
    }
    let shared = shared();
    let (mut good, mut bad) = (0, 0);
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let input = std::fs::read(&path).unwrap();
        for level in Level::available() {
            let mut out = Vec::new();
            let result = decode_into_at(level, &input, &limits(), &shared, &mut out);
            if name.starts_with("good-") {
                assert!(result.is_ok(), "{name} on {level}: {result:?}");
                let hash = format!("{:016x}", checksum(&out));
                assert!(name.ends_with(&hash), "{name} on {level} decodes to {hash}");
                good += 1;
            } else if name.starts_with("bad-") {
                assert!(result.is_err() && out.is_empty(), "{name} on {level}");
                bad += 1;
            }
        }
        let _ = (Predictor::from_bytes(&input), Basis::from_bytes(&input));
    }
    assert!(good >= 27 && bad >= 27, "{good} good, {bad} bad: the corpus is incomplete");
}
