//! Components that attack: each ends in a typed fault, and the next call works as if nothing had been.

use std::time::{Duration, Instant};

use shoal_sandbox::{CallLimits, Error, Fault, Task};

use super::component::{self, IDENTITY, LIMITS, Parts, compile, meta};

fn called(parts: &Parts<'_>, limits: &CallLimits) -> Result<Vec<u8>, shoal_sandbox::Failed> {
    let codec = compile(parts).unwrap();
    let call = codec.call(Task::Compress, b"some input", &meta(&[10]), limits).unwrap();
    assert!(call.fuel <= limits.fuel);
    call.output
}

/// Runs `compress` with this body and expects `fault`.
fn faults(compress: &str, fault: Fault) {
    let failed = called(&Parts { compress, ..Parts::default() }, &LIMITS).unwrap_err();
    assert_eq!(failed.fault, fault, "{}", failed.log);
    assert!(!failed.log.is_empty());
}

fn refused(bytes: &[u8], fault: Fault) -> String {
    match component::runtime().compile(bytes) {
        Err(Error::Entry(failed)) => {
            assert_eq!(failed.fault, fault, "{}", failed.log);
            failed.log
        }
        Err(error) => panic!("not the entry's fault: {error}"),
        Ok(_) => panic!("accepted"),
    }
}

fn refused_text(text: &str, fault: Fault) -> String {
    refused(&wat::parse_str(text).unwrap(), fault)
}

const LOOP: &str = "(loop $forever (br $forever)) (i32.const 16)";

#[test]
fn endless_loop_runs_out_of_fuel() {
    faults(LOOP, Fault::Fuel);
}

#[test]
fn endless_loop_with_endless_fuel_runs_out_of_time() {
    let limits = CallLimits { fuel: u64::MAX, wall: Duration::from_millis(100), ..LIMITS };
    let started = Instant::now();
    let failed = called(&Parts { compress: LOOP, ..Parts::default() }, &limits).unwrap_err();
    assert_eq!(failed.fault, Fault::Time, "{}", failed.log);
    assert!(started.elapsed() >= Duration::from_millis(100));
}

#[test]
fn a_patient_caller_counts_processor_time() {
    let codec = compile(&Parts { compress: LOOP, ..Parts::default() }).unwrap();
    let call = |wall_ms, cpu_ms| {
        let limits = CallLimits { fuel: u64::MAX, wall: Duration::from_millis(wall_ms), ..LIMITS };
        let cpu = Duration::from_millis(cpu_ms);
        codec.call_patiently(Task::Compress, b"", &meta(&[]), &limits, cpu).unwrap()
    };
    let ended = call(60_000, 100);
    assert_eq!(ended.output.unwrap_err().fault, Fault::Time);
    assert!(ended.cpu >= Duration::from_millis(100) && ended.wall >= ended.cpu / 2, "{:?}", ended.cpu);
    // The clock still ends it, and the caller sees that it was not the call.
    let ended = call(50, 60_000);
    assert_eq!(ended.output.unwrap_err().fault, Fault::Time);
    assert!(ended.cpu < Duration::from_mins(1) && ended.wall >= Duration::from_millis(50));
    assert!(ended.memory_bytes > 0 && ended.memory_bytes <= LIMITS.memory_bytes);
}

#[test]
fn many_loops_at_once_all_run_out_of_time() {
    let codec = compile(&Parts { compress: LOOP, ..Parts::default() }).unwrap();
    let limits = CallLimits { fuel: u64::MAX, wall: Duration::from_millis(50), ..LIMITS };
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let call = codec.call(Task::Compress, b"", &meta(&[]), &limits).unwrap();
                assert_eq!(call.output.unwrap_err().fault, Fault::Time);
            });
        }
    });
}

#[test]
fn memory_bomb() {
    faults("(loop $more (drop (memory.grow (i32.const 16))) (br $more)) (i32.const 16)", Fault::Memory);
    faults("(drop (memory.grow (i32.const 65000))) (i32.const 16)", Fault::Memory);
}

#[test]
fn memory_that_is_too_large_from_the_start() {
    let failed = called(&Parts { pages: 65536, ..Parts::default() }, &LIMITS).unwrap_err();
    assert_eq!(failed.fault, Fault::Memory, "{}", failed.log);
}

