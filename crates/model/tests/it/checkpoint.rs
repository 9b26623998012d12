//! Models to folders and back, and text from them.

#![expect(clippy::unwrap_used, reason = "a helper that fails, fails its test")]

use std::{fs, path::Path, sync::Arc};

use rayon::{ThreadPool, ThreadPoolBuilder};
use serde_json::{Value, json};
use shoal_model::{
    checkpoint::{Checkpoint, CheckpointError, Export, TensorFile},
    config::{Cut, Dtype, ModelConfig, RopeScaling, StageSpec, Table},
    sample::{SampleOptions, Sampler, Stop},
    tokenizer::Tokenizer,
};

const PLAIN: Cut = Cut::Plain { wire: Dtype::F32 };
const ANCHORED: Cut = Cut::Anchored { width: 4, bits: 4, table: Table::Full };

fn model() -> ModelConfig {
    ModelConfig { rope_scaling: Some(RopeScaling::LLAMA_3), ..ModelConfig::preset("micro").unwrap() }
}

fn pool() -> Arc<ThreadPool> {
    Arc::new(ThreadPoolBuilder::new().num_threads(1).build().unwrap())
}

fn save(folder: &Path, stages: &[StageSpec], dtype: Dtype) -> Vec<Vec<f32>> {
    let weights: Vec<_> = stages.iter().map(StageSpec::initial_weights).collect();
    let slices: Vec<_> = weights.iter().map(Vec::as_slice).collect();
    let export = Export { stages, weights: &slices, tokenizer: &Tokenizer::Bytes, dtype };
    let plain = export.save(folder).unwrap();
    assert_eq!(plain, stages.len() == 1 || matches!(stages[0].cut, Cut::Plain { .. }));
    weights
}

fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    change(&mut value);
    fs::write(path, value.to_string()).unwrap();
}

#[test]
fn plain_stages_save_as_one_model_and_load_into_any_split() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("model");
    let stages = StageSpec::plan(&model(), PLAIN, 3, [5; 32]).unwrap();
    let weights = save(&folder, &stages, Dtype::F32);
    for file in ["shoal.json", "config.json"] {
        let checkpoint = Checkpoint::open(&folder).unwrap();
        assert_eq!(checkpoint.model(), &model(), "{file}");
        let whole = checkpoint.stages().unwrap();
        assert_eq!(whole.len(), 1);
        assert!(checkpoint.weights(&whole[0]).unwrap() == weights.concat());
        for (stage, weights) in stages.iter().zip(&weights) {
            assert!(&checkpoint.weights(stage).unwrap() == weights);
        }
        assert!(matches!(checkpoint.tokenizer().unwrap(), Tokenizer::Bytes) == (file == "shoal.json"));
        // The second turn reads it as `transformers` would have saved it.
        if file == "shoal.json" {
            fs::remove_file(folder.join("shoal.json")).unwrap();
            fs::remove_file(folder.join("tokenizer.shoal")).unwrap();
        }
    }
}

#[test]
fn cut_models_come_back_with_their_cuts() {
    let home = tempfile::tempdir().unwrap();
    for (i, cut) in [
        ANCHORED,
        Cut::Bottleneck { width: 8, wire: Dtype::Bf16 },
        Cut::Nothing { table: Table::Factorised { rank: 3 } },
    ]
    .into_iter()
    .enumerate()
    {
        let folder = home.path().join(i.to_string());
        let stages = StageSpec::plan(&model(), cut, 3, [5; 32]).unwrap();
        let weights = save(&folder, &stages, Dtype::F32);
        assert!(!folder.join("config.json").exists());
        let checkpoint = Checkpoint::open(&folder).unwrap();
        assert_eq!(checkpoint.stages().unwrap(), stages);
        for (stage, weights) in stages.iter().zip(&weights) {
            assert!(&checkpoint.weights(stage).unwrap() == weights);
        }
    }
}

#[test]
fn a_model_that_only_claims_to_be_huge_is_refused_before_room_is_made_for_it() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("model");
    let stages = StageSpec::plan(&model(), ANCHORED, 2, [5; 32]).unwrap();
    save(&folder, &stages, Dtype::F32);
    edit(&folder.join("shoal.json"), |about| {
        about["model"]["d_model"] = 65_536.into();
        about["model"]["ffn"] = 262_144.into();
    });
    let checkpoint = Checkpoint::open(&folder).unwrap();
    for stage in checkpoint.stages().unwrap() {
        let error = checkpoint.weights(&stage).unwrap_err().to_string();
        assert!(error.contains("model.safetensors: tensor ") && error.contains("belongs"), "{error}");
    }
}

