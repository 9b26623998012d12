//! From files on disk to micro-batches.

#![expect(clippy::unwrap_used, reason = "a helper that fails, fails its test")]

use std::{
    collections::HashMap,
    fs, io,
    path::Path,
    sync::{Arc, Mutex},
};

use parquet::{
    basic::{Compression, ZstdLevel},
    data_type::{ByteArray, ByteArrayType},
    file::{properties::WriterProperties, writer::SerializedFileWriter},
    schema::parser::parse_message_type,
};
use shoal_model::{
    data::{
        CollectOptions, DataError, Dataset, Order, SkipReason, SplitMethod, build, collect,
        collect_current_folder, split,
    },
    hash::BlobHash,
    tokenizer::Tokenizer,
};

fn write(folder: &Path, name: &str, bytes: impl AsRef<[u8]>) -> String {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, bytes).unwrap();
    path.to_str().unwrap().to_owned()
}

fn write_parquet(path: &Path, column: &str, compression: Compression, rows: &[Option<&str>]) {
    let schema = format!("message rows {{ required int64 id; optional binary {column} (UTF8); }}");
    let schema = Arc::new(parse_message_type(&schema).unwrap());
    let properties = Arc::new(WriterProperties::builder().set_compression(compression).build());
    let mut writer = SerializedFileWriter::new(fs::File::create(path).unwrap(), schema, properties).unwrap();
    for rows in rows.chunks(2) {
        let mut group = writer.next_row_group().unwrap();
        let mut ids = group.next_column().unwrap().unwrap();
        let numbers: Vec<i64> = (0..rows.len() as i64).collect();
        ids.typed::<parquet::data_type::Int64Type>().write_batch(&numbers, None, None).unwrap();
        ids.close().unwrap();
        let mut texts = group.next_column().unwrap().unwrap();
        let values: Vec<ByteArray> = rows.iter().flatten().map(|&text| text.into()).collect();
        let levels: Vec<i16> = rows.iter().map(|row| i16::from(row.is_some())).collect();
        texts.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None).unwrap();
        texts.close().unwrap();
        group.close().unwrap();
    }
    writer.close().unwrap();
}

fn names(corpus: &shoal_model::data::Corpus, root: &Path) -> Vec<String> {
    let root = format!("{}/", root.display());
    corpus.files.iter().map(|file| file.name.replace(&root, "")).collect()
}

#[test]
fn a_folder_is_taken_in_order_and_says_what_it_left() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    write(root, "b.txt", "second");
    write(root, "a/z.md", "first");
    write(root, "a/rows.jsonl", "{\"text\": \"one\"}\n\n{\"text\": \"two\", \"id\": 2}\n");
    write(root, "other.jsonl", "{\"body\": \"x\"}");
    write(root, "picture.png", [0x89, b'P', 0, 1]);
    write(root, "latin.txt", b"caf\xe9");
    write(root, "empty.txt", " \n");
    write(root, "Cargo.lock", "version = 4");
    write(root, "out/log.txt", "ignored");
    write(root, "runs/1/log.txt", "excluded");
    write(root, ".gitignore", "out/\n");
    write(root, ".hidden", "hidden");
    let exclude = vec![root.join("runs")];
    let corpus = collect_current_folder(root, &CollectOptions { exclude, ..Default::default() }).unwrap();
    assert_eq!(names(&corpus, root), ["a/rows.jsonl", "a/z.md", "b.txt"]);
    assert_eq!(corpus.texts().collect::<Vec<_>>(), ["one", "two", "first", "second"]);
    let skipped: Vec<_> = corpus.summary.skipped.iter().map(|(reason, s)| (*reason, s.files)).collect();
    assert_eq!(
        skipped,
        [
            (SkipReason::Binary, 1),
            (SkipReason::NotUtf8, 1),
            (SkipReason::Empty, 1),
            (SkipReason::LockFile, 1),
            (SkipReason::NoTextField, 1),
        ]
    );
    let text = corpus.summary.to_string();
    assert!(text.starts_with("took 3 files with 17 B of text in 4 documents"), "{text}");
}