#[test]
fn table_bomb() {
    let grow =
        "(loop $more (drop (table.grow $t (ref.null func) (i32.const 100000))) (br $more)) (i32.const 16)";
    let parts = Parts { fields: "(table $t 1 funcref)", compress: grow, ..Parts::default() };
    assert_eq!(called(&parts, &LIMITS).unwrap_err().fault, Fault::Memory);
    let parts = Parts { fields: "(table $t 4000000 funcref)", ..Parts::default() };
    assert_eq!(called(&parts, &LIMITS).unwrap_err().fault, Fault::Memory);
}

#[test]
fn many_tables_and_memories() {
    let tables = "(table 1 funcref)".repeat(40);
    let failed = called(&Parts { fields: &tables, ..Parts::default() }, &LIMITS).unwrap_err();
    assert_eq!(failed.fault, Fault::Memory, "{}", failed.log);
    let memories = "(memory 1)".repeat(40);
    let failed = called(&Parts { fields: &memories, ..Parts::default() }, &LIMITS).unwrap_err();
    assert_eq!(failed.fault, Fault::Memory, "{}", failed.log);
}

#[test]
fn too_many_instances() {
    let outer = format!("(core module $n) {}", "(core instance (instantiate $n))".repeat(200));
    let failed = called(&Parts { outer: &outer, ..Parts::default() }, &LIMITS).unwrap_err();
    assert_eq!(failed.fault, Fault::Memory, "{}", failed.log);
}

#[test]
fn components_nested_to_grow_at_each_level() {
    // Each level instantiates the one below ten times: 10^6 instances from a few hundred bytes.
    let mut inner = "(component $c0 (core module $n) (core instance (instantiate $n)))".to_owned();
    for level in 1..=6 {
        let below = format!("(instance (instantiate $c{}))", level - 1).repeat(10);
        inner = format!("(component $c{level} {inner} {below})");
    }
    let outer = format!("{inner} (instance (instantiate $c6))");
    let bytes = component::bytes(&Parts { outer: &outer, ..Parts::default() });
    assert!(bytes.len() < 10_000);
    match component::runtime().compile(&bytes) {
        Err(error) => assert!(error.fault().is_some(), "{error}"),
        Ok(codec) => {
            let call = codec.call(Task::Compress, b"", &meta(&[]), &LIMITS).unwrap();
            assert_eq!(call.output.unwrap_err().fault, Fault::Memory);
        }
    }
}

#[test]
fn deep_recursion() {
    let parts = Parts {
        fields: "(func $deeper (param i64) (result i64)
            (i64.add (i64.const 1) (call $deeper (i64.add (local.get 0) (i64.const 1)))))",
        compress: "(drop (call $deeper (i64.const 0))) (i32.const 16)",
        ..Parts::default()
    };
    let failed = called(&parts, &LIMITS).unwrap_err();
    assert_eq!(failed.fault, Fault::Trap, "{}", failed.log);
    assert!(failed.log.contains("stack"), "{}", failed.log);
}

#[test]
fn recursion_on_a_small_stack_of_the_caller() {
    // Judges call from worker threads: the host's stack must hold the entry's.
    let parts = Parts {
        fields: "(func $deeper (call $deeper) (call $deeper))",
        compress: "(call $deeper) (i32.const 16)",
        ..Parts::default()
    };
    let codec = compile(&parts).unwrap();
    let thread = std::thread::Builder::new().stack_size(1 << 20);
    let call = thread.spawn(move || codec.call(Task::Compress, b"", &meta(&[]), &LIMITS).unwrap()).unwrap();
    assert_eq!(call.join().unwrap().output.unwrap_err().fault, Fault::Trap);
}

#[test]
fn traps_of_every_kind() {
    faults("unreachable", Fault::Trap);
    faults("(i32.div_u (i32.const 1) (i32.const 0))", Fault::Trap);
    faults("(i32.load (i32.const -4))", Fault::Trap);
    faults("(i32.trunc_f32_s (f32.const nan))", Fault::Trap);
    let parts = Parts {
        fields: "(table $t 1 funcref) (type $f (func))",
        compress: "(call_indirect $t (type $f) (i32.const 0)) (i32.const 16)",
        ..Parts::default()
    };
    assert_eq!(called(&parts, &LIMITS).unwrap_err().fault, Fault::Trap);
}

#[test]
fn a_start_function_that_does_not_end() {
    let parts = Parts { fields: "(func $s (loop $l (br $l))) (start $s)", ..Parts::default() };
    assert_eq!(called(&parts, &LIMITS).unwrap_err().fault, Fault::Fuel);
}

