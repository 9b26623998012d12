//! The one configuration that verdicts are made with, and its hash.

use std::fmt::Write as _;
use std::sync::LazyLock;

use wasmtime::{Config, Engine, OperatorCost, OptLevel, Strategy, VariableOperatorCost};
use wire::Hash;

use crate::fault::HostError;
use crate::limits;

/// The exact version of the engine: fuel and stack use are its properties. A test holds it against Cargo.lock.
pub const WASMTIME: &str = "48.0.8";

/// Address space that every linear memory gets at once: all that 32 bits can address, so that growing never moves it.
const MEMORY_RESERVATION_BYTES: u64 = 4 << 30;
const MEMORY_GUARD_BYTES: u64 = 32 << 20;

/// Fuel per operator: 1, but for those that take a processor much longer than an addition. Rounded cycles per
/// operation of current x86-64 and aarch64 cores (throughput, operands in the first cache).
fn operator_cost() -> OperatorCost {
    let mut cost = OperatorCost::new();
    for slot in [&mut cost.Call, &mut cost.BrTable] {
        *slot = 4;
    }
    cost.CallIndirect = 8;
    for slot in [
        &mut cost.I32DivS,
        &mut cost.I32DivU,
        &mut cost.I32RemS,
        &mut cost.I32RemU,
        &mut cost.I64DivS,
        &mut cost.I64DivU,
        &mut cost.I64RemS,
        &mut cost.I64RemU,
        &mut cost.F64Div,
        &mut cost.F64Sqrt,
        &mut cost.F64x2Div,
        &mut cost.F64x2Sqrt,
    ] {
        *slot = 10;
    }
    for slot in [&mut cost.F32Div, &mut cost.F32Sqrt, &mut cost.F32x4Div, &mut cost.F32x4Sqrt] {
        *slot = 6;
    }
    cost.MemoryGrow = 255;
    cost.variable = VariableOperatorCost { memory_grow_per_page: 255, ..VariableOperatorCost::new() };
    cost
}

/// Every setting that can change a result or its fuel, one per line. The same list configures the engine, so that the
/// text cannot drift from it.
fn configure(config: &mut Config) -> String {
    let mut text = format!("wasmtime {WASMTIME}\n");
    let mut set = |name: &str, on: bool, apply: fn(&mut Config, bool) -> &mut Config| {
        apply(config, on);
        writeln!(text, "{name} {on}").expect("writing to a String cannot fail");
    };
    set("nan_canonicalization", true, Config::cranelift_nan_canonicalization);
    set("consume_fuel", true, Config::consume_fuel);
    set("epoch_interruption", true, Config::epoch_interruption);
    set("simd", true, Config::wasm_simd);
    set("relaxed_simd", false, Config::wasm_relaxed_simd);
    set("bulk_memory", true, Config::wasm_bulk_memory);
    set("multi_value", true, Config::wasm_multi_value);
    set("multi_memory", true, Config::wasm_multi_memory);
    set("extended_const", true, Config::wasm_extended_const);
    set("tail_call", true, Config::wasm_tail_call);
    set("memory64", false, Config::wasm_memory64);
    set("gc", false, Config::gc_support);
    set("custom_page_sizes", false, Config::wasm_custom_page_sizes);
    set("wide_arithmetic", false, Config::wasm_wide_arithmetic);
    set("stack_switching", false, Config::wasm_stack_switching);
    set("shared_everything_threads", false, Config::wasm_shared_everything_threads);
    set("shared_memory", false, Config::shared_memory);
    set("memory_may_move", false, Config::memory_may_move);
    set("signals_based_traps", true, Config::signals_based_traps);
    config
        .strategy(Strategy::Cranelift)
        .cranelift_opt_level(OptLevel::Speed)
        .memory_reservation(MEMORY_RESERVATION_BYTES)
        .memory_guard_size(MEMORY_GUARD_BYTES)
        .max_wasm_stack(limits::WASM_STACK_BYTES)
        .operator_cost(operator_cost());
    writeln!(
        text,
        "cranelift speed\nmemory_reservation {MEMORY_RESERVATION_BYTES}\nmemory_guard {MEMORY_GUARD_BYTES}\n\
         wasm_stack {}\ninstances {}\nmemories {}\ntables {}\ntable_elements {}\ncomponent_bytes {}\n{:?}",
        limits::WASM_STACK_BYTES,
        limits::INSTANCES_MAX,
        limits::MEMORIES_MAX,
        limits::TABLES_MAX,
        limits::TABLE_ELEMENTS_MAX,
        limits::COMPONENT_BYTES_MAX,
        operator_cost(),
    )
    .expect("writing to a String cannot fail");
    text
}

/// The settings as text, one per line; the last line is the cost table.
pub fn settings_text() -> &'static str {
    static TEXT: LazyLock<String> = LazyLock::new(|| configure(&mut Config::new()));
    &TEXT
}

/// Hash of [`settings_text`]: stands in a competition's spec, and two judges with another one do not compare.
pub fn settings_hash() -> Hash {
    static HASH: LazyLock<Hash> =
        LazyLock::new(|| Hash::of_parts("shoal 2026-11 sandbox settings", &[settings_text().as_bytes()]));
    *HASH
}

pub(super) fn engine() -> Result<Engine, HostError> {
    let mut config = Config::new();
    configure(&mut config);
    Engine::new(&config).map_err(|error| {
        HostError::new(
            "the WebAssembly engine does not start",
            format!("{error:#}"),
            "use a 64-bit x86 or ARM machine with enough address space",
        )
    })
}
