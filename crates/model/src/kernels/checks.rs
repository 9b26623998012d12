//! Every kernel against PyTorch (fixtures made by `tests/fixtures/make.py`) and against finite differences of its own
//! forward; attention against f64 besides.

use super::attention::{self, Layer};
use super::matrix::{Matrix, MatrixMut};
use super::norm::Gradient;
use super::rope::Rope;
use super::{embedding, feed_forward, linear, loss, norm};
use crate::config::{ModelConfig, RopeScaling};
use crate::random;
use crate::stage::Arena;
use std::collections::HashMap;

/// Tensors of a safetensors file, as f32 (tokens too).
pub(crate) fn read_fixture(bytes: &[u8]) -> HashMap<String, Vec<f32>> {
    let (length, rest) = bytes.split_at(8);
    let length = u64::from_le_bytes(length.try_into().expect("eight bytes")) as usize;
    let header: serde_json::Value = serde_json::from_slice(&rest[..length]).expect("a header");
    let number = |v: &serde_json::Value| v.as_u64().expect("an offset") as usize;
    let entries = header.as_object().expect("an object").iter();
    entries
        .map(|(name, entry)| {
            let offsets = &entry["data_offsets"];
            let data = &rest[length..][number(&offsets[0])..number(&offsets[1])];
            let words = data.as_chunks::<4>().0.iter();
            let numbers = if entry["dtype"] == "I32" {
                words.map(|b| i32::from_le_bytes(*b) as f32).collect()
            } else {
                words.map(|b| f32::from_le_bytes(*b)).collect()
            };
            (name.clone(), numbers)
        })
        .collect()
}

fn fixture() -> HashMap<String, Vec<f32>> {
    read_fixture(include_bytes!("../../tests/fixtures/kernels.safetensors"))
}

/// Greatest difference, relative to the root mean square of what is wanted.
#[track_caller]
fn assert_close(name: &str, got: &[f32], want: &[f32]) {
    assert_eq!(got.len(), want.len(), "{name}");
    let square: f64 = want.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
    let size = (square / want.len() as f64).sqrt();
    let error = got.iter().zip(want).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max);
    assert!(error <= 2e-5 * size + 1e-9, "{name}: off by {error:e} of {size:e}");
    assert!(got.iter().all(|x| x.is_finite()), "{name}");
}

fn tokens(x: &[f32]) -> Vec<u32> {
    x.iter().map(|&t| t as u32).collect()
}

#[test]
fn rms_norm_matches() {
    let (f, arena) = (fixture(), Arena::default());
    let (mut y, mut inverse) = (vec![9.0; 70 * 24], vec![0.0; 70]);
    norm::forward(&f["norm.x"], &f["norm.gain"], 1e-5, &mut y, &mut inverse);
    assert_close("y", &y, &f["norm.y"]);
    let mut again = vec![9.0; 70 * 24];
    norm::again(&f["norm.x"], &f["norm.gain"], &inverse, &mut again);
    assert!(again == y);
    // The input's gradient is added to what is there, the gain's written over it or added.
    let mut d_x = vec![1.0; 70 * 24];
    let mut d_gain = vec![5.0; 24];
    for (accumulate, times) in [(false, 1.0), (true, 2.0)] {
        d_x.fill(1.0);
        let to = Gradient { to: &mut d_gain, accumulate };
        norm::backward(&f["norm.x"], &f["norm.gain"], &inverse, &f["norm.d_y"], &mut d_x, Some(to), &arena);
        let shifted: Vec<f32> = d_x.iter().map(|x| x - 1.0).collect();
        assert_close("d_x", &shifted, &f["norm.d_x"]);
        let want: Vec<f32> = f["norm.d_gain"].iter().map(|x| x * times).collect();
        assert_close("d_gain", &d_gain, &want);
    }
}

#[test]
fn rope_matches_with_and_without_scaling() {
    let f = fixture();
    let mut model = ModelConfig::preset("micro").expect("known");
    (model.d_model, model.heads, model.kv_heads, model.sequence, model.rope_theta) = (48, 3, 3, 67, 500.0);
    for name in ["rope", "rope_scaled"] {
        let rope = Rope::new(&model);
        for (from, to, back) in [("x", "y", false), ("d_y", "d_x", true)] {
            let mut x = f[&format!("{name}.{from}")].clone();
            rope.apply(&mut x, 48, 3, 67, back);
            assert_close(to, &x, &f[&format!("{name}.{to}")]);
        }
        model.rope_scaling = Some(RopeScaling { original_sequence: 64, ..RopeScaling::LLAMA_3 });
    }
}