#[test]
fn a_plain_model_starts_a_cut_one() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("model");
    let whole = StageSpec::plan(&model(), PLAIN, 1, [5; 32]).unwrap();
    save(&folder, &whole, Dtype::F32);
    fs::remove_file(folder.join("shoal.json")).unwrap();
    let checkpoint = Checkpoint::open(&folder).unwrap();
    for stage in StageSpec::plan(&model(), ANCHORED, 2, [9; 32]).unwrap() {
        let (weights, initial) = (checkpoint.weights(&stage).unwrap(), stage.initial_weights());
        for parameter in stage.layout().iter().filter(|p| p.shape.len() == 2) {
            let same = weights[parameter.range()] == initial[parameter.range()];
            assert_eq!(same, parameter.name.starts_with("cut."), "{}", parameter.name);
        }
    }
}

#[test]
fn bf16_rounds_and_tied_or_sharded_folders_load() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("model");
    let whole = &StageSpec::plan(&model(), PLAIN, 1, [5; 32]).unwrap()[0];
    let weights = save(&folder, std::slice::from_ref(whole), Dtype::Bf16).concat();
    fs::remove_file(folder.join("shoal.json")).unwrap();
    // Two files and an index; the output layer is the embedding.
    let file = TensorFile::open(&folder.join("model.safetensors")).unwrap();
    let names: Vec<_> = file.names().filter(|name| *name != "lm_head.weight").map(str::to_owned).collect();
    let mut map = serde_json::Map::new();
    for (part, names) in names.chunks(names.len().div_ceil(2)).enumerate() {
        let name = format!("model-{part}.safetensors");
        let numbers: Vec<_> = names.iter().map(|name| file.read(name).unwrap()).collect();
        let tensors: Vec<_> = names
            .iter()
            .zip(&numbers)
            .map(|(name, numbers)| shoal_model::checkpoint::TensorRef {
                name,
                shape: file.shape(name).unwrap(),
                numbers,
            })
            .collect();
        shoal_model::checkpoint::write_tensors(&folder.join(&name), &tensors, Dtype::Bf16).unwrap();
        map.extend(names.iter().map(|tensor| (tensor.clone(), json!(name))));
    }
    fs::remove_file(folder.join("model.safetensors")).unwrap();
    let index = folder.join("model.safetensors.index.json");
    fs::write(&index, json!({ "metadata": {}, "weight_map": map }).to_string()).unwrap();
    let untied = Checkpoint::open(&folder).unwrap();
    let error = untied.weights(whole).unwrap_err().to_string();
    assert!(error.contains("tensor lm_head.weight is missing"), "{error}");
    edit(&folder.join("config.json"), |config| config["tie_word_embeddings"] = json!(true));
    let read = Checkpoint::open(&folder).unwrap().weights(whole).unwrap();
    let layout = whole.layout();
    let place = |name: &str| layout.iter().find(|p| p.name == name).unwrap().range();
    let embedding = place("model.embed_tokens.weight");
    assert!(read[embedding.clone()] == read[place("lm_head.weight")]);
    let rounded = weights.iter().map(|&x| half::bf16::from_f32(x).to_f32());
    assert!(rounded.zip(&read).take(embedding.end).all(|(a, b)| a == *b));
    edit(&index, |index| index["weight_map"]["model.norm.weight"] = json!("../model-0.safetensors"));
    assert!(matches!(Checkpoint::open(&folder), Err(CheckpointError::Json { .. })));
}

#[test]
fn rope_parameters_of_transformers_5_are_read() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("model");
    save(&folder, &StageSpec::plan(&model(), PLAIN, 1, [5; 32]).unwrap(), Dtype::F32);
    fs::remove_file(folder.join("shoal.json")).unwrap();
    edit(&folder.join("config.json"), |config| {
        let config = config.as_object_mut().unwrap();
        let mut rope = config.remove("rope_scaling").unwrap();
        rope["rope_theta"] = config.remove("rope_theta").unwrap();
        config.insert("rope_parameters".to_owned(), rope);
    });
    assert_eq!(Checkpoint::open(&folder).unwrap().model(), &model());
}

#[test]
fn what_is_not_our_llama_is_refused_by_name() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("model");
    save(&folder, &StageSpec::plan(&model(), PLAIN, 1, [5; 32]).unwrap(), Dtype::F32);
    fs::remove_file(folder.join("shoal.json")).unwrap();
    let config = folder.join("config.json");
    let good = fs::read(&config).unwrap();
    let cases = [
        ("model_type", json!("mistral"), "only Llama models are"),
        ("hidden_act", json!("gelu"), "only silu is"),
        ("attention_bias", json!(true), "only models without biases are"),
        ("head_dim", json!(32), "only hidden_size / num_attention_heads is"),
        ("quantization_config", json!({}), "save it unquantised"),
        ("rope_scaling", json!({ "rope_type": "yarn" }), "only default and llama3 are"),
        ("hidden_size", json!("x"), "hidden_size = \"x\" is not a size"),
        ("vocab_size", Value::Null, "vocab_size is missing"),
        ("num_key_value_heads", json!(3), "model.kv_heads = 3 is not possible"),
        ("num_hidden_layers", json!(3), "tensor model.layers.3.input_layernorm.weight is not part"),
        ("intermediate_size", json!(161), "has shape [160, 64] where [161, 64] belongs"),
        ("vocab_size", json!(256), "has shape"),
    ];
    for (key, value, expected) in cases {
        fs::write(&config, &good).unwrap();
        edit(&config, |config| config[key] = value);
        let error = Checkpoint::open(&folder)
            .and_then(|c| c.stages()?.iter().try_for_each(|stage| c.weights(stage).map(drop)))
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{key}: {error}");
    }
}

