//! What people and other software give: tokenizers, checkpoints, texts, token shards; and what crosses a cut.

use std::fs;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use model::checkpoint::{Checkpoint, Export, TensorFile};
use model::config::{Cut, Dtype, Message, ModelConfig, StageSpec, Table};
use model::data::{CollectOptions, Shard, ShardEntry, collect, split};
use model::hash::BlobHash;
use model::optim::OptimiserConfig;
use model::stage::{CpuStage, Output, Stage};
use model::tokenizer::Tokenizer;
use tempfile::TempDir;

/// A folder of the process, for decoders that read files.
fn folder() -> &'static Path {
    static FOLDER: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a temporary folder"));
    FOLDER.path()
}

/// Any bytes as a tokenizer.
pub(crate) fn tokenizer(input: &[u8]) {
    if let Ok(tokenizer) = Tokenizer::from_bytes(input) {
        let _ = tokenizer.encode("Shoal of fish, 12 µm \u{1f41f}\n");
        let _ = tokenizer.decode(&[0, 1, 255, 256, u32::MAX]);
        let _ = tokenizer.to_tokenizer_json();
    }
}

pub(crate) fn tokenizers() -> Vec<Vec<u8>> {
    let json = r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[{"id":3,"content":"<|endoftext|>",
"single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}],"normalizer":null,
"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true},
"post_processor":null,"decoder":{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true},
"model":{"type":"BPE","dropout":null,"unk_token":null,"continuing_subword_prefix":null,"end_of_word_suffix":null,
"fuse_unk":false,"byte_fallback":false,"vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]}}"#;
    vec![json.into(), Tokenizer::Bytes.to_bytes().to_vec()]
}

/// Any bytes as a safetensors file.
pub(crate) fn tensors(input: &[u8]) {
    let path = folder().join("any.safetensors");
    fs::write(&path, input).expect("the temporary folder can be written");
    if let Ok(file) = TensorFile::open(&path) {
        let names: Vec<String> = file.names().map(str::to_owned).collect();
        for name in names {
            let _ = file.read(&name);
        }
    }
}

pub(crate) fn tensor_files() -> Vec<Vec<u8>> {
    let header = r#"{"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"b":{"dtype":"BF16","shape":[3],"data_offsets":[16,22]}}"#;
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend([0; 22]);
    vec![file]
}

/// Most weights that a checkpoint is asked for.
const WEIGHTS: usize = 1 << 24;

/// Names and bytes of the files of a checkpoint.
type Files = Vec<(String, Vec<u8>)>;

/// Two checkpoints, as they are saved: one of our own format, one as `transformers` writes it.
static CHECKPOINTS: LazyLock<[Files; 2]> = LazyLock::new(|| {
    [(Cut::anchored(64), 2), (Cut::Plain { wire: Dtype::F32 }, 1)].map(|(cut, count)| {
        let model = ModelConfig { vocab: 259, ..micro() };
        let specs = StageSpec::plan(&model, cut, count, [3; 32]).expect("a possible plan");
        let weights: Vec<_> = specs.iter().map(StageSpec::initial_weights).collect();
        let slices: Vec<_> = weights.iter().map(Vec::as_slice).collect();
        let home = folder().join(format!("saved-{count}"));
        let export =
            Export { stages: &specs, weights: &slices, tokenizer: &Tokenizer::Bytes, dtype: Dtype::Bf16 };
        export.save(&home).expect("the temporary folder can be written");
        if count == 1 {
            fs::remove_file(home.join("shoal.json")).expect("it was just written");
        }
        let mut files: Files = fs::read_dir(&home)
            .expect("it was just written")
            .map(|entry| entry.expect("it was just written"))
            .map(|entry| {
                (entry.file_name().into_string().expect("our names"), fs::read(entry.path()).expect("there"))
            })
            .collect();
        files.sort();
        files
    })
});

/// Files of a checkpoint that are changed; the rest is as it was saved.
const CHANGED: [(usize, &str); 4] =
    [(0, "shoal.json"), (0, "tokenizer.json"), (1, "config.json"), (1, "tokenizer.json")];

/// Any bytes as one of a checkpoint's files: the first says which.
pub(crate) fn checkpoint(input: &[u8]) {
    let Some((&which, bytes)) = input.split_first() else { return };
    let (saved, name) = CHANGED[usize::from(which) % CHANGED.len()];
    let files = &CHECKPOINTS[saved];
    let home = folder().join(format!("saved-{}", 2 - saved));
    fs::write(home.join(name), bytes).expect("the temporary folder can be written");
    if let Ok(checkpoint) = Checkpoint::open(&home) {
        let _ = checkpoint.tokenizer();
        for stage in checkpoint.stages().into_iter().flatten() {
            if stage.parameters() <= WEIGHTS {
                let _ = checkpoint.weights(&stage);
            }
        }
    }
    if let Some((_, bytes)) = files.iter().find(|(file, _)| file == name) {
        fs::write(home.join(name), bytes).expect("the temporary folder can be written");
    }
}

pub(crate) fn checkpoint_files() -> Vec<Vec<u8>> {
    let find = |saved: usize, name| CHECKPOINTS[saved].iter().find(|(file, _)| file == name);
    let seeds = CHANGED
        .iter()
        .enumerate()
        .filter_map(|(index, &(saved, name))| Some([&[index as u8][..], &find(saved, name)?.1].concat()));
    seeds.collect()
}

/// Any bytes as a text, lines of JSON or a Parquet file: the first says which.
pub(crate) fn data(input: &[u8]) {
    let Some((&which, bytes)) = input.split_first() else { return };
    let path = folder().join(["any.txt", "any.jsonl", "any.parquet"][usize::from(which) % 3]);
    fs::write(&path, bytes).expect("the temporary folder can be written");
    let options = CollectOptions { most_bytes: 1 << 20, ..CollectOptions::default() };
    if let Ok(corpus) = collect(&[path.display().to_string()], &options) {
        assert!(corpus.files.iter().all(|file| file.documents.iter().all(|text| !text.trim().is_empty())));
        let _ = split(corpus);
    }
}

pub(crate) fn data_files() -> Vec<Vec<u8>> {
    let lines = "{\"text\": \"one fish\"}\n{\"text\": \"two \\u00b5 fish\", \"id\": 3}\n";
    vec![
        [&[0][..], "Red fish, blue fish.\n\nµ \u{1f41f}".as_bytes()].concat(),
        [&[1][..], lines.as_bytes()].concat(),
        [&[2][..], include_bytes!("../seeds/rows.parquet")].concat(),
    ]
}

/// Any bytes as a shard of tokens: the first two say how many its manifest promises, the third of which vocabulary.
pub(crate) fn shards(input: &[u8]) {
    let [few, many, wide, bytes @ ..] = input else { return };
    let entry =
        ShardEntry { hash: BlobHash::of(bytes), tokens: u64::from(u16::from_le_bytes([*few, *many])) };
    let vocab = if wide & 1 == 0 { 259 } else { 100_000 };
    if let Ok(shard) = Shard::decode(bytes, &entry, vocab) {
        let tokens: Vec<u32> = match shard {
            Shard::Narrow(tokens) => tokens.into_iter().map(u32::from).collect(),
            Shard::Wide(tokens) => tokens,
        };
        assert_eq!(Shard::encode(&tokens, vocab), bytes, "a shard has one encoding");
    }
}

pub(crate) fn some_shards() -> Vec<Vec<u8>> {
    let seed = |vocab, wide| [&[5, 0, wide][..], &Shard::encode(&[1, 2, 3, 258, 0], vocab)].concat();
    vec![seed(259, 0), seed(100_000, 1)]
}

fn micro() -> ModelConfig {
    ModelConfig::preset("micro").expect("known")
}

const CUTS: [Cut; 6] = [
    Cut::Plain { wire: Dtype::F32 },
    Cut::Plain { wire: Dtype::Bf16 },
    Cut::Tabled { wire: Dtype::Bf16, table: Table::Full },
    Cut::Bottleneck { width: 8, wire: Dtype::Bf16 },
    Cut::Anchored { width: 4, bits: 4, table: Table::Full },
    Cut::Anchored { width: 5, bits: 3, table: Table::Factorised { rank: 2 } },
];

struct Split {
    stages: Vec<CpuStage>,
    tokens: Vec<u32>,
    /// What crosses: forward, then backward.
    good: [Message; 2],
}

/// Two stages of a tiny model behind every kind of cut.
static SPLITS: LazyLock<Vec<Mutex<Split>>> = LazyLock::new(|| {
    let pool = Arc::new(rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("a thread"));
    let model = ModelConfig { sequence: 8, ..micro() };
    let of = |cut| {
        let specs = StageSpec::plan(&model, cut, 2, [3; 32]).expect("a possible plan");
        let stage = |spec: &StageSpec| {
            let optimiser = OptimiserConfig::default();
            CpuStage::new(spec.clone(), spec.initial_weights(), optimiser, Arc::clone(&pool))
                .expect("possible")
        };
        let mut stages: Vec<_> = specs.iter().map(stage).collect();
        let tokens: Vec<u32> = (0..9).map(|i| i * 31 % 300).collect();
        let Ok(Output::Message(forward)) = stages[0].forward(0, &tokens, None) else { panic!("a message") };
        stages[1].forward(0, &tokens, Some(&forward)).expect("its own message");
        let backward = stages[1].backward(0, None, false).expect("a kept graph").expect("not the head");
        stages[0].backward(0, Some(&backward), false).expect("its own message");
        Mutex::new(Split { stages, tokens, good: [forward, backward] })
    };
    CUTS.into_iter().map(of).collect()
});

/// Any bytes as what crosses a cut: the first says which cut, the second in which direction and whether type and shape
/// are right.
pub(crate) fn cuts(input: &[u8]) {
    let [cut, how, bytes @ ..] = input else { return };
    let split = &SPLITS[usize::from(*cut) % CUTS.len()];
    let mut split = split.lock().unwrap_or_else(PoisonError::into_inner);
    let Split { stages, tokens, good } = &mut *split;
    let backward = how & 1 == 1;
    let mut message = good[usize::from(backward)].clone();
    if how & 2 == 0 {
        // As long as it must be: what is wrong lies in the numbers.
        for (b, &v) in message.bytes.iter_mut().zip(bytes) {
            *b = v;
        }
    } else {
        message.bytes = bytes.to_vec();
        message.shape = vec![bytes.len() / message.dtype.bytes()];
    }
    if how & 4 != 0 {
        message.dtype = [Dtype::F32, Dtype::Bf16, Dtype::U8][usize::from(how >> 3) % 3];
    }
    if backward {
        stages[0].forward(1, tokens, None).expect("its own work");
        let _ = stages[0].backward(1, Some(&message), true);
        stages[0].discard(1);
        stages[0].clear();
    } else if let Ok(Output::Loss(_)) = stages[1].forward(1, tokens, Some(&message)) {
        let _ = stages[1].backward(1, None, true);
        stages[1].discard(1);
        stages[1].clear();
    }
    assert!(stages.iter().all(|stage| stage.open_graphs() == 0), "a refusal leaves nothing");
}

pub(crate) fn messages() -> Vec<Vec<u8>> {
    let of = |cut: usize, back: usize| {
        let split = SPLITS[cut].lock().unwrap_or_else(PoisonError::into_inner);
        [&[cut as u8, back as u8][..], &split.good[back].bytes].concat()
    };
    (0..CUTS.len()).flat_map(|cut| [of(cut, 0), of(cut, 1)]).collect()
}