#[test]
fn attention_matches() {
    let (f, arena) = (fixture(), Arena::default());
    let shape = Layer { batch: 2, time: 70, heads: 4, kv_heads: 2, width: 8 };
    let (mut y, mut sums) = (vec![9.0; 140 * 32], vec![9.0; 140 * 4]);
    attention::forward(&f["attention.qkv"], shape, &mut y, &mut sums, &arena);
    assert_close("y", &y, &f["attention.y"]);
    let mut d = vec![9.0; 140 * 64];
    attention::backward(&f["attention.qkv"], shape, &y, &sums, &f["attention.d_y"], &mut d, &arena);
    assert_close("d_qkv", &d, &f["attention.d_qkv"]);
}

/// Several tiles of keys, against a plain f64 softmax.
#[test]
fn long_attention_matches_a_plain_one() {
    let shape = Layer { batch: 1, time: 1100, heads: 2, kv_heads: 1, width: 4 };
    let mut qkv = vec![0.0; 1100 * 16];
    random::fill_normal(random::key(&[8; 32], "qkv"), 1.5, &mut qkv);
    let (mut y, mut sums) = (vec![9.0; 1100 * 8], vec![9.0; 1100 * 2]);
    attention::forward(&qkv, shape, &mut y, &mut sums, &Arena::default());
    let (mut d_y, mut d) = (vec![0.0; 1100 * 8], vec![9.0; 1100 * 16]);
    random::fill_normal(random::key(&[8; 32], "d_y"), 1.0, &mut d_y);
    attention::backward(&qkv, shape, &y, &sums, &d_y, &mut d, &Arena::default());

    let at = |t: usize, c: usize| f64::from(qkv[t * 16 + c]);
    let (mut want_y, mut want_d) = (vec![0.0f64; 1100 * 8], vec![0.0f64; 1100 * 16]);
    for head in 0..2 {
        for t in 0..1100 {
            let score = |s: usize| (0..4).map(|c| at(t, head * 4 + c) * at(s, 8 + c)).sum::<f64>() * 0.5;
            let e: Vec<f64> = (0..=t).map(|s| score(s).exp()).collect();
            let sum: f64 = e.iter().sum();
            let d_o = |c: usize| f64::from(d_y[t * 8 + head * 4 + c]);
            for (s, e) in e.iter().enumerate() {
                for c in 0..4 {
                    want_y[t * 8 + head * 4 + c] += e / sum * at(s, 12 + c);
                }
            }
            let mean: f64 = (0..4).map(|c| d_o(c) * want_y[t * 8 + head * 4 + c]).sum();
            for (s, e) in e.iter().enumerate() {
                let p = e / sum;
                let d_p: f64 = (0..4).map(|c| d_o(c) * at(s, 12 + c)).sum();
                for c in 0..4 {
                    want_d[s * 16 + 12 + c] += p * d_o(c);
                    want_d[t * 16 + head * 4 + c] += p * (d_p - mean) * 0.5 * at(s, 8 + c);
                    want_d[s * 16 + 8 + c] += p * (d_p - mean) * 0.5 * at(t, head * 4 + c);
                }
            }
        }
    }
    let to_f32 = |x: Vec<f64>| x.into_iter().map(|v| v as f32).collect::<Vec<_>>();
    assert_close("y", &y, &to_f32(want_y));
    assert_close("d_qkv", &d, &to_f32(want_d));
}

