//! Tensor to bytes and back: lossless and lossy codecs, one frame payload.
