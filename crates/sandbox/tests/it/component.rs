//! Components written as text: the interface is right, what the functions do is each test's.

use std::sync::OnceLock;
use std::time::Duration;

use shoal_sandbox::{CallLimits, Child, Codec, DType, Direction, Error, Meta, Runtime};

/// What a hostile component changes.
pub(super) struct Parts<'a> {
    /// Pages of memory at the start.
    pub(super) pages: u32,
    /// Fields of the core module beside memory, allocator and the two functions.
    pub(super) fields: &'a str,
    /// Body of `compress`: data pointer and length are locals 0 and 1; gives the address of the result.
    pub(super) compress: &'a str,
    /// Body of `decompress`, likewise.
    pub(super) decompress: &'a str,
    /// Body of the allocator, whose locals are old pointer, old size, alignment, new size.
    pub(super) realloc: &'a str,
    /// Fields of the component itself.
    pub(super) outer: &'a str,
    /// Options of `compress`'s lifting beside memory and allocator.
    pub(super) lift: &'a str,
}

/// Gives back what came in. Address 16 holds the result: 0 for ok, then pointer and length.
pub(super) const IDENTITY: &str = "(i32.store8 (i32.const 16) (i32.const 0))
    (i32.store (i32.const 20) (local.get 0)) (i32.store (i32.const 24) (local.get 1)) (i32.const 16)";

/// Takes the next bytes, growing the memory as needed.
const BUMP: &str = "(local $at i32)
    (global.set $top (i32.and (i32.add (global.get $top) (i32.const 15)) (i32.const -16)))
    (local.set $at (global.get $top))
    (global.set $top (i32.add (global.get $top) (local.get 3)))
    (loop $more
        (if (i32.gt_u (global.get $top) (i32.mul (memory.size) (i32.const 65536)))
            (then (drop (memory.grow (i32.const 1))) (br $more))))
    (local.get $at)";

impl Default for Parts<'_> {
    fn default() -> Self {
        Self {
            pages: 1,
            fields: "",
            compress: IDENTITY,
            decompress: IDENTITY,
            realloc: BUMP,
            outer: "",
            lift: "",
        }
    }
}

const TYPES: &str = r#"(enum "bf16" "f16" "f32" "u16" "u8")"#;

/// A component with the interface of codec.wit, as bytes.
pub(super) fn bytes(parts: &Parts<'_>) -> Vec<u8> {
    let Parts { pages, fields, compress, decompress, realloc, outer, lift } = parts;
    let text = format!(
        r#"(component
        {outer}
        (core module $m
            (memory (export "memory") {pages})
            (global $top (mut i32) (i32.const 1024))
            {fields}
            (func $realloc (export "realloc") (param i32 i32 i32 i32) (result i32) {realloc})
            (func $compress (export "compress") (param i32 i32 i32 i32 i32 i32) (result i32) {compress})
            (func $decompress (export "decompress") (param i32 i32 i32 i32 i32 i32) (result i32) {decompress})
        )
        (core instance $i (instantiate $m))
        (type $dtype {TYPES})
        (type $direction (enum "forward" "backward"))
        (type $meta (record (field "dtype" $dtype) (field "shape" (list u32)) (field "direction" $direction)))
        (func $compress (param "data" (list u8)) (param "meta" $meta) (result (result (list u8) (error string)))
            (canon lift (core func $i "compress") (memory (core memory $i "memory")) (realloc (core func $i "realloc")) {lift}))
        (func $decompress (param "data" (list u8)) (param "meta" $meta) (result (result (list u8) (error string)))
            (canon lift (core func $i "decompress") (memory (core memory $i "memory")) (realloc (core func $i "realloc"))))
        (component $coder
            (type $dtype {TYPES})
            (import "dtype-in" (type $dtype-in (eq $dtype)))
            (type $direction (enum "forward" "backward"))
            (import "direction-in" (type $direction-in (eq $direction)))
            (type $meta (record
                (field "dtype" $dtype-in) (field "shape" (list u32)) (field "direction" $direction-in)))
            (import "meta-in" (type $meta-in (eq $meta)))
            (import "compress-in" (func $compress
                (param "data" (list u8)) (param "meta" $meta-in) (result (result (list u8) (error string)))))
            (import "decompress-in" (func $decompress
                (param "data" (list u8)) (param "meta" $meta-in) (result (result (list u8) (error string)))))
            (export $dtype-out "dtype" (type $dtype))
            (export $direction-out "direction" (type $direction))
            (type $meta-named (record
                (field "dtype" $dtype-out) (field "shape" (list u32)) (field "direction" $direction-out)))
            (export $meta-out "meta" (type $meta-named))
            (export "compress" (func $compress) (func
                (param "data" (list u8)) (param "meta" $meta-out) (result (result (list u8) (error string)))))
            (export "decompress" (func $decompress) (func
                (param "data" (list u8)) (param "meta" $meta-out) (result (result (list u8) (error string)))))
        )
        (instance $coder (instantiate $coder
            (with "dtype-in" (type $dtype)) (with "direction-in" (type $direction)) (with "meta-in" (type $meta))
            (with "compress-in" (func $compress)) (with "decompress-in" (func $decompress))))
        (export "shoal:codec/coder@0.1.0" (instance $coder))
    )"#
    );
    wat::parse_str(&text).expect("the test's component is well-formed text")
}

/// This test binary as the sandbox's child.
pub(super) fn child() -> Child {
    let program = std::env::current_exe().expect("a test knows its own path");
    Child::new(program, ["it::sandbox_child", "--exact", "--nocapture", "--quiet", "--test-threads=1"])
}

/// A runtime without a cache, shared by all tests.
pub(super) fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| Runtime::new(child(), None).expect("the engine starts"))
}

pub(super) fn compile(parts: &Parts<'_>) -> Result<Codec, Error> {
    runtime().compile(&bytes(parts))
}

pub(super) fn meta(shape: &[u32]) -> Meta {
    Meta { dtype: DType::U8, shape: shape.to_vec(), direction: Direction::Forward }
}

pub(super) const LIMITS: CallLimits = CallLimits {
    fuel: 50_000_000,
    wall: Duration::from_secs(20),
    memory_bytes: 64 << 20,
    output_bytes: 1 << 20,
};