#[test]
fn swiglu_matches() {
    let (f, arena) = (fixture(), Arena::default());
    let (rows, d, ffn) = (21, 16, 150);
    let x = Matrix::new(&f["swiglu.x"], rows, d);
    let (gate_up, down) =
        (Matrix::new(&f["swiglu.gate_up"], 2 * ffn, d), Matrix::new(&f["swiglu.down"], d, ffn));
    let (mut hidden, mut active) = (vec![9.0; rows * 2 * ffn], vec![9.0; rows * ffn]);
    feed_forward::forward(x, gate_up, &mut hidden, &mut active);
    let mut y = vec![9.0; rows * d];
    linear::forward(Matrix::new(&active, rows, ffn), down, MatrixMut::new(&mut y, rows, d), false);
    assert_close("y", &y, &f["swiglu.y"]);
    let (mut d_gate_up, mut d_down) = (vec![9.0; 2 * ffn * d], vec![9.0; d * ffn]);
    let gradients = feed_forward::Gradients {
        gate_up: MatrixMut::new(&mut d_gate_up, 2 * ffn, d),
        down: MatrixMut::new(&mut d_down, d, ffn),
        accumulate: false,
    };
    let d_y = Matrix::new(&f["swiglu.d_y"], rows, d);
    feed_forward::backward(d_y, x, down, &mut hidden, Some(gradients), &arena);
    assert_close("d_gate_up", &d_gate_up, &f["swiglu.d_gate_up"]);
    assert_close("d_down", &d_down, &f["swiglu.d_down"]);
    let mut d_x = vec![9.0; rows * d];
    linear::backward_input(
        Matrix::new(&hidden, rows, 2 * ffn),
        gate_up,
        MatrixMut::new(&mut d_x, rows, d),
        false,
    );
    assert_close("d_x", &d_x, &f["swiglu.d_x"]);
}

#[test]
fn embedding_matches() {
    let f = fixture();
    let tokens = tokens(&f["embedding.tokens"]);
    let mut y = vec![9.0; 30 * 70];
    embedding::forward(&f["embedding.table"], 70, &tokens, &mut y, false);
    assert_eq!(y, f["embedding.y"]);
    let mut d = vec![9.0; 11 * 70];
    embedding::backward(&f["embedding.d_y"], 70, &tokens, &mut d, false);
    assert_close("d_table", &d, &f["embedding.d_table"]);
}

#[test]
fn cross_entropy_matches() {
    let (f, arena) = (fixture(), Arena::default());
    let (x, w) = (Matrix::new(&f["loss.x"], 66, 12), Matrix::new(&f["loss.w"], 90, 12));
    let targets = tokens(&f["loss.targets"]);
    let (value, kept) = loss::forward(x, w, &targets, &arena);
    assert_close("loss", &[value], &f["loss.loss"]);
    let (mut d_x, mut d_w) = (vec![9.0; 66 * 12], vec![9.0; 90 * 12]);
    loss::backward(x, w, &targets, kept, &mut d_x, Some((&mut d_w, false)), &arena);
    assert_close("d_x", &d_x, &f["loss.d_x"]);
    assert_close("d_w", &d_w, &f["loss.d_w"]);
}

/// A vocabulary of several bands, against f64 and finite differences.
#[test]
fn cross_entropy_in_bands_matches_finite_differences() {
    let (rows, d, vocab, arena) = (5, 3, 2 * loss::BAND + 77, Arena::default());
    let (mut x, mut w) = (vec![0.0; rows * d], vec![0.0; vocab * d]);
    random::fill_normal(random::key(&[9; 32], "x"), 1.0, &mut x);
    random::fill_normal(random::key(&[9; 32], "w"), 1.0, &mut w);
    let targets = [0, 4095, 4096, 8000, vocab as u32 - 1];
    let exact = |x: &[f32], shift: (usize, f64)| {
        let at = |i: usize| f64::from(x[i]) + if i == shift.0 { shift.1 } else { 0.0 };
        let row = |r: usize| {
            let logit = |v: usize| (0..d).map(|c| at(r * d + c) * f64::from(w[v * d + c])).sum::<f64>();
            (0..vocab).map(|v| logit(v).exp()).sum::<f64>().ln() - logit(targets[r] as usize)
        };
        (0..rows).map(row).sum::<f64>() / rows as f64
    };
    let (value, kept) = loss::forward(Matrix::new(&x, rows, d), Matrix::new(&w, vocab, d), &targets, &arena);
    assert!((f64::from(value) - exact(&x, (0, 0.0))).abs() < 1e-5);
    let mut d_x = vec![9.0; rows * d];
    let (x_rows, w_rows) = (Matrix::new(&x, rows, d), Matrix::new(&w, vocab, d));
    loss::backward(x_rows, w_rows, &targets, kept, &mut d_x, None, &arena);
    let want: Vec<f32> =
        (0..rows * d).map(|i| ((exact(&x, (i, 1e-4)) - exact(&x, (i, -1e-4))) / 2e-4) as f32).collect();
    assert_close("d_x", &d_x, &want);
}

