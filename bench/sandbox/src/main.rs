//! What the sandbox costs beside the code that it runs. Arguments: components to measure with.

mod text;

use std::hint::black_box;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use sandbox::{
    CallLimits, Child, Codec, DType, Direction, JailLimits, Machine, Meta, Program, Runtime, Task,
};
use wasmtime::component::{Component, Linker, TypedFunc};
use wasmtime::{Config, Engine, Store};

const LIMITS: CallLimits = CallLimits {
    fuel: u64::MAX,
    wall: Duration::from_secs(60),
    memory_bytes: 1 << 30,
    output_bytes: 64 << 20,
};
const INPUT_BYTES: usize = 2 << 20;

fn main() -> Result<()> {
    sandbox::child::run_if_asked();
    let components: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let folder = tempfile::tempdir()?;
    let child = Child::this_binary()?;
    let runtime = Runtime::new(child.clone(), Some(folder.path().join("cache")))?;
    let identity = wat::parse_str(text::IDENTITY)?;
    println!(
        "wasmtime {}, settings {}. Medians, and the slowest of a hundred.\n",
        sandbox::wasm::WASMTIME,
        sandbox::wasm::settings_hash()
    );
    println!("| what | median | 99th of 100 |");
    println!("|---|---|---|");
    let (codec, _) = load(&runtime, &identity)?;
    row("a call that does nothing, in a new instance", 1000, || nothing(&codec));
    let bytes = input();
    row("the same with 2 MiB in and out", 200, || copy(&codec, &bytes));
    row("a component from the cache", 100, || drop(black_box(runtime.compile(&identity))));
    for path in &components {
        let read = std::fs::read(path).with_context(|| path.display().to_string())?;
        let (codec, _) = load(&runtime, &read)?;
        row(&format!("{}, 2 bytes compressed", name(path)), 300, || nothing(&codec));
    }
    match Machine::probe(child) {
        Ok(machine) => jails(&machine)?,
        Err(error) => println!("| a jail | {error} | |"),
    }
    if !components.is_empty() {
        println!(
            "\n2 MiB of bf16 (normal values), compressed and decompressed. Overhead: time with fuel and epochs over time without.\n"
        );
        println!("| component | KiB | compiled in | fuel | time | fuel per ns | overhead |");
        println!("|---|---|---|---|---|---|---|");
    }
    for path in &components {
        measure(&runtime, path, &bytes)?;
    }
    Ok(())
}

fn name(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// Compiled and warm, and how long compiling took.
fn load(runtime: &Runtime, component: &[u8]) -> Result<(Codec, Duration)> {
    let started = Instant::now();
    let codec = runtime.compile(component)?;
    let took = started.elapsed();
    nothing(&codec);
    Ok((codec, took))
}

fn meta(elements: usize) -> Meta {
    Meta { dtype: DType::Bf16, shape: vec![elements as u32 / 256, 256], direction: Direction::Forward }
}

fn nothing(codec: &Codec) {
    let meta = Meta { dtype: DType::Bf16, shape: vec![1, 1], direction: Direction::Forward };
    drop(black_box(codec.call(Task::Compress, &[0, 63], &meta, &LIMITS)));
}

fn copy(codec: &Codec, bytes: &[u8]) {
    let call =
        codec.call(Task::Compress, bytes, &meta(bytes.len() / 2), &LIMITS).expect("an instance can be made");
    assert_eq!(call.output.expect("it copies").len(), bytes.len());
}

fn row(what: &str, rounds: usize, mut run: impl FnMut()) {
    let mut times: Vec<Duration> = (0..rounds)
        .map(|_| {
            let started = Instant::now();
            run();
            started.elapsed()
        })
        .collect();
    times.sort_unstable();
    let ms = |at: usize| times[at].as_secs_f64() * 1e3;
    println!("| {what} | {:.3} ms | {:.3} ms |", ms(rounds / 2), ms(rounds * 99 / 100));
}

/// Normal values as bf16, by the sum of twelve uniform ones; the same in every run.
fn input() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut uniform = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 24) as f32
    };
    let mut bytes = Vec::with_capacity(INPUT_BYTES);
    while bytes.len() < INPUT_BYTES {
        let value: f32 = (0..12).map(|_| uniform()).sum::<f32>() - 6.0;
        bytes.extend_from_slice(&((value.to_bits() >> 16) as u16).to_le_bytes());
    }
    bytes
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64()
}

