//! The files of a Hugging Face Llama folder, both ways.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{CONFIG_JSON, CheckpointError, WEIGHTS, WEIGHTS_INDEX, disk::read_small};
use crate::{
    config::{Dtype, ModelConfig, RopeScaling, SEQUENCE_MAX},
    tokenizer::Tokenizer,
};

/// Most files that an index may name.
const MAX_WEIGHT_FILES: usize = 4096;

/// `config.json` and its companions, as `transformers` 4 and 5 read them.
pub(super) fn files(model: &ModelConfig, tokenizer: &Tokenizer, dtype: Dtype) -> Vec<(&'static str, Value)> {
    let end = tokenizer.end_of_text();
    let dtype = if dtype == Dtype::Bf16 { "bfloat16" } else { "float32" };
    let rope_scaling = model.rope_scaling.map(|scaling| {
        json!({
            "rope_type": "llama3",
            "factor": decimal(scaling.factor),
            "low_freq_factor": decimal(scaling.low_frequency_factor),
            "high_freq_factor": decimal(scaling.high_frequency_factor),
            "original_max_position_embeddings": scaling.original_sequence,
        })
    });
    let config = json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": false,
        "attention_dropout": 0.0,
        "mlp_bias": false,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "pretraining_tp": 1,
        "tie_word_embeddings": false,
        "use_cache": true,
        "vocab_size": model.vocab,
        "hidden_size": model.d_model,
        "num_hidden_layers": model.blocks,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.kv_heads,
        "head_dim": model.head_width(),
        "intermediate_size": model.ffn,
        "max_position_embeddings": model.sequence,
        "rms_norm_eps": decimal(model.norm_eps),
        "rope_theta": decimal(model.rope_theta),
        "rope_scaling": rope_scaling,
        "bos_token_id": null,
        "eos_token_id": end,
        "torch_dtype": dtype,
    });
    let tokenizer_config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": null,
        "eos_token": tokenizer.end_of_text_name(),
        "model_max_length": model.sequence,
        "clean_up_tokenization_spaces": false,
    });
    let generation = json!({ "eos_token_id": end, "pad_token_id": end, "do_sample": true });
    vec![
        (CONFIG_JSON, config),
        ("tokenizer_config.json", tokenizer_config),
        ("generation_config.json", generation),
    ]
}

/// The shortest decimal number that is this f32, as people write it: 1e-5, not 9.99999974e-6.
fn decimal(x: f32) -> f64 {
    x.to_string().parse().expect("Rust reads what it writes")
}

/// `config.json` as a model, and whether embedding and output layer are one tensor.
pub(super) fn read_config(path: &Path) -> Result<(ModelConfig, bool), CheckpointError> {
    let config: Map<String, Value> = parse(path, &read_small(path)?)?;
    let config = Config { path, values: &config };
    config.must_be("model_type", &Value::Null, |v| v == "llama", "only Llama models are")?;
    let silu = |v: &Value| v == "silu" || v == "swish";
    config.must_be("hidden_act", &json!("silu"), silu, "only silu is")?;
    for key in ["attention_bias", "mlp_bias"] {
        config.must_be(key, &json!(false), |v| v == false, "only models without biases are")?;
    }
    config.must_be("pretraining_tp", &json!(1), |v| v == 1, "only 1 is")?;
    config.must_be("quantization_config", &Value::Null, Value::is_null, "save it unquantised")?;
    let heads = config.size("num_attention_heads", None)?;
    let longest = config.size("max_position_embeddings", Some(2048))?;
    let rope = config.rope()?;
    let model = ModelConfig {
        vocab: config.size("vocab_size", None)?,
        d_model: config.size("hidden_size", None)?,
        blocks: config.size("num_hidden_layers", None)?,
        heads,
        kv_heads: config.size("num_key_value_heads", Some(heads))?,
        ffn: config.size("intermediate_size", None)?,
        sequence: longest.min(SEQUENCE_MAX),
        norm_eps: config.number(config.values, "rms_norm_eps", Some(1e-6))? as f32,
        rope_theta: rope.0,
        rope_scaling: rope.1,
    };
    model.check().map_err(|source| CheckpointError::Config { path: path.display().to_string(), source })?;
    let width = |v: &Value| v.is_null() || v.as_u64() == Some(model.head_width() as u64);
    config.must_be("head_dim", &Value::Null, width, "only hidden_size / num_attention_heads is")?;
    let tied = config.values.get("tie_word_embeddings").and_then(Value::as_bool).unwrap_or(false);
    Ok((model, tied))
}