#[test]
fn a_start_function_that_traps() {
    let parts = Parts { fields: "(func $s unreachable) (start $s)", ..Parts::default() };
    assert_eq!(called(&parts, &LIMITS).unwrap_err().fault, Fault::Trap);
}

#[test]
fn an_allocator_that_loops_or_lies() {
    let parts = |realloc| Parts { realloc, ..Parts::default() };
    let endless = called(&parts("(loop $l (br $l)) (i32.const 0)"), &LIMITS).unwrap_err();
    assert_eq!(endless.fault, Fault::Fuel);
    for lie in ["(i32.const -1)", "(i32.const 65530)", "(i32.const 3)"] {
        let failed = called(&parts(lie), &LIMITS);
        if lie != "(i32.const 3)" {
            let failed = failed.unwrap_err();
            assert!(matches!(failed.fault, Fault::Output | Fault::Trap), "{}", failed.log);
        }
    }
}

#[test]
fn a_cleanup_that_does_not_end() {
    let parts = Parts {
        fields: "(func (export \"cleanup\") (param i32) (loop $l (br $l)))",
        lift: "(post-return (core func $i \"cleanup\"))",
        ..Parts::default()
    };
    assert_eq!(called(&parts, &LIMITS).unwrap_err().fault, Fault::Fuel);
}

/// A body that gives back a result with these three words.
fn gives(case: u32, pointer: u32, length: u32) -> String {
    format!(
        "(i32.store (i32.const 16) (i32.const {case})) (i32.store (i32.const 20) (i32.const {pointer}))
         (i32.store (i32.const 24) (i32.const {length})) (i32.const 16)"
    )
}

#[test]
fn lists_outside_the_memory() {
    for (pointer, length) in [(65530, 100), (0x7fff_0000, 1), (0, 0x7fff_ffff), (1 << 30, 1 << 30)] {
        faults(&gives(0, pointer, length), Fault::Output);
    }
    // The result itself lies outside, or is not aligned.
    faults("(i32.const 65533)", Fault::Output);
    faults("(i32.const -1)", Fault::Output);
}

#[test]
fn a_result_that_is_neither_ok_nor_error() {
    faults(&gives(7, 0, 0), Fault::Output);
}

#[test]
fn an_error_that_is_not_text() {
    let broken = "(i32.store (i32.const 200) (i32.const 0xfffefdfc))";
    faults(&format!("{broken} {}", gives(1, 200, 4)), Fault::Output);
}

#[test]
fn an_error_is_a_trap_and_a_long_one_is_cut() {
    faults(&gives(1, 200, 0), Fault::Trap);
    let parts = Parts { pages: 100, compress: &gives(1, 0, 5_000_000), ..Parts::default() };
    let failed = called(&parts, &LIMITS).unwrap_err();
    assert_eq!(failed.fault, Fault::Trap);
    assert!(failed.log.len() <= shoal_sandbox::limits::LOG_BYTES_MAX);
}

#[test]
fn more_output_than_allowed() {
    let parts = Parts { pages: 100, compress: &gives(0, 0, 5_000_000), ..Parts::default() };
    assert_eq!(called(&parts, &LIMITS).unwrap_err().fault, Fault::OutputTooLarge);
    let enough = CallLimits { output_bytes: 5_000_000, ..LIMITS };
    assert_eq!(called(&parts, &enough).unwrap().len(), 5_000_000);
}

#[test]
fn state_does_not_pass_from_call_to_call() {
    // Gives back a byte that counts the calls of this instance, and one of memory that it wrote before.
    let count = "(global.set $calls (i32.add (global.get $calls) (i32.const 1)))
        (i32.store8 (i32.const 200) (global.get $calls)) (i32.store8 (i32.const 201) (i32.load8_u (i32.const 300)))
        (i32.store8 (i32.const 300) (i32.const 42))";
    let body = format!("{count} {}", gives(0, 200, 2));
    let parts = Parts {
        fields: "(global $calls (mut i32) (i32.const 0))",
        compress: &body,
        decompress: &body,
        ..Parts::default()
    };
    let codec = compile(&parts).unwrap();
    for task in [Task::Compress, Task::Decompress, Task::Compress, Task::Decompress] {
        let call = codec.call(task, b"remember me", &meta(&[11]), &LIMITS).unwrap();
        assert_eq!(call.output.unwrap(), [1, 0]);
    }
}

