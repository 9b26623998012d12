//! Lossy: one uniform step, similarity at least 0.99.
//!
//! It must never know a tensor but the one it is given.

use guest::{Guest, Meta};

struct Codec;

impl Guest for Codec {
    fn compress(data: Vec<u8>, meta: Meta) -> Result<Vec<u8>, String> {
        ours::compress_lossy(0.99, &data, &meta)
    }

    fn decompress(data: Vec<u8>, _meta: Meta) -> Result<Vec<u8>, String> {
        ours::decompress(&data)
    }
}

guest::export!(Codec with_types_in guest);
