//! Models on disk: Hugging Face folders in and out, and our own folders for models with other cuts.
//!
//! A folder has `model.safetensors`, `tokenizer.json` (or `tokenizer.shoal`) and `shoal.json` (model, cut and
//! split). A model without cuts, or with plain ones, also gets `config.json` and the other files that
//! `transformers` looks for. A folder without `shoal.json` is read as a Hugging Face Llama.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    config::{ConfigError, Cut, Dtype, ModelConfig, StageSpec},
    hash::BlobHash,
    tokenizer::{Tokenizer, TokenizerError},
};

mod disk;
mod hugging_face;
mod tensors;

pub use disk::write_file;
pub use tensors::{TensorFile, TensorRef, write_tensors};

const SHOAL_JSON: &str = "shoal.json";
const CONFIG_JSON: &str = "config.json";
const TOKENIZER_JSON: &str = "tokenizer.json";
const TOKENIZER_SHOAL: &str = "tokenizer.shoal";
const WEIGHTS: &str = "model.safetensors";
const WEIGHTS_INDEX: &str = "model.safetensors.index.json";
/// What `shoal.json` says that it is.
const FORMAT: &str = "shoal checkpoint 1";

/// Why a checkpoint could not be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The operating system refused to read.
    #[error("cannot read {path}: {source}; check the path and that you may read it")]
    Read {
        /// The file or folder.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The operating system refused to write; nothing is left there.
    #[error("cannot write {path}: {source}; check the free space and your rights there")]
    Write {
        /// The file or folder.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The target exists already.
    #[error("{path} exists already; choose another folder, or remove it")]
    Exists {
        /// The folder.
        path: String,
    },
    /// A folder without a model.
    #[error(
        "{path} has neither {SHOAL_JSON} nor {CONFIG_JSON}; give a folder that Shoal or `transformers` saved"
    )]
    NoModel {
        /// The folder.
        path: String,
    },
    /// A JSON file that is broken, or misses something.
    #[error("{path} is not valid: {reason}; save the model again")]
    Json {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// A model that is no Llama, or one with a feature that we do not have.
    #[error("{path}: {key} = {value} is not supported; {allowed}")]
    Unsupported {
        /// The file.
        path: String,
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What is.
        allowed: &'static str,
    },
    /// A broken safetensors file.
    #[error("{path} is not a valid safetensors file: {reason}; copy or save it again")]
    Tensors {
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// A tensor that the model needs is not there, or one that it does not know is.
    #[error("{path}: tensor {name} {problem}")]
    Tensor {
        /// The file or folder.
        path: String,
        /// Its name.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// Stages, weights and tokenizer that do not belong together.
    #[error("these stages cannot be saved: {0}")]
    Stages(&'static str),
    /// An impossible model.
    #[error("{path}: {source}")]
    Config {
        /// The file.
        path: String,
        /// What is impossible.
        source: ConfigError,
    },
    /// A tokenizer that cannot be read.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ShoalJson {
    format: String,
    model: ModelConfig,
    cut: Cut,
    /// Blocks before each cut.
    ends: Vec<usize>,
    seed: BlobHash,
    /// Hash of the file of weights; older checkpoints have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    weights: Option<BlobHash>,
}

/// A trained model, ready to be saved.
#[derive(Debug, Clone, Copy)]
pub struct Export<'a> {
    /// All stages in order.
    pub stages: &'a [StageSpec],
    /// Flat weights of each stage.
    pub weights: &'a [&'a [f32]],
    /// The tokenizer of the training data.
    pub tokenizer: &'a Tokenizer,
    /// Numbers in the file: `F32` or `Bf16`.
    pub dtype: Dtype,
}

impl Export<'_> {
    /// Writes a new folder; on an error nothing is left. Returns whether `transformers` can load it.
    pub fn save(&self, folder: &Path) -> Result<bool, CheckpointError> {
        self.check()?;
        let plain = self.stages.len() == 1 || matches!(self.stages[0].cut, Cut::Plain { .. });
        disk::write_folder(folder, |partial| self.write(partial, plain))?;
        Ok(plain)
    }

    fn check(&self) -> Result<(), CheckpointError> {
        let Some(first) = self.stages.first() else {
            return Err(CheckpointError::Stages("there are none"));
        };
        let mut block = 0;
        for (index, stage) in self.stages.iter().enumerate() {
            let same = stage.model == first.model && stage.cut == first.cut && stage.seed == first.seed;
            if !same
                || stage.index != index
                || stage.count != self.stages.len()
                || stage.blocks.start != block
            {
                return Err(CheckpointError::Stages("they are not the stages of one model in order"));
            }
            block = stage.blocks.end;
        }
        let lengths = self.stages.iter().map(StageSpec::parameters);
        if block != first.model.blocks || !lengths.eq(self.weights.iter().map(|weights| weights.len())) {
            return Err(CheckpointError::Stages("the weights are not those of all stages"));
        }
        if self.tokenizer.vocab() as usize > first.model.vocab {
            return Err(CheckpointError::Stages("the tokenizer has more tokens than the model"));
        }
        if self.dtype == Dtype::U8 {
            return Err(CheckpointError::Stages("weights are saved as f32 or bf16"));
        }
        Ok(())
    }

    fn write(&self, folder: &Path, plain: bool) -> Result<(), CheckpointError> {
        let first = &self.stages[0];
        let (cut, ends) = if plain {
            (Cut::Plain { wire: Dtype::F32 }, Vec::new())
        } else {
            (first.cut, self.stages[1..].iter().map(|stage| stage.blocks.start).collect())
        };
        let layouts: Vec<_> = self.stages.iter().map(StageSpec::layout).collect();
        let tensors: Vec<_> = layouts
            .iter()
            .zip(self.weights)
            .flat_map(|(layout, weights)| {
                layout.iter().map(|parameter| TensorRef {
                    name: &parameter.name,
                    shape: &parameter.shape,
                    numbers: &weights[parameter.range()],
                })
            })
            .collect();
        write_tensors(&folder.join(WEIGHTS), &tensors, self.dtype)?;
        let about = ShoalJson {
            format: FORMAT.to_owned(),
            model: first.model.clone(),
            cut,
            ends,
            seed: BlobHash(first.seed),
            weights: Some(hash_of(&folder.join(WEIGHTS))?),
        };
        write_json(&folder.join(SHOAL_JSON), &about)?;
        write_file(&folder.join(TOKENIZER_JSON), &self.tokenizer.to_tokenizer_json())?;
        if let Tokenizer::Bytes = self.tokenizer {
            write_file(&folder.join(TOKENIZER_SHOAL), self.tokenizer.to_bytes())?;
        }
        if plain {
            for (name, value) in hugging_face::files(&first.model, self.tokenizer, self.dtype) {
                write_json(&folder.join(name), &value)?;
            }
        }
        Ok(())
    }
}

