//! Llama-style stages: forward, backward, optimisers, cuts, tokenizers, data, safetensors.

pub mod data;
pub mod hash;
pub mod limits;
pub mod tokenizer;
