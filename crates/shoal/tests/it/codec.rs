//! `shoal codec`: files go through and come back, and bad ones are refused in one line.

use std::io::Write;
use std::process::Stdio;

use super::binary::{Place, Ran};

/// bf16 bits of numbers like those of a model.
fn bf16(count: usize) -> Vec<u8> {
    let wave = (0..count).map(|i| ((i as f32 * 0.37).sin() + (i as f32 * 0.011).cos()) * 1e-2);
    wave.flat_map(|v| ((v.to_bits() >> 16) as u16).to_le_bytes()).collect()
}

fn safetensors() -> Vec<u8> {
    let header = r#"{"__metadata__":{"format":"pt"},"a.weight":{"dtype":"BF16","shape":[64,96],"data_offsets":[0,12288]},"b":{"dtype":"F32","shape":[33],"data_offsets":[12288,12420]},"c":{"dtype":"I64","shape":[3],"data_offsets":[12420,12444]},"d":{"dtype":"BF16","shape":[0,4],"data_offsets":[12444,12444]}}"#;
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend(bf16(64 * 96));
    file.extend((0..33).flat_map(|i| (i as f32).sqrt().to_le_bytes()));
    file.extend((0..3_i64).flat_map(i64::to_le_bytes));
    file
}

fn npy() -> Vec<u8> {
    let text = "{'descr': '<u2', 'fortran_order': False, 'shape': (64, 128), }";
    let mut header = format!("{text:<117}\n").into_bytes();
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend((header.len() as u16).to_le_bytes());
    file.append(&mut header);
    file.extend(bf16(64 * 128));
    file
}

#[test]
fn files_come_back_bit_for_bit_by_every_lossless_codec() {
    let place = Place::new();
    for (name, bytes) in [("t.safetensors", safetensors()), ("t.npy", npy())] {
        std::fs::write(place.path(name), &bytes).unwrap();
        for codec in ["raw", "fast", "huffman", "context", "predictive", "auto"] {
            place.run(&["codec", "compress", name, "-o", "packed", "--codec", codec]).good();
            place.run(&["codec", "decompress", "packed", "-o", "back"]).good();
            assert!(std::fs::read(place.path("back")).unwrap() == bytes, "{name} by {codec}");
            let packed = std::fs::metadata(place.path("packed")).unwrap().len();
            assert!(codec == "raw" || packed < bytes.len() as u64, "{name} by {codec}: {packed} bytes");
        }
        place.run(&["codec", "compress", name, "-o", "packed", "--similarity", "0.98"]).good();
        place.run(&["codec", "decompress", "packed", "-o", "back"]).good();
        let back = std::fs::read(place.path("back")).unwrap();
        assert!(back.len() == bytes.len() && back != bytes, "{name}: the same file with other numbers");
        if name == "t.safetensors" {
            let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
            assert_eq!(back[..header], bytes[..header]);
            assert_eq!(back[header + 12420..], bytes[header + 12420..], "integers lose nothing");
        }
    }
}

/// More than a payload's worth of rows, which become several payloads.
#[test]
fn a_large_tensor_comes_back_whole() {
    let place = Place::new();
    let bytes = bf16(5 << 20).repeat(2);
    std::fs::write(place.path("t.bin"), &bytes).unwrap();
    for codec in ["huffman", "auto"] {
        let shape = ["--dtype", "bf16", "--shape", "5120x2048"];
        let mut args = vec!["codec", "compress", "t.bin", "-o", "packed", "--codec", codec];
        args.extend(shape);
        place.run(&args).good();
        place.run(&["codec", "decompress", "packed", "-o", "back"]).good();
        assert!(std::fs::read(place.path("back")).unwrap() == bytes, "{codec}");
    }
}

