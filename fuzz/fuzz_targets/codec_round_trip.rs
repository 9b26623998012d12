//! A tensor from the input through every codec: lossless ones give it back, lossy ones meet their target.
#![no_main]

use codec::{CodecId, DType, Level, Limits, Shared, Target, Tensor, TensorRef};
use codec::{decode_into_at, encode_at, encode_lossy, similarity};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [dtype, cols, least, bytes @ ..] = input else { return };
    let dtype = DType::from_id(dtype % 5).expect("five types");
    let cols = usize::from(*cols) + 1;
    let rows = bytes.len() / (cols * dtype.size());
    let bytes = &bytes[..rows * cols * dtype.size()];
    let shape = [rows, cols];
    let tensor = TensorRef::new(dtype, &shape, bytes).expect("sizes agree");
    let back = |payload: &[u8]| {
        let mut out = Vec::new();
        let header = decode_into_at(Level::detect(), payload, &Limits::default(), &Shared::new(), &mut out);
        assert_eq!(header.expect("own payloads decode").shape(), shape);
        out
    };
    for codec in [CodecId::Raw, CodecId::Fast, CodecId::Huffman, CodecId::Context] {
        let mut payload = Vec::new();
        encode_at(Level::detect(), codec, tensor, &mut payload).expect("lossless codecs take every tensor");
        assert_eq!(back(&payload), bytes);
    }
    let least = f64::from(*least) / 256.0 * 0.99 + 0.005;
    let target = Target::similarity(least).expect("within 0 and 1");
    for codec in [CodecId::Uniform, CodecId::Int8] {
        let mut payload = Vec::new();
        encode_lossy(Level::detect(), codec, target, tensor, &mut payload).expect("falls back where it cannot serve");
        let out = back(&payload);
        if out != bytes {
            let got = Tensor::new(dtype, shape.to_vec(), out).expect("sizes agree");
            assert!(similarity(tensor, got.view()).expect("floats") >= least);
        }
    }
});
