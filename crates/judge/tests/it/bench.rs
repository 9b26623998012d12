//! What tests share: a judge whose sandbox's children are this test binary, inputs, specs, modules written by hand.

use std::sync::{Arc, OnceLock};

use arena::spec::{CompetitionSpec, Form};
use shoal_judge::{Case, Code, Evaluation, Input, Judge, Setup, synthetic};
use wire::Hash;

/// Children of the sandbox come here: see [`judge`].
#[test]
fn sandbox_child() {
    sandbox::child::run_if_asked();
}

/// One judge for all tests; its cache is a folder of its own.
pub(crate) fn judge() -> Arc<Judge> {
    static JUDGE: OnceLock<(Arc<Judge>, tempfile::TempDir)> = OnceLock::new();
    let make = || {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("cache");
        let child = sandbox::Child::new(
            std::env::current_exe().unwrap(),
            ["it::bench::sandbox_child", "--exact", "--nocapture", "--quiet"],
        );
        (Arc::new(Judge::new(Setup { child, cache: Some(cache) }).unwrap()), folder)
    };
    Arc::clone(&JUDGE.get_or_init(make).0)
}

pub(crate) fn spec(extra: &str) -> CompetitionSpec {
    let text = format!(
        "name = \"matrix\"\nkind = \"codec\"\n[takeover]\nalpha_ppm = 0\n[schedule]\nstart = \"2026-01-13T00:00:00Z\"\ndays = 2\n{extra}"
    );
    CompetitionSpec::parse(&text).unwrap()
}

pub(crate) fn small_spec() -> CompetitionSpec {
    spec("[inputs]\nitems = 3\n[resources]\nfuel = 1000000000\nmemory_bytes = 268435456\ncall_s = 20\n")
}

pub(crate) fn inputs(count: u32) -> Vec<Input> {
    synthetic::tensors(&Hash::of(b"inputs"), count)
}

pub(crate) fn component(bytes: &[u8]) -> Code<'_> {
    Code { form: Form::Component, bytes }
}

pub(crate) fn evaluate(
    spec: &CompetitionSpec,
    entry: Code<'_>,
    baseline: Option<Code<'_>>,
    inputs: &[Input],
) -> Evaluation {
    judge().evaluate(&case(spec, entry, baseline), inputs).unwrap()
}

pub(crate) fn case<'a>(spec: &'a CompetitionSpec, entry: Code<'a>, baseline: Option<Code<'a>>) -> Case<'a> {
    Case { spec, seed: Hash::of(b"seed"), entry, baseline, reference: None, environment: None }
}

/// A module whose two functions have these bodies; `$answer` makes an answer of a pointer and a length, `$error` one of
/// a text. Parameters are `$data`, `$length`, `$dtype`, `$shape`, `$dimensions`, `$direction`.
pub(crate) fn module(more: &str, compress: &str, decompress: &str) -> Vec<u8> {
    let signature = "(param $data i32) (param $length i32) (param $dtype i32) (param $shape i32) (param $dimensions i32) (param $direction i32) (result i32)";
    let text = format!(
        r#"(module
  (memory (export "memory") 2)
  (global $top (mut i32) (i32.const 65536))
  (func $alloc (param $size i32) (result i32)
    (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $top) (i32.const 15)) (i32.const -16)))
    (global.set $top (i32.add (local.get $at) (local.get $size)))
    (block $enough
      (br_if $enough (i32.le_u (global.get $top) (i32.mul (memory.size) (i32.const 65536))))
      (drop (memory.grow (i32.add (i32.shr_u (i32.sub (global.get $top) (i32.mul (memory.size) (i32.const 65536))) (i32.const 16)) (i32.const 1)))))
    (local.get $at))
  (func (export "cabi_realloc") (param i32 i32 i32) (param $size i32) (result i32) (call $alloc (local.get $size)))
  (func $answer (param $data i32) (param $length i32) (result i32)
    (i32.store8 (i32.const 64) (i32.const 0))
    (i32.store (i32.const 68) (local.get $data))
    (i32.store (i32.const 72) (local.get $length))
    (i32.const 64))
  (func $error (param $data i32) (param $length i32) (result i32)
    (drop (call $answer (local.get $data) (local.get $length)))
    (i32.store8 (i32.const 64) (i32.const 1))
    (i32.const 64))
  {more}
  (func (export "shoal:codec/coder@0.1.0#compress") {signature} {compress})
  (func (export "shoal:codec/coder@0.1.0#decompress") {signature} {decompress}))"#
    );
    wat::parse_str(text).unwrap()
}

/// As it is.
pub(crate) const COPY: &str = "(call $answer (local.get $data) (local.get $length))";

pub(crate) fn packed(more: &str, compress: &str, decompress: &str) -> Vec<u8> {
    shoal_judge::pack::pack(&module(more, compress, decompress)).unwrap()
}