fn measure(runtime: &Runtime, path: &Path, bytes: &[u8]) -> Result<()> {
    let component = std::fs::read(path)?;
    let fresh = Runtime::new(Child::this_binary()?, None)?;
    let (_, compiled) = load(&fresh, &component)?;
    let (codec, _) = load(runtime, &component)?;
    let bare = Bare::new(&component)?;
    let meta = meta(bytes.len() / 2);
    let (mut with, mut without, mut fuel) = (Vec::new(), Vec::new(), 0);
    for _ in 0..15 {
        let started = Instant::now();
        let there = codec.call(Task::Compress, bytes, &meta, &LIMITS)?;
        let small = there.output?;
        let back = codec.call(Task::Decompress, &small, &meta, &LIMITS)?;
        back.output?;
        with.push(started.elapsed());
        fuel = there.fuel + back.fuel;
        let started = Instant::now();
        let small = bare.call("compress", bytes, &meta)?;
        bare.call("decompress", &small, &meta)?;
        without.push(started.elapsed());
    }
    let (with, without) = (median(with), median(without));
    println!(
        "| {} | {:.0} | {:.2} s | {:.1} M | {:.1} ms | {:.2} | {:.2} |",
        name(path),
        component.len() as f64 / 1024.0,
        compiled.as_secs_f64(),
        fuel as f64 / 1e6,
        with * 1e3,
        fuel as f64 / (with * 1e9),
        with / without,
    );
    Ok(())
}

/// The same component and engine, without fuel and epochs.
struct Bare {
    engine: Engine,
    component: Component,
}

type Function<'a> = TypedFunc<(&'a [u8], &'a Meta), (Result<Vec<u8>, String>,)>;

impl Bare {
    fn new(component: &[u8]) -> Result<Self> {
        let mut config = Config::new();
        config.cranelift_nan_canonicalization(true).wasm_relaxed_simd(false);
        let engine = Engine::new(&config).map_err(|error| anyhow!("{error:#}"))?;
        let component = Component::from_binary(&engine, component).map_err(|error| anyhow!("{error:#}"))?;
        Ok(Self { engine, component })
    }

    fn call(&self, name: &str, bytes: &[u8], meta: &Meta) -> Result<Vec<u8>> {
        let inner = || -> wasmtime::Result<Result<Vec<u8>, String>> {
            let mut store = Store::new(&self.engine, ());
            let instance = Linker::new(&self.engine).instantiate(&mut store, &self.component)?;
            let coder = instance.get_export_index(&mut store, None, sandbox::wasm::INTERFACE);
            let index = instance
                .get_export_index(&mut store, coder.as_ref(), name)
                .ok_or_else(|| wasmtime::Error::msg("no such function"))?;
            let function: Function<'_> = instance.get_typed_func(&mut store, &index)?;
            Ok(function.call(&mut store, (bytes, meta))?.0)
        };
        inner().map_err(|error| anyhow!("{error:#}"))?.map_err(|text| anyhow!(text))
    }
}

fn jails(machine: &Machine) -> Result<()> {
    let mut program = Program::new(["/bin/true"]);
    program.limits = JailLimits { memory_bytes: 64 << 20, ..JailLimits::default() };
    row("a jail with /bin/true, start to end", 100, || drop(black_box(machine.run(&program))));
    let python = Path::new("/usr/bin/python3");
    if python.exists() {
        let mut program =
            Program::new(["/usr/bin/python3", "-m", "http.server", "--bind", "127.0.0.1", "8000"]);
        program.limits = JailLimits { memory_bytes: 256 << 20, ..JailLimits::default() };
        row("a jail with Python's http.server, start to first connection", 20, || {
            let jail = machine.start(&program).expect("a jail starts");
            drop(jail.connect_tcp(8000, Duration::from_secs(20)).expect("it listens"));
        });
        let jail = machine.start(&program)?;
        row("a request to it, with its connection", 100, || {
            let mut stream = jail.connect_tcp(8000, Duration::from_secs(20)).expect("it listens");
            stream.write_all(b"HEAD / HTTP/1.0\r\n\r\n").expect("it reads");
            stream.read_to_end(&mut Vec::new()).expect("it answers");
        });
        row("its counters", 100, || {
            black_box(jail.usage());
        });
    }
    Ok(())
}
