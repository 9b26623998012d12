//! Components that behave: results, fuel, isolation of calls, the cache.

use std::time::Duration;

use shoal_sandbox::wasm::{WASMTIME, settings_hash, settings_text};
use shoal_sandbox::{CallLimits, Runtime, Task};

use super::component::{self, IDENTITY, LIMITS, Parts, compile, meta};

#[test]
fn bytes_come_back_and_fuel_depends_on_the_input_alone() {
    let codec = compile(&Parts::default()).unwrap();
    let input: Vec<u8> = (0..100_000_u32).map(|n| (n * 7) as u8).collect();
    let first = codec.call(Task::Compress, &input, &meta(&[100, 1000]), &LIMITS).unwrap();
    let second = codec.call(Task::Compress, &input, &meta(&[100, 1000]), &LIMITS).unwrap();
    assert_eq!(first.output.as_ref().unwrap(), &input);
    assert_eq!((first.output, first.fuel), (second.output, second.fuel));
    assert!(first.fuel > 0);
    let longer = codec.call(Task::Decompress, &input[..10], &meta(&[10]), &LIMITS).unwrap();
    assert_eq!(longer.output.unwrap(), &input[..10]);
    assert!(longer.fuel < first.fuel, "a larger input grows the memory, which costs fuel");
}

#[test]
fn every_type_and_direction_reaches_the_component() {
    use shoal_sandbox::{DType, Direction, Meta};
    // Gives back dtype, direction and the length of the shape as three bytes.
    let tell = "(i32.store8 (i32.const 100) (local.get 2)) (i32.store8 (i32.const 101) (local.get 5))
        (i32.store8 (i32.const 102) (local.get 4)) (i32.store8 (i32.const 16) (i32.const 0))
        (i32.store (i32.const 20) (i32.const 100)) (i32.store (i32.const 24) (i32.const 3)) (i32.const 16)";
    let codec = compile(&Parts { compress: tell, ..Parts::default() }).unwrap();
    let types = [DType::Bf16, DType::F16, DType::F32, DType::U16, DType::U8];
    for (number, dtype) in types.into_iter().enumerate() {
        for (way, direction) in [Direction::Forward, Direction::Backward].into_iter().enumerate() {
            let meta = Meta { dtype, shape: vec![1; number], direction };
            let call = codec.call(Task::Compress, &[], &meta, &LIMITS).unwrap();
            assert_eq!(call.output.unwrap(), [number as u8, way as u8, number as u8]);
        }
    }
}

#[test]
fn calls_from_many_threads_do_not_meet() {
    let codec = compile(&Parts::default()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            let codec = &codec;
            scope.spawn(move || {
                for length in 1..20_usize {
                    let input = vec![thread; length * 1000];
                    let call = codec.call(Task::Compress, &input, &meta(&[1]), &LIMITS).unwrap();
                    assert_eq!(call.output.unwrap(), input);
                }
            });
        }
    });
}

#[test]
fn a_cached_component_needs_no_child_and_a_damaged_file_is_not_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let bytes = component::bytes(&Parts { fields: "(data (i32.const 512) \"cache\")", ..Parts::default() });
    let runtime = Runtime::new(component::child(), Some(cache.clone())).unwrap();
    runtime.compile(&bytes).unwrap();
    let files: Vec<_> = std::fs::read_dir(&cache).unwrap().map(|file| file.unwrap().path()).collect();
    let [file] = &files[..] else { panic!("one file, not {files:?}") };

    let no_child = shoal_sandbox::Child::new("/nonexistent", [""; 0]);
    let cached = Runtime::new(no_child, Some(cache.clone())).unwrap();
    let codec = cached.compile(&bytes).unwrap();
    assert_eq!(codec.call(Task::Compress, b"x", &meta(&[1]), &LIMITS).unwrap().output.unwrap(), b"x");
    assert_eq!(codec.component_bytes(), bytes.len() as u64);

    let mut damaged = std::fs::read(file).unwrap();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    std::fs::write(file, damaged).unwrap();
    assert!(cached.compile(&bytes).unwrap_err().fault().is_none(), "no child, no code: the machine's fault");
    runtime.compile(&bytes).unwrap();
    cached.compile(&bytes).unwrap();
}

#[test]
fn a_cache_that_others_may_write_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let error = Runtime::new(component::child(), Some(folder.path().to_owned())).unwrap_err();
    assert!(error.to_string().contains("others may write"), "{error}");
}

#[test]
fn the_settings_name_the_engine_that_is_linked() {
    let manifest = std::env::var("CARGO_MANIFEST_DIR").unwrap();
    let lock = std::fs::read_to_string(format!("{manifest}/../../Cargo.lock")).unwrap();
    assert!(lock.contains(&format!("name = \"wasmtime\"\nversion = \"{WASMTIME}\"")));
    for line in ["nan_canonicalization true", "relaxed_simd false", "memory64 false", "wasm_stack 524288"] {
        assert!(settings_text().contains(line), "{line}");
    }
    // A change here is a change of every verdict: competitions that pinned the old hash need the old binary.
    assert_eq!(
        settings_hash().to_string(),
        "1f522e07774f0d265b09d8eb0ed7af69e2b3a0c5c0e3b6f0f0881986735ec2a6"
    );
}

#[test]
fn limits_that_suffice_change_nothing() {
    let codec = compile(&Parts { compress: IDENTITY, ..Parts::default() }).unwrap();
    let wide =
        CallLimits { fuel: u64::MAX, wall: Duration::MAX, memory_bytes: u64::MAX, output_bytes: u64::MAX };
    let narrow = codec.call(Task::Compress, b"abc", &meta(&[3]), &LIMITS).unwrap();
    let call = codec.call(Task::Compress, b"abc", &meta(&[3]), &wide).unwrap();
    assert_eq!((call.output, call.fuel), (narrow.output, narrow.fuel));
}