#[test]
fn nan_bits_are_the_same_everywhere() {
    // 0/0 gives a negative NaN on x86 and a positive one on ARM; canonical is positive, quiet, payload zero.
    let body = format!(
        "(f32.store (i32.const 200) (f32.div (f32.load (i32.const 400)) (f32.load (i32.const 400))))
         (f32.store (i32.const 204) (f32.add (f32.reinterpret_i32 (i32.const 0xffabcdef)) (f32.const 1)))
         (v128.store (i32.const 208) (f32x4.div (v128.load (i32.const 400)) (v128.load (i32.const 400)))) {}",
        gives(0, 200, 24)
    );
    let output = called(&Parts { compress: &body, ..Parts::default() }, &LIMITS).unwrap();
    assert_eq!(output, 0x7fc0_0000_u32.to_le_bytes().repeat(6));
}

#[test]
fn imports_of_any_kind_are_forbidden() {
    let clock =
        "(import \"wasi:clocks/monotonic-clock@0.2.0\" (instance (export \"now\" (func (result u64)))))";
    let log = refused(&component::bytes(&Parts { outer: clock, ..Parts::default() }), Fault::Forbidden);
    assert!(log.contains("wasi:clocks"), "{log}");
    for outer in [
        "(import \"random\" (func (result u64)))",
        "(import \"host\" (instance))",
        "(import \"code\" (core module))",
        "(import \"thing\" (type (sub resource)))",
    ] {
        refused(&component::bytes(&Parts { outer, ..Parts::default() }), Fault::Forbidden);
    }
    let outer = "(import \"lib\" (component))"; // the engine knows no such thing
    refused(&component::bytes(&Parts { outer, ..Parts::default() }), Fault::Invalid);
}

#[test]
fn what_is_no_codec_component() {
    refused(b"", Fault::Invalid);
    refused(b"(component)", Fault::Invalid);
    refused(b"\x7fELF and so on", Fault::Invalid);
    refused(&[0; 1000], Fault::Invalid);
    refused_text("(module)", Fault::Invalid);
    refused_text("(component)", Fault::Invalid);
    refused_text(
        "(component (instance $i) (export \"shoal:codec/coder@0.1.0\" (instance $i)))",
        Fault::Invalid,
    );
    let good = component::bytes(&Parts::default());
    for cut in [4, 8, 100, good.len() / 2, good.len() - 1] {
        refused(&good[..cut], Fault::Invalid);
    }
    let mut later = good.clone();
    later[4] = 0x7f;
    refused(&later, Fault::Invalid);
}