fn hash_of(path: &Path) -> Result<BlobHash, CheckpointError> {
    let hash = fs::File::open(path).and_then(BlobHash::of_reader);
    hash.map_err(|source| read_error(path, source))
}

/// A model on disk. Its own format is read once to compare its hash; of others only headers are read until weights are asked for.
#[derive(Debug)]
pub struct Checkpoint {
    folder: PathBuf,
    model: ModelConfig,
    /// Cut, blocks before each cut, seed; none for a Hugging Face folder.
    split: Option<(Cut, Vec<usize>, [u8; 32])>,
    tied: bool,
    files: Vec<TensorFile>,
    /// Which file has a tensor.
    places: HashMap<String, usize>,
}

impl Checkpoint {
    /// Opens a folder that [`Export::save`] or `transformers` wrote.
    pub fn open(folder: &Path) -> Result<Self, CheckpointError> {
        let (shoal, config) = (folder.join(SHOAL_JSON), folder.join(CONFIG_JSON));
        let (model, split, tied) = if shoal.exists() {
            let about = read_shoal_json(&shoal)?;
            let weights = folder.join(WEIGHTS);
            if about.weights.is_some_and(|hash| hash_of(&weights).is_ok_and(|found| found != hash)) {
                return Err(CheckpointError::Tensors {
                    path: weights.display().to_string(),
                    reason: format!(
                        "its bytes are not those that {SHOAL_JSON} names (where other software changed them, delete {SHOAL_JSON})"
                    ),
                });
            }
            (about.model, Some((about.cut, about.ends, about.seed.0)), false)
        } else if config.exists() {
            let (model, tied) = hugging_face::read_config(&config)?;
            (model, None, tied)
        } else {
            fs::read_dir(folder).map_err(|source| read_error(folder, source))?;
            return Err(CheckpointError::NoModel { path: folder.display().to_string() });
        };
        let mut checkpoint =
            Self { folder: folder.to_owned(), model, split, tied, files: Vec::new(), places: HashMap::new() };
        for path in hugging_face::weight_files(folder)? {
            let file = TensorFile::open(&path)?;
            checkpoint.places.extend(file.names().map(|name| (name.to_owned(), checkpoint.files.len())));
            checkpoint.files.push(file);
        }
        checkpoint.check_names()?;
        Ok(checkpoint)
    }

    /// The model. That of a Hugging Face folder has the longest sequence it allows; shorten it to train.
    pub fn model(&self) -> &ModelConfig {
        &self.model
    }

