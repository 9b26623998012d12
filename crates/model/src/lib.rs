//! Owns Llama-style stages: forward, backward, optimisers, cuts, tokenizers, data, safetensors.
//! Must never know the network, the log, the store or who computes what.

pub mod checkpoint;
pub mod config;
mod cut;
pub mod data;
mod guard;
pub mod hash;
mod kernels;
pub mod limits;
pub mod local;
pub mod optim;
mod random;
pub mod sample;
pub mod stage;
pub mod tokenizer;