#[test]
fn functions_of_another_type() {
    for (core, ty) in [
        ("none", "(result u32)"),
        ("two", "(param \"data\" (list u8)) (result (list u8))"),
        (
            "three",
            "(param \"data\" (list u16)) (param \"meta\" u8) (result (result (list u8) (error string)))",
        ),
    ] {
        let text = format!(
            "(component
                (core module $m (memory (export \"memory\") 1)
                    (func (export \"none\") (result i32) (i32.const 0))
                    (func (export \"two\") (param i32 i32) (result i32) (i32.const 0))
                    (func (export \"three\") (param i32 i32 i32) (result i32) (i32.const 0))
                    (func (export \"realloc\") (param i32 i32 i32 i32) (result i32) (i32.const 0)))
                (core instance $i (instantiate $m))
                (func $f {ty} (canon lift (core func $i \"{core}\")
                    (memory (core memory $i \"memory\")) (realloc (core func $i \"realloc\"))))
                (instance $coder (export \"compress\" (func $f)) (export \"decompress\" (func $f)))
                (export \"shoal:codec/coder@0.1.0\" (instance $coder)))"
        );
        refused_text(&text, Fault::Invalid);
    }
}

#[test]
fn proposals_that_are_not_deterministic_or_off() {
    let module = |fields: &str| component::bytes(&Parts { fields, ..Parts::default() });
    refused(
        &module(
            "(func (param v128 v128 v128) (result v128)
        (f32x4.relaxed_madd (local.get 0) (local.get 1) (local.get 2)))",
        ),
        Fault::Invalid,
    );
    refused(&module("(memory 1 1 shared)"), Fault::Invalid);
    refused(&module("(memory i64 1)"), Fault::Invalid);
    refused(&module("(type $s (struct (field i32)))"), Fault::Invalid);
}

#[test]
fn a_component_that_is_too_large() {
    let log = refused(&vec![0; shoal_sandbox::limits::COMPONENT_BYTES_MAX + 1], Fault::Invalid);
    assert!(log.contains("bytes"), "{log}");
}

#[test]
fn large_data_segments_are_paid_for() {
    let data = "\\aa".repeat(3 << 20);
    let fields = format!("(data $d \"{data}\")");
    let body = format!("(memory.init $d (i32.const 65536) (i32.const 0) (i32.const {})) {IDENTITY}", 3 << 20);
    let parts = Parts { pages: 64, fields: &fields, compress: &body, ..Parts::default() };
    let codec = compile(&parts).unwrap();
    let call = codec.call(Task::Compress, b"", &meta(&[]), &LIMITS).unwrap();
    assert!(call.output.is_ok());
    assert!(call.fuel >= 3 << 20, "{} fuel for 3 MiB", call.fuel);
    let poor = CallLimits { fuel: 1 << 20, ..LIMITS };
    let call = codec.call(Task::Compress, b"", &meta(&[]), &poor).unwrap();
    assert_eq!(call.output.unwrap_err().fault, Fault::Fuel);
}

#[test]
fn copying_and_filling_cost_by_the_byte() {
    let body = format!("(memory.fill (i32.const 0) (i32.const 1) (i32.const 6000000)) {IDENTITY}");
    let parts = Parts { pages: 100, compress: &body, ..Parts::default() };
    let poor = CallLimits { fuel: 5_000_000, ..LIMITS };
    assert_eq!(called(&parts, &poor).unwrap_err().fault, Fault::Fuel);
}

/// A compile bomb may compile, or be refused with the entry's fault; it neither hangs nor takes the machine.
fn bounded(bytes: &[u8]) {
    let started = Instant::now();
    if let Err(error) = component::runtime().compile(bytes) {
        assert!(error.fault().is_some(), "{error}");
    }
    assert!(started.elapsed() < shoal_sandbox::limits::COMPILE_WALL);
}

#[test]
fn compile_bomb_of_many_functions() {
    let fields = "(func (param i64) (result i64) (i64.mul (local.get 0) (local.get 0)))".repeat(10_000);
    bounded(&component::bytes(&Parts { fields: &fields, ..Parts::default() }));
}

#[test]
fn compile_bomb_of_a_giant_branch_table() {
    let labels = "0 ".repeat(50_000);
    let body = format!("(block (br_table {labels} (local.get 0))) {IDENTITY}");
    bounded(&component::bytes(&Parts { compress: &body, ..Parts::default() }));
}

#[test]
fn compile_bomb_of_deep_blocks_and_many_locals() {
    let body = format!("{} nop {} {IDENTITY}", "block ".repeat(3000), "end ".repeat(3000));
    bounded(&component::bytes(&Parts { compress: &body, ..Parts::default() }));
    let locals = format!("(local {}) {IDENTITY}", "i64 ".repeat(49_000));
    bounded(&component::bytes(&Parts { compress: &locals, ..Parts::default() }));
}

#[test]
fn compile_bomb_of_live_values() {
    // Every value stays live to the end: register allocation at its worst.
    let load = |n: i32| format!("(i64.load (i32.add (local.get 0) (i32.const {n})))");
    let loads: Vec<String> = (0..2000).map(load).collect();
    let body = format!("{} {} drop {IDENTITY}", loads.concat(), "i64.add ".repeat(1999));
    bounded(&component::bytes(&Parts { compress: &body, ..Parts::default() }));
}

/// Flips bytes all over a good component: it is refused as the entry's fault, or runs within its limits.
#[test]
fn damaged_components() {
    let good = component::bytes(&Parts::default());
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        (seed % below as u64) as usize
    };
    for round in 0..60 {
        let mut bytes = good.clone();
        for _ in 0..=round % 4 {
            let at = 8 + random(bytes.len() - 8);
            bytes[at] = random(256) as u8;
        }
        match component::runtime().compile(&bytes) {
            Err(error) => assert!(error.fault().is_some(), "round {round}: {error}"),
            Ok(codec) => {
                let call = codec.call(Task::Compress, b"some input", &meta(&[10]), &LIMITS).unwrap();
                assert!(call.fuel <= LIMITS.fuel, "round {round}");
            }
        }
    }
}
