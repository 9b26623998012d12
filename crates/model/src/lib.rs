//! Llama-style stages: forward, backward, optimisers, cuts, tokenizers, data, safetensors.