#[test]
fn a_full_corpus_leaves_the_rest_out() {
    let folder = tempfile::tempdir().unwrap();
    for i in 0..5 {
        write(folder.path(), &format!("{i}.txt"), "0123456789");
    }
    let options = CollectOptions { most_bytes: 25, ..Default::default() };
    let corpus = collect_current_folder(folder.path(), &options).unwrap();
    assert_eq!(corpus.summary.files, 2);
    assert_eq!(corpus.summary.skipped[&SkipReason::OverLimit].files, 3);
    let named: Vec<_> =
        (0..5).map(|i| folder.path().join(format!("{i}.txt")).display().to_string()).collect();
    assert!(matches!(collect(&named, &options), Err(DataError::TooMuch { .. })));
}

#[test]
fn files_folders_and_patterns_mix_without_doubles() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let one = write(root, "x/one.txt", "1");
    write(root, "x/two.md", "2");
    write(root, "x/y/three.txt", "3");
    write(root, "x/y/four.py", "4");
    let take = |sources: &[&str]| {
        let sources: Vec<_> = sources.iter().map(|s| (*s).to_owned()).collect();
        names(&collect(&sources, &CollectOptions::default()).unwrap(), root)
    };
    let all = format!("{}/**/*.txt", root.display());
    let flat = format!("{}/x/*.{{txt,md}}", root.display());
    assert_eq!(take(&[&one]), ["x/one.txt"]);
    assert_eq!(take(&[&all]), ["x/one.txt", "x/y/three.txt"]);
    assert_eq!(take(&[&flat]), ["x/one.txt", "x/two.md"]);
    assert_eq!(take(&[&all, &flat, &one]), ["x/one.txt", "x/y/three.txt", "x/two.md"]);
    assert_eq!(take(&[&root.display().to_string()]).len(), 4);
}

#[test]
fn parquet_rows_are_documents() {
    let folder = tempfile::tempdir().unwrap();
    for (name, compression) in [
        ("snappy.parquet", Compression::SNAPPY),
        ("zstd.parquet", Compression::ZSTD(ZstdLevel::default())),
        ("plain.parquet", Compression::UNCOMPRESSED),
    ] {
        let path = folder.path().join(name);
        write_parquet(
            &path,
            "text",
            compression,
            &[Some("one"), None, Some("zwei ü"), Some(" "), Some("three")],
        );
        let source = [path.display().to_string()];
        let corpus = collect(&source, &CollectOptions::default()).unwrap();
        assert_eq!(corpus.texts().collect::<Vec<_>>(), ["one", "zwei ü", "three"], "{name}");
        let other = CollectOptions { text_field: "body".to_owned(), ..Default::default() };
        let error = collect(&source, &other).unwrap_err().to_string();
        assert!(error.contains("no text column \"body\", only id, text"), "{error}");
        let small = CollectOptions { most_bytes: 5, ..Default::default() };
        assert!(matches!(collect(&source, &small), Err(DataError::TooMuch { .. })));
    }
}

#[test]
fn bad_data_gives_one_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let cases = [
        (root.join("absent.txt").display().to_string(), "does not exist; check the path"),
        (write(root, "e/empty.txt", ""), "is empty; give --data a file with text"),
        (write(root, "b/a.bin", [b'a', 0]), "is not text: it has a zero byte at 1"),
        (write(root, "b/latin.txt", b"caf\xe9!"), "is not UTF-8: byte 3 is no character; convert it"),
        (write(root, "b/a.jsonl", "{\"text\": \"x\"}\n{\"txt\": \"y\"}"), "line 2: no \"text\", only txt"),
        (write(root, "b/b.jsonl", "{\"text\": \"x\"}\nnope"), "line 2: not JSON"),
        (write(root, "b/c.jsonl", "{\"text\": 5}"), "line 1: \"text\" is not a text"),
        (write(root, "b/a.parquet", "nope"), "as parquet"),
        (format!("{}/*.nothing", root.display()), "no file matches"),
        (format!("{}/[", root.display()), "is not a valid pattern"),
        (root.join("b").display().to_string(), "found no usable text"),
    ];
    for (source, expected) in cases {
        let error =
            collect(std::slice::from_ref(&source), &CollectOptions::default()).unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains('\n'), "{source}: {error}");
    }
}

