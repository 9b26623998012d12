//! Owns Llama-style stages: forward, backward, optimisers, cuts, tokenizers, data, safetensors.
//! Must never know the network, the log, the store or who computes what.

pub mod config;
mod cut;
pub mod data;
pub mod hash;
pub mod limits;
mod kernels;
pub mod optim;
mod random;
pub mod stage;
pub mod tokenizer;