#[test]
fn broken_or_missing_files_give_one_clear_line() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("model");
    let open = |path: &Path| Checkpoint::open(path).map(drop).unwrap_err().to_string();
    assert!(open(&folder).contains("check the path"));
    fs::create_dir(&folder).unwrap();
    assert!(open(&folder).contains("has neither shoal.json nor config.json"));
    let stages = StageSpec::plan(&model(), ANCHORED, 2, [5; 32]).unwrap();
    let weights = save(&folder, &stages, Dtype::F32);
    let slices: Vec<_> = weights.iter().map(Vec::as_slice).collect();
    let export =
        Export { stages: &stages, weights: &slices, tokenizer: &Tokenizer::Bytes, dtype: Dtype::F32 };
    assert!(matches!(export.save(&folder), Err(CheckpointError::Exists { .. })));
    let missing_one = Export { weights: &slices[1..], ..export };
    assert!(matches!(missing_one.save(&home.path().join("b")), Err(CheckpointError::Stages(_))));
    let reversed: Vec<_> = stages.iter().rev().cloned().collect();
    let out_of_order = Export { stages: &reversed, ..export };
    assert!(matches!(out_of_order.save(&home.path().join("b")), Err(CheckpointError::Stages(_))));
    let below_file = folder.join("shoal.json").join("x");
    assert!(matches!(export.save(&below_file), Err(CheckpointError::Write { .. })));
    let left: Vec<_> = fs::read_dir(home.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["model"]);

    let tensors = folder.join("model.safetensors");
    let good = fs::read(&tensors).unwrap();
    fs::write(&tensors, &good[..good.len() - 1]).unwrap();
    assert!(open(&folder).contains("copy or save it again"));
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    fs::write(&tensors, &flipped).unwrap();
    assert!(open(&folder).contains("not those that shoal.json names"));
    fs::write(&tensors, &good).unwrap();
    // Checkpoints from before the hash are read.
    edit(&folder.join("shoal.json"), |about| drop(about.as_object_mut().unwrap().remove("weights")));
    Checkpoint::open(&folder).unwrap();
    edit(&folder.join("shoal.json"), |about| about["ends"] = json!([9]));
    assert!(open(&folder).contains("cuts = [9] is not possible"));
    edit(&folder.join("shoal.json"), |about| about["surplus"] = json!(1));
    assert!(open(&folder).contains("unknown field `surplus`"));
}

#[test]
fn samples_stream_and_repeat_with_their_seed() {
    for (cut, count) in [(PLAIN, 1), (PLAIN, 2), (ANCHORED, 2)] {
        let stages = StageSpec::plan(&model(), cut, count, [5; 32]).unwrap();
        let weights = stages.iter().map(StageSpec::initial_weights).collect();
        let sampler = Sampler::new(&stages, weights, Tokenizer::Bytes, &pool()).unwrap();
        let take = |options: &SampleOptions| {
            let mut text = String::new();
            let stop = sampler.continue_text("ab", options, |part| {
                text += part;
                true
            });
            (text, stop.unwrap())
        };
        let options = SampleOptions { max_tokens: 80, temperature: 1.0, ..SampleOptions::default() };
        let (text, stop) = take(&options);
        assert_eq!((&text, stop), (&take(&options).0, stop));
        assert_ne!(text, take(&SampleOptions { seed: 1, ..options }).0);
        let asked = |seed| {
            let options = SampleOptions { seed, ..options };
            sampler.continue_text("ab", &options, |_| false).unwrap() == Stop::Asked
        };
        assert!((0..8).any(asked), "an untrained model seldom ends its text at once");
        assert_eq!(sampler.logits(&[256, 97]).unwrap().len(), 2 * 300);
    }
}

#[test]
fn a_split_model_samples_as_the_whole_one() {
    let text = |count| {
        let stages = StageSpec::plan(&model(), PLAIN, count, [5; 32]).unwrap();
        let weights = stages.iter().map(StageSpec::initial_weights).collect();
        Sampler::new(&stages, weights, Tokenizer::Bytes, &pool()).unwrap().logits(&[1, 2, 3, 4]).unwrap()
    };
    assert!(text(1) == text(3));
}