#[test]
fn raw_elements_go_through_pipes() {
    let place = Place::new();
    let bytes = bf16(4096);
    let pipe = |args: &[&str], input: &[u8]| -> Vec<u8> {
        let mut command = place.command(args);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let writer = std::thread::spawn(move || stdin.write_all(&input));
        let output = child.wait_with_output().unwrap();
        writer.join().unwrap().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let args = ["codec", "compress", "-", "-o", "-", "--dtype", "bf16", "--shape", "32x128"];
    let packed = pipe(&args, &bytes);
    assert!(packed.len() < bytes.len());
    assert!(pipe(&["codec", "decompress", "-", "-o", "-"], &packed) == bytes);
}

#[test]
fn the_bench_measures_what_it_is_asked_to() {
    let place = Place::new();
    std::fs::write(place.path("act_x.npy"), npy()).unwrap();
    let args = ["codec", "bench", "act_x.npy", "--similarity", "0.99", "--against", "zstd,lz4,pco", "--json"];
    let ran = place.run(&[&args[..], &["--threads", "2"]].concat()).good();
    let rows: Vec<serde_json::Value> = serde_json::from_str(&ran.out).unwrap();
    let codecs: Vec<&str> = rows.iter().map(|row| row["codec"].as_str().unwrap()).collect();
    assert_eq!(
        codecs,
        ["fast", "huffman", "context", "predictive", "auto", "uniform", "int8", "klt", "zstd", "lz4", "pco"]
    );
    for row in &rows {
        assert_eq!((row["kind"].as_str(), row["threads"].as_u64()), (Some("act"), Some(2)));
        assert!(row["encode_gb_per_s"].as_f64().unwrap() > 0.0, "{row}");
        assert!(row["similarity"].as_f64().unwrap() >= 0.99, "{row}");
        let ours = !["zstd", "lz4", "pco"].contains(&row["codec"].as_str().unwrap());
        assert!(!ours || row["checksum_gb_per_s"].as_f64().unwrap() > 0.0, "{row}");
    }
    let table = place.run(&["codec", "bench", ".", "--codec", "fast,huffman", "--threads", "2"]).good().out;
    assert!(table.contains("checksum GB/s") && table.contains("on 2 threads"), "{table}");
    let shown = place.run(&["codec", "inspect", "act_x.npy"]).good().out;
    assert!(shown.contains("best within reach"), "{shown}");
}

#[test]
fn what_is_no_tensor_file_is_refused_in_one_line() {
    let place = Place::new();
    let write = |name: &str, bytes: &[u8]| std::fs::write(place.path(name), bytes).unwrap();
    write("empty", b"");
    write("text", b"not a tensor file at all");
    write("cut.npy", &npy()[..60]);
    write("short.npy", &npy()[..5000]);
    write("cut.safetensors", &safetensors()[..9000]);
    write("huge.safetensors", &[&u64::MAX.to_le_bytes()[..], b"{}"].concat());
    write("t.npy", &npy());
    let bad = |args: &[&str], words: &[&str]| place.run(args).bad(1, words);
    for name in ["empty", "text", "cut.npy", "short.npy", "cut.safetensors", "huge.safetensors", "absent"] {
        bad(&["codec", "compress", name, "-o", "out"], &[name]);
        bad(&["codec", "decompress", name, "-o", "out"], &[name]);
        bad(&["codec", "inspect", name], &[name]);
    }
    bad(&["codec", "bench", "absent"], &["absent"]);
    assert!(!place.path("out").exists());
    bad(&["codec", "compress", "t.npy", "-o", "out", "--codec", "lz5"], &["lz5"]);
    bad(&["codec", "compress", "t.npy", "-o", "out", "--codec", "klt"], &["--similarity"]);
    bad(&["codec", "compress", "t.npy", "-o", "out", "--similarity", "1.5"], &["similarity"]);
    bad(&["codec", "compress", "t.npy", "-o", "no/such/folder"], &["no/such/folder"]);
    bad(&["codec", "compress", "text", "-o", "out", "--dtype", "bf16", "--shape", "3x3"], &["text"]);
    bad(&["codec", "bench", "t.npy", "--threads", "0"], &["--threads"]);
    // Damage anywhere in a compressed file is told, not decoded.
    place.run(&["codec", "compress", "t.npy", "-o", "packed"]).good();
    let packed = std::fs::read(place.path("packed")).unwrap();
    for at in (0..packed.len()).step_by(packed.len() / 23) {
        let mut bytes = packed.clone();
        bytes[at] ^= 0x10;
        write("damaged", &bytes);
        let ran: Ran = place.run(&["codec", "decompress", "damaged", "-o", "out"]);
        // The copied header of the original file has no checksum of its own.
        let header = (12..140).contains(&at);
        assert!(ran.code == Some(1) || (header && ran.code == Some(0)), "byte {at}: {ran:?}");
        write("damaged", &packed[..at]);
        place.run(&["codec", "decompress", "damaged", "-o", "out"]).bad(1, &["damaged"]);
    }
}