#[test]
fn broken_parquet_never_panics() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.parquet");
    write_parquet(&path, "text", Compression::SNAPPY, &[Some("some text"), None, Some("more text")]);
    let good = fs::read(&path).unwrap();
    let sources = [path.display().to_string()];
    let mut read = 0;
    for position in 0..good.len() {
        let mut bytes = good.clone();
        bytes[position] ^= [0x01, 0x80, 0xff][position % 3];
        fs::write(&path, &bytes).unwrap();
        read += u32::from(collect(&sources, &CollectOptions::default()).is_ok());
        fs::write(&path, &good[..position]).unwrap();
        assert!(collect(&sources, &CollectOptions::default()).is_err());
    }
    assert!(read > 0, "some bytes do not matter");
}

#[test]
fn text_comes_back_from_its_micro_batches() {
    let folder = tempfile::tempdir().unwrap();
    for i in 0..30 {
        let text: String = (0..40).fold(String::new(), |text, line| {
            format!("{text}file {i} says {} on line {line}\n", i * 7919 + line * 31)
        });
        write(folder.path(), &format!("{i:02}.txt"), text);
    }
    let corpus = collect_current_folder(folder.path(), &CollectOptions::default()).unwrap();
    let split = split(corpus).unwrap();
    assert_eq!(split.note.method, SplitMethod::Files);
    let trained = Tokenizer::train(split.train.iter().map(String::as_str), 400).unwrap();
    for tokenizer in [Tokenizer::Bytes, trained] {
        let blobs: Arc<Mutex<HashMap<BlobHash, Vec<u8>>>> = Arc::default();
        let mut last = (0, 0);
        let store = |hash, bytes: Vec<u8>| {
            assert_eq!(hash, BlobHash::of(&bytes));
            blobs.lock().unwrap().insert(hash, bytes);
            Ok(())
        };
        let manifest = build(&split, &tokenizer, store, |done, total| last = (done, total)).unwrap();
        assert_eq!(last.0, last.1);
        let again = build(&split, &tokenizer, |_, _| Ok(()), |_, _| {}).unwrap();
        assert_eq!(manifest, again);
        let json = serde_json::to_string(&manifest).unwrap();
        assert_eq!(serde_json::from_str::<shoal_model::data::DatasetManifest>(&json).unwrap(), manifest);

        let blobs = Arc::clone(&blobs);
        let data = Dataset::new(manifest, move |hash| {
            blobs.lock().unwrap().get(&hash).cloned().ok_or(io::ErrorKind::NotFound.into())
        })
        .unwrap();
        let sequence = 16;
        let order = Order { seed: [1; 32], batch: 1, sequence };
        let train: String = split.train.concat();
        for index in 0..data.train_windows(sequence) {
            let row = data.micro_batch(&order, index).unwrap().tokens;
            let text = tokenizer.decode(&row).unwrap();
            assert!(train.contains(&text), "{text}");
        }
        assert!(data.held_out_batches(2, sequence) > 3);
        let held = data.held_out_batch(0, 2, sequence).unwrap();
        let held_text = tokenizer.decode(&held.tokens[..=sequence]).unwrap();
        assert!(split.held_out.concat().contains(&held_text) && !train.contains(&held_text));
    }
}

#[test]
fn a_store_that_fails_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let source = [write(folder.path(), "a.txt", "some words\n".repeat(50))];
    let split = split(collect(&source, &CollectOptions::default()).unwrap()).unwrap();
    let full = |_, _| Err(io::ErrorKind::StorageFull.into());
    let error = build(&split, &Tokenizer::Bytes, full, |_, _| {}).unwrap_err();
    assert!(matches!(error, DataError::Store { .. }));
    assert!(error.to_string().contains("cannot store a shard of"));
}