/// The safetensors files of a folder: one, or those that its index names.
pub(super) fn weight_files(folder: &Path) -> Result<Vec<PathBuf>, CheckpointError> {
    #[derive(Deserialize)]
    struct Index {
        weight_map: std::collections::BTreeMap<String, String>,
    }
    let path = folder.join(WEIGHTS_INDEX);
    if folder.join(WEIGHTS).exists() || !path.exists() {
        return Ok(vec![folder.join(WEIGHTS)]);
    }
    let index: Index = parse(&path, &read_small(&path)?)?;
    let files: BTreeSet<String> = index.weight_map.into_values().collect();
    let plain_name = |name: &String| Path::new(name).file_name().is_some_and(|file| file == name.as_str());
    if files.is_empty() || files.len() > MAX_WEIGHT_FILES || !files.iter().all(plain_name) {
        let reason = "it must name files of the same folder".to_owned();
        return Err(CheckpointError::Json { path: path.display().to_string(), reason });
    }
    Ok(files.into_iter().map(|name| folder.join(name)).collect())
}

fn parse<'a, T: Deserialize<'a>>(path: &Path, bytes: &'a [u8]) -> Result<T, CheckpointError> {
    serde_json::from_slice(bytes)
        .map_err(|e| CheckpointError::Json { path: path.display().to_string(), reason: e.to_string() })
}

struct Config<'a> {
    path: &'a Path,
    values: &'a Map<String, Value>,
}

impl Config<'_> {
    fn must_be(
        &self,
        key: &'static str,
        default: &Value,
        supported: impl Fn(&Value) -> bool,
        allowed: &'static str,
    ) -> Result<(), CheckpointError> {
        let value = self.values.get(key).unwrap_or(default);
        if supported(value) {
            return Ok(());
        }
        let (path, value) = (self.path.display().to_string(), value.to_string());
        Err(CheckpointError::Unsupported { path, key, value, allowed })
    }

    fn size(&self, key: &str, default: Option<usize>) -> Result<usize, CheckpointError> {
        let value = self.values.get(key).filter(|value| !value.is_null());
        match (value, default) {
            (None, Some(default)) => Ok(default),
            (None, None) => Err(self.bad(format!("{key} is missing"))),
            (Some(value), _) => value
                .as_u64()
                .and_then(|size| usize::try_from(size).ok())
                .ok_or_else(|| self.bad(format!("{key} = {value} is not a size"))),
        }
    }

    fn number(
        &self,
        map: &Map<String, Value>,
        key: &str,
        default: Option<f64>,
    ) -> Result<f64, CheckpointError> {
        match (map.get(key).filter(|value| !value.is_null()), default) {
            (None, Some(default)) => Ok(default),
            (None, None) => Err(self.bad(format!("{key} is missing"))),
            (Some(value), _) => {
                value.as_f64().ok_or_else(|| self.bad(format!("{key} = {value} is not a number")))
            }
        }
    }

    /// Base and scaling of the rotary frequencies: `transformers` 4 keeps them in `rope_theta` and
    /// `rope_scaling`, 5 in `rope_parameters`.
    fn rope(&self) -> Result<(f32, Option<RopeScaling>), CheckpointError> {
        let map = |key: &str| self.values.get(key).and_then(Value::as_object);
        let empty = Map::new();
        let parameters = map("rope_parameters").or(map("rope_scaling")).unwrap_or(&empty);
        let theta_at = if parameters.contains_key("rope_theta") { parameters } else { self.values };
        let theta = self.number(theta_at, "rope_theta", Some(10_000.0))? as f32;
        let kind = parameters.get("rope_type").or(parameters.get("type")).and_then(Value::as_str);
        match kind.unwrap_or("default") {
            "default" => Ok((theta, None)),
            "llama3" => {
                let original = self.number(parameters, "original_max_position_embeddings", None)?;
                let scaling = RopeScaling {
                    factor: self.number(parameters, "factor", None)? as f32,
                    low_frequency_factor: self.number(parameters, "low_freq_factor", None)? as f32,
                    high_frequency_factor: self.number(parameters, "high_freq_factor", None)? as f32,
                    original_sequence: original as usize,
                };
                Ok((theta, Some(scaling)))
            }
            other => Err(CheckpointError::Unsupported {
                path: self.path.display().to_string(),
                key: "rope_type",
                value: other.to_owned(),
                allowed: "only default and llama3 are",
            }),
        }
    }

    fn bad(&self, reason: String) -> CheckpointError {
        CheckpointError::Json { path: self.path.display().to_string(), reason }
    }
}