/// Seeded numbers of the normal distribution.
fn normal(name: &str, len: usize) -> Vec<f32> {
    let mut x = vec![0.0; len];
    random::fill_normal(random::key(&[10; 32], name), 1.0, &mut x);
    x
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

/// What `forward` gives moves along seeded directions of `x` as `gradient`, that of ⟨`d_y`, forward(x)⟩, says:
/// (f(x + hv) − f(x − hv)) / 2h against ⟨gradient, v⟩.
#[track_caller]
fn assert_slopes(name: &str, x: &[f32], gradient: &[f32], d_y: &[f32], forward: impl Fn(&[f32]) -> Vec<f32>) {
    assert_eq!(x.len(), gradient.len(), "{name}");
    let h = 1e-2;
    for direction in 0..4 {
        let v = normal(&format!("{name} {direction}"), x.len());
        let moved = |by: f32| -> Vec<f32> { x.iter().zip(&v).map(|(x, v)| x + by * v).collect() };
        let found = (dot(&forward(&moved(h)), d_y) - dot(&forward(&moved(-h)), d_y)) / (2.0 * f64::from(h));
        let size = dot(gradient, gradient).sqrt();
        let off = (found - dot(gradient, &v)).abs() / size;
        assert!(size > 0.0 && off < 2e-3, "{name}, direction {direction}: off by {off:e} of {size:e}");
    }
}

#[test]
fn norm_matches_finite_differences() {
    let (rows, d, arena) = (37, 24, Arena::default());
    let (x, gain, d_y) = (normal("x", rows * d), normal("gain", d), normal("d_y", rows * d));
    let forward = |x: &[f32], gain: &[f32]| {
        let (mut y, mut inverse) = (vec![9.0; rows * d], vec![0.0; rows]);
        norm::forward(x, gain, 1e-5, &mut y, &mut inverse);
        (y, inverse)
    };
    let (mut d_x, mut d_gain) = (vec![0.0; rows * d], vec![9.0; d]);
    let to = Gradient { to: &mut d_gain, accumulate: false };
    norm::backward(&x, &gain, &forward(&x, &gain).1, &d_y, &mut d_x, Some(to), &arena);
    assert_slopes("norm x", &x, &d_x, &d_y, |x| forward(x, &gain).0);
    assert_slopes("norm gain", &gain, &d_gain, &d_y, |gain| forward(&x, gain).0);
}

#[test]
fn rope_matches_finite_differences() {
    let mut model = ModelConfig::preset("micro").expect("known");
    (model.d_model, model.heads, model.kv_heads, model.sequence) = (48, 3, 3, 67);
    let rope = Rope::new(&model);
    let turned = |x: &[f32], back| {
        let mut x = x.to_vec();
        rope.apply(&mut x, 48, 3, 67, back);
        x
    };
    let (x, d_y) = (normal("x", 67 * 48), normal("d_y", 67 * 48));
    assert_slopes("rope", &x, &turned(&d_y, true), &d_y, |x| turned(x, false));
}

#[test]
fn attention_matches_finite_differences() {
    let arena = Arena::default();
    let shape = Layer { batch: 2, time: 70, heads: 4, kv_heads: 2, width: 8 };
    let (qkv, d_y) = (normal("qkv", 140 * 64), normal("d_y", 140 * 32));
    let forward = |qkv: &[f32]| {
        let (mut y, mut sums) = (vec![9.0; 140 * 32], vec![9.0; 140 * 4]);
        attention::forward(qkv, shape, &mut y, &mut sums, &arena);
        (y, sums)
    };
    let (y, sums) = forward(&qkv);
    let mut d = vec![9.0; 140 * 64];
    attention::backward(&qkv, shape, &y, &sums, &d_y, &mut d, &arena);
    assert_slopes("attention", &qkv, &d, &d_y, |qkv| forward(qkv).0);
}

#[test]
fn linear_matches_finite_differences() {
    let (rows, d, out) = (21, 16, 35);
    let (x, w, d_y) = (normal("x", rows * d), normal("w", out * d), normal("d_y", rows * out));
    let forward = |x: &[f32], w: &[f32]| {
        let mut y = vec![9.0; rows * out];
        linear::forward(
            Matrix::new(x, rows, d),
            Matrix::new(w, out, d),
            MatrixMut::new(&mut y, rows, out),
            false,
        );
        y
    };
    let (mut d_x, mut d_w) = (vec![9.0; rows * d], vec![9.0; out * d]);
    let d_rows = Matrix::new(&d_y, rows, out);
    linear::backward_input(d_rows, Matrix::new(&w, out, d), MatrixMut::new(&mut d_x, rows, d), false);
    linear::backward_weight(d_rows, Matrix::new(&x, rows, d), MatrixMut::new(&mut d_w, out, d), false);
    assert_slopes("linear x", &x, &d_x, &d_y, |x| forward(x, &w));
    assert_slopes("linear w", &w, &d_w, &d_y, |w| forward(&x, w));
}

#[test]
fn swiglu_matches_finite_differences() {
    let (rows, d, ffn, arena) = (21, 16, 150, Arena::default());
    let scaled = |name: &str, len| normal(name, len).iter().map(|x| x * 0.3).collect::<Vec<_>>();
    let (x, gate_up, down) = (scaled("x", rows * d), scaled("gate_up", 2 * ffn * d), scaled("down", d * ffn));
    let d_y = normal("d_y", rows * d);
    let forward = |x: &[f32], gate_up: &[f32], down: &[f32]| {
        let (mut hidden, mut active) = (vec![9.0; rows * 2 * ffn], vec![9.0; rows * ffn]);
        let weights = Matrix::new(gate_up, 2 * ffn, d);
        feed_forward::forward(Matrix::new(x, rows, d), weights, &mut hidden, &mut active);
        let (mut y, down) = (vec![9.0; rows * d], Matrix::new(down, d, ffn));
        linear::forward(Matrix::new(&active, rows, ffn), down, MatrixMut::new(&mut y, rows, d), false);
        (y, hidden)
    };
    let mut hidden = forward(&x, &gate_up, &down).1;
    let (mut d_x, mut d_gate_up, mut d_down) =
        (vec![9.0; rows * d], vec![9.0; 2 * ffn * d], vec![9.0; d * ffn]);
    let gradients = feed_forward::Gradients {
        gate_up: MatrixMut::new(&mut d_gate_up, 2 * ffn, d),
        down: MatrixMut::new(&mut d_down, d, ffn),
        accumulate: false,
    };
    let (x_rows, d_rows) = (Matrix::new(&x, rows, d), Matrix::new(&d_y, rows, d));
    feed_forward::backward(d_rows, x_rows, Matrix::new(&down, d, ffn), &mut hidden, Some(gradients), &arena);
    let d_hidden = Matrix::new(&hidden, rows, 2 * ffn);
    let weights = Matrix::new(&gate_up, 2 * ffn, d);
    linear::backward_input(d_hidden, weights, MatrixMut::new(&mut d_x, rows, d), false);
    assert_slopes("swiglu x", &x, &d_x, &d_y, |x| forward(x, &gate_up, &down).0);
    assert_slopes("swiglu gate and up", &gate_up, &d_gate_up, &d_y, |w| forward(&x, w, &down).0);
    assert_slopes("swiglu down", &down, &d_down, &d_y, |w| forward(&x, &gate_up, w).0);
}

#[test]
fn embedding_matches_finite_differences() {
    let tokens: Vec<u32> = (0..30).map(|i| i * i % 11).collect();
    let (table, d_y) = (normal("table", 11 * 70), normal("d_y", 30 * 70));
    let mut d = vec![9.0; 11 * 70];
    embedding::backward(&d_y, 70, &tokens, &mut d, false);
    assert_slopes("embedding", &table, &d, &d_y, |table| {
        let mut y = vec![9.0; 30 * 70];
        embedding::forward(table, 70, &tokens, &mut y, false);
        y
    });
}

#[test]
fn cross_entropy_matches_finite_differences() {
    let (rows, d, vocab, arena) = (66, 12, 90, Arena::default());
    let (x, w) = (normal("x", rows * d), normal("w", vocab * d));
    let targets: Vec<u32> = (0..rows as u32).map(|i| i * 7 % 90).collect();
    let forward = |x: &[f32], w: &[f32]| {
        loss::forward(Matrix::new(x, rows, d), Matrix::new(w, vocab, d), &targets, &arena)
    };
    let (mut d_x, mut d_w) = (vec![9.0; rows * d], vec![9.0; vocab * d]);
    let (x_rows, w_rows) = (Matrix::new(&x, rows, d), Matrix::new(&w, vocab, d));
    loss::backward(x_rows, w_rows, &targets, forward(&x, &w).1, &mut d_x, Some((&mut d_w, false)), &arena);
    assert_slopes("loss x", &x, &d_x, &[1.0], |x| vec![forward(x, &w).0]);
    assert_slopes("loss w", &w, &d_w, &[1.0], |w| vec![forward(&x, w).0]);
}