    /// The stages it was saved with: one for plain models and Hugging Face folders.
    pub fn stages(&self) -> Result<Vec<StageSpec>, CheckpointError> {
        let plain = (Cut::Plain { wire: Dtype::F32 }, Vec::new(), [0; 32]);
        let (cut, ends, seed) = self.split.as_ref().unwrap_or(&plain);
        StageSpec::plan_at(&self.model, *cut, ends, *seed).map_err(|source| self.config_error(source))
    }

    /// Flat weights for `stage`, which may belong to any split of this model.
    ///
    /// Parameters of a cut that the checkpoint does not have start as in a new run.
    pub fn weights(&self, stage: &StageSpec) -> Result<Vec<f32>, CheckpointError> {
        let same_split = self
            .split
            .as_ref()
            .is_some_and(|(cut, ends, _)| *cut == stage.cut && ends.len() + 1 == stage.count);
        let layout = stage.layout();
        let mut there = Vec::with_capacity(layout.len());
        // Before room is made for what a broken file may only claim to have.
        for parameter in &layout {
            let mut name = parameter.name.as_str();
            if self.tied && name == "lm_head.weight" && !self.places.contains_key(name) {
                name = "model.embed_tokens.weight";
            }
            match self.places.get(name) {
                Some(&file) => {
                    self.files[file].check_shape(name, &parameter.shape)?;
                    there.push((&self.files[file], name, parameter));
                }
                None if name.starts_with("cut.") && !same_split => {}
                None => return Err(self.tensor_error(name, "is missing; save the model again")),
            }
        }
        let mut weights = if stage.count == 1 || same_split {
            vec![0.0; stage.parameters()]
        } else {
            stage.initial_weights()
        };
        for (file, name, parameter) in there {
            file.read_into(name, &parameter.shape, &mut weights[parameter.range()])?;
        }
        Ok(weights)
    }

    /// The tokenizer beside the weights.
    pub fn tokenizer(&self) -> Result<Tokenizer, CheckpointError> {
        let own = self.folder.join(TOKENIZER_SHOAL);
        let path = if own.exists() { own } else { self.folder.join(TOKENIZER_JSON) };
        let tokenizer = Tokenizer::open(&path)?;
        if tokenizer.vocab() as usize > self.model.vocab {
            return Err(CheckpointError::Json {
                path: path.display().to_string(),
                reason: format!("it has {} tokens, the model only {}", tokenizer.vocab(), self.model.vocab),
            });
        }
        Ok(tokenizer)
    }

    /// Refuses tensors that our model would leave out, such as biases.
    fn check_names(&self) -> Result<(), CheckpointError> {
        let layouts = self.stages()?.into_iter().flat_map(|stage| stage.layout());
        let known: Vec<String> = layouts.map(|parameter| parameter.name).collect();
        let known: std::collections::HashSet<_> = known.iter().map(String::as_str).collect();
        let mut names: Vec<_> = self.places.keys().map(String::as_str).collect();
        names.sort_unstable();
        match names.iter().find(|name| !known.contains(**name) && !name.ends_with("rotary_emb.inv_freq")) {
            Some(name) => Err(self.tensor_error(name, "is not part of a Llama without biases")),
            None => Ok(()),
        }
    }

    fn tensor_error(&self, name: &str, problem: &str) -> CheckpointError {
        CheckpointError::Tensor {
            path: self.folder.display().to_string(),
            name: name.to_owned(),
            problem: problem.to_owned(),
        }
    }

    fn config_error(&self, source: ConfigError) -> CheckpointError {
        CheckpointError::Config { path: self.folder.display().to_string(), source }
    }
}

fn read_shoal_json(path: &Path) -> Result<ShoalJson, CheckpointError> {
    let json = |reason: String| CheckpointError::Json { path: path.display().to_string(), reason };
    let about: ShoalJson =
        serde_json::from_slice(&disk::read_small(path)?).map_err(|e| json(e.to_string()))?;
    if about.format != FORMAT {
        return Err(json(format!("its format is \"{}\", not \"{FORMAT}\"", about.format)));
    }
    StageSpec::plan_at(&about.model, about.cut, &about.ends, about.seed.0)
        .map_err(|source| CheckpointError::Config { path: path.display().to_string(), source })?;
    Ok(about)
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<(), CheckpointError> {
    let mut text = serde_json::to_vec_pretty(value).expect("plain data with text keys");
    text.push(b'\n');
    write_file(path, &text)
}

fn read_error(path: &Path, source: std::io::Error) -> CheckpointError {
    CheckpointError::Read { path: path.display().to_string(), source }
}
