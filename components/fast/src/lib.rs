//! Lossless: one window of seven exponents.
//!
//! It must never know a tensor but the one it is given.

use guest::{Guest, Meta};

struct Codec;

impl Guest for Codec {
    fn compress(data: Vec<u8>, meta: Meta) -> Result<Vec<u8>, String> {
        ours::compress(codec::CodecId::Fast, &data, &meta)
    }

    fn decompress(data: Vec<u8>, _meta: Meta) -> Result<Vec<u8>, String> {
        ours::decompress(&data)
    }
}

guest::export!(Codec with_types_in guest);
