//! Loops over numbers, compiled once per instruction set and chosen at run time.
//!
//! Bodies use separate multiplications and additions and sums of sixteen fixed lanes, so AVX-512, AVX2, NEON and
//! scalar code give the same bits.
#![expect(unsafe_code, reason = "calling code compiled for an instruction set that was detected at run time")]

use std::sync::OnceLock;

/// Lanes of every sum, on every instruction set.
pub(crate) const LANES: usize = 16;

/// What the CPU can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InstructionSet {
    #[cfg(target_arch = "x86_64")]
    Avx512,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// What the compiler's target has: SSE2 on x86-64, NEON on aarch64.
    Baseline,
}

/// The best instruction set of this machine.
pub(crate) fn instruction_set() -> InstructionSet {
    static FOUND: OnceLock<InstructionSet> = OnceLock::new();
    *FOUND.get_or_init(|| available()[0])
}

/// All instruction sets of this machine, best first.
fn available() -> Vec<InstructionSet> {
    let mut found = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        let wide = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        if wide {
            found.push(InstructionSet::Avx512);
        }
        if is_x86_feature_detected!("avx2") {
            found.push(InstructionSet::Avx2);
        }
    }
    found.push(InstructionSet::Baseline);
    found
}

/// Compiles the body once per instruction set; the function picks one at run time.
macro_rules! multiversion {
    ($($(#[$meta:meta])* pub(crate) fn $name:ident($($arg:ident: $type:ty),* $(,)?) $(-> $out:ty)? $body:block)*) => {$(
        $(#[$meta])*
        pub(crate) fn $name($($arg: $type),*) $(-> $out)? {
            $name::on(instruction_set(), $($arg),*)
        }

        mod $name {
            use super::*;

            #[inline(always)]
            fn body($($arg: $type),*) $(-> $out)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2")]
            fn avx512($($arg: $type),*) $(-> $out)? { body($($arg),*) }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2")]
            fn avx2($($arg: $type),*) $(-> $out)? { body($($arg),*) }

            pub(super) fn on(set: InstructionSet, $($arg: $type),*) $(-> $out)? {
                match set {
                    #[cfg(target_arch = "x86_64")]
                    // SAFETY: `available` found these features on this CPU.
                    InstructionSet::Avx512 => unsafe { avx512($($arg),*) },
                    #[cfg(target_arch = "x86_64")]
                    // SAFETY: as above.
                    InstructionSet::Avx2 => unsafe { avx2($($arg),*) },
                    InstructionSet::Baseline => body($($arg),*),
                }
            }
        }
    )*};
}

/// eˣ to about 2 units in the last place; exactly 0 below −87, saturating above 88. Cephes' polynomial.
#[inline(always)]
fn exp(x: f32) -> f32 {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2²³: adding and subtracting it rounds to an integer
    let clamped = if x > 88.0 { 88.0 } else { x };
    let clamped = if clamped < -87.0 { -87.0 } else { clamped };
    let shifted = clamped * LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = clamped - n * LN_2_HIGH - n * LN_2_LOW;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_2e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 0.5;
    p = p * r * r + r + 1.0;
    // The low bits of `shifted` are n in two's complement; above them everything is shifted out.
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    if x < -87.0 { 0.0 } else { p * power }
}

#[inline(always)]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Adds sixteen lanes as a fixed tree.
#[inline(always)]
fn tree(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// Sum of `f(i)` over a row: sixteen lanes, then the tree, then what is left over, in order.
#[inline(always)]
fn sum_over(n: usize, f: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let whole = n / LANES * LANES;
    let mut i = 0;
    while i < whole {
        for (j, lane) in lanes.iter_mut().enumerate() {
            *lane += f(i + j);
        }
        i += LANES;
    }
    let mut sum = tree(lanes);
    for i in whole..n {
        sum += f(i);
    }
    sum
}

multiversion! {
    /// Rows of `x`: `out = gain · x / √(mean(x²) + eps)`; `inverse` gets the factor of each row.
    pub(crate) fn rms_norm(x: &[f32], gain: &[f32], eps: f32, out: &mut [f32], inverse: &mut [f32]) {
        let d = gain.len();
        for ((x, out), inverse) in x.chunks_exact(d).zip(out.chunks_exact_mut(d)).zip(inverse) {
            let squares = sum_over(d, |i| x[i] * x[i]);
            let factor = 1.0 / (squares / d as f32 + eps).sqrt();
            *inverse = factor;
            for i in 0..d {
                out[i] = x[i] * factor * gain[i];
            }
        }
    }

    /// The same from known factors.
    pub(crate) fn rms_norm_again(x: &[f32], gain: &[f32], inverse: &[f32], out: &mut [f32]) {
        let d = gain.len();
        for ((x, out), &factor) in x.chunks_exact(d).zip(out.chunks_exact_mut(d)).zip(inverse) {
            for i in 0..d {
                out[i] = x[i] * factor * gain[i];
            }
        }
    }

    /// Rows: `d_x += factor · (gain · d_y − x̂ · mean(x̂ · gain · d_y))`, `d_gain += d_y · x̂`, with `x̂ = x · factor`.
    pub(crate) fn rms_norm_backward(x: &[f32], gain: &[f32], inverse: &[f32], d_y: &[f32], d_x: &mut [f32], d_gain: &mut [f32]) {
        let d = gain.len();
        let d_gain = &mut d_gain[..d];
        let rows = x.chunks_exact(d).zip(d_y.chunks_exact(d)).zip(d_x.chunks_exact_mut(d));
        for (((x, d_y), d_x), &factor) in rows.zip(inverse) {
            let dot = sum_over(d, |i| x[i] * gain[i] * d_y[i]);
            let mean = dot * factor / d as f32;
            for i in 0..d {
                let unit = x[i] * factor;
                d_gain[i] += d_y[i] * unit;
                d_x[i] += factor * (gain[i] * d_y[i] - unit * mean);
            }
        }
    }

    /// `out = silu(gate) · up`.
    pub(crate) fn silu_product(gate: &[f32], up: &[f32], out: &mut [f32]) {
        let n = out.len();
        let (gate, up) = (&gate[..n], &up[..n]);
        for i in 0..n {
            out[i] = gate[i] * sigmoid(gate[i]) * up[i];
        }
    }

    /// Backward of [`silu_product`], in place: `gate` and `up` become their gradients, `d_out` becomes the product.
    pub(crate) fn silu_product_backward(gate: &mut [f32], up: &mut [f32], d_out: &mut [f32]) {
        let n = d_out.len();
        let (gate, up) = (&mut gate[..n], &mut up[..n]);
        for i in 0..n {
            let (g, u, d) = (gate[i], up[i], d_out[i]);
            let s = sigmoid(g);
            let silu = g * s;
            up[i] = d * silu;
            gate[i] = d * u * (s + silu * (1.0 - s));
            d_out[i] = silu * u;
        }
    }

    /// `out = silu(x)`.
    pub(crate) fn silu(x: &[f32], out: &mut [f32]) {
        let x = &x[..out.len()];
        for i in 0..out.len() {
            out[i] = x[i] * sigmoid(x[i]);
        }
    }

    /// `d = d · silu'(x)`.
    pub(crate) fn silu_backward(x: &[f32], d: &mut [f32]) {
        let x = &x[..d.len()];
        for i in 0..d.len() {
            let s = sigmoid(x[i]);
            d[i] *= s + x[i] * s * (1.0 - s);
        }
    }

    /// Greatest number; −∞ of none.
    pub(crate) fn maximum(x: &[f32]) -> f32 {
        let mut lanes = [f32::NEG_INFINITY; LANES];
        let (whole, rest) = x.as_chunks::<LANES>();
        for chunk in whole {
            for j in 0..LANES {
                lanes[j] = if chunk[j] > lanes[j] { chunk[j] } else { lanes[j] };
            }
        }
        lanes.iter().chain(rest).fold(f32::NEG_INFINITY, |m, &v| if v > m { v } else { m })
    }

    /// `x = e^(x · scale − shift)`; returns the sum.
    pub(crate) fn exp_sum(x: &mut [f32], scale: f32, shift: f32) -> f32 {
        let mut lanes = [0.0; LANES];
        let (whole, rest) = x.as_chunks_mut::<LANES>();
        for chunk in whole {
            for j in 0..LANES {
                chunk[j] = exp(chunk[j] * scale - shift);
                lanes[j] += chunk[j];
            }
        }
        let mut sum = tree(lanes);
        for v in rest {
            *v = exp(*v * scale - shift);
            sum += *v;
        }
        sum
    }

    /// Sum of e^(x − shift), x untouched.
    pub(crate) fn exp_sum_only(x: &[f32], shift: f32) -> f32 {
        sum_over(x.len(), |i| exp(x[i] - shift))
    }

    /// `p = p · (d_p − mean) · scale`: backward of a softmax row.
    pub(crate) fn softmax_backward(p: &mut [f32], d_p: &[f32], mean: f32, scale: f32) {
        let d_p = &d_p[..p.len()];
        for i in 0..p.len() {
            p[i] = p[i] * (d_p[i] - mean) * scale;
        }
    }

    /// `x = x · factor`.
    pub(crate) fn scale(x: &mut [f32], factor: f32) {
        for v in x {
            *v *= factor;
        }
    }

    /// `x += y`.
    pub(crate) fn add(x: &mut [f32], y: &[f32]) {
        let y = &y[..x.len()];
        for i in 0..x.len() {
            x[i] += y[i];
        }
    }

    /// Sum of x · y.
    pub(crate) fn dot(x: &[f32], y: &[f32]) -> f32 {
        let y = &y[..x.len()];
        sum_over(x.len(), |i| x[i] * y[i])
    }

    /// Sum of squares in f64: sixteen lanes, then in order.
    pub(crate) fn square_sum(x: &[f32]) -> f64 {
        let mut lanes = [0.0f64; LANES];
        let (whole, rest) = x.as_chunks::<LANES>();
        for chunk in whole {
            for j in 0..LANES {
                lanes[j] += f64::from(chunk[j]) * f64::from(chunk[j]);
            }
        }
        lanes.iter().sum::<f64>() + rest.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>()
    }

    /// Rotates pairs (x[i], x[i + n]) of one head by the angles whose cosines and sines are given.
    pub(crate) fn rotate(x: &mut [f32], cosine: &[f32], sine: &[f32]) {
        let half = cosine.len();
        let sine = &sine[..half];
        let (low, high) = x.split_at_mut(half);
        let high = &mut high[..half];
        for i in 0..half {
            let (a, b) = (low[i], high[i]);
            low[i] = a * cosine[i] - b * sine[i];
            high[i] = b * cosine[i] + a * sine[i];
        }
    }

    /// Rotates back: the transposed of [`rotate`].
    pub(crate) fn rotate_back(x: &mut [f32], cosine: &[f32], sine: &[f32]) {
        let half = cosine.len();
        let sine = &sine[..half];
        let (low, high) = x.split_at_mut(half);
        let high = &mut high[..half];
        for i in 0..half {
            let (a, b) = (low[i], high[i]);
            low[i] = a * cosine[i] + b * sine[i];
            high[i] = b * cosine[i] - a * sine[i];
        }
    }

    /// One AdamW step on a slice (Loshchilov and Hutter 2019): decay first, then the bias-corrected update.
    pub(crate) fn adamw(weights: &mut [f32], gradient: &[f32], first: &mut [f32], second: &mut [f32], step: &AdamStep) {
        let n = weights.len();
        let (gradient, first, second) = (&gradient[..n], &mut first[..n], &mut second[..n]);
        let AdamStep { scale, beta1, beta2, rate, keep, correction, epsilon } = *step;
        for i in 0..n {
            let g = gradient[i] * scale;
            let m = beta1 * first[i] + (1.0 - beta1) * g;
            let v = beta2 * second[i] + (1.0 - beta2) * g * g;
            first[i] = m;
            second[i] = v;
            weights[i] = weights[i] * keep - rate * m / (v.sqrt() * correction + epsilon);
        }
    }

    /// Momentum of Muon: `momentum = beta · momentum + g · scale`; `out` is its Nesterov look-ahead.
    pub(crate) fn nesterov(gradient: &[f32], scale: f32, beta: f32, momentum: &mut [f32], out: &mut [f32]) {
        let n = out.len();
        let (gradient, momentum) = (&gradient[..n], &mut momentum[..n]);
        for i in 0..n {
            let g = gradient[i] * scale;
            momentum[i] = beta * momentum[i] + g;
            out[i] = g + beta * momentum[i];
        }
    }

    /// `x = a · x + b · y`.
    pub(crate) fn blend(x: &mut [f32], a: f32, b: f32, y: &[f32]) {
        let y = &y[..x.len()];
        for i in 0..x.len() {
            x[i] = a * x[i] + b * y[i];
        }
    }
}

/// Constants of one AdamW step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AdamStep {
    /// Factor on the gradient sum: clip scale over micro-batches.
    pub(crate) scale: f32,
    pub(crate) beta1: f32,
    pub(crate) beta2: f32,
    /// Learning rate over the first moment's bias correction.
    pub(crate) rate: f32,
    /// 1 − learning rate × weight decay.
    pub(crate) keep: f32,
    /// 1/√(second moment's bias correction).
    pub(crate) correction: f32,
    pub(crate) epsilon: f32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random;

    #[test]
    fn exp_is_within_two_units_in_the_last_place() {
        for i in -870_000..880_000 {
            let x = i as f32 * 1e-4;
            let (want, got) = (f64::from(x).exp(), f64::from(exp(x)));
            assert!((want - got).abs() <= want * 2.4e-7, "{x}: {want} {got}");
        }
        assert_eq!(exp(-1e30), 0.0);
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(1e30).is_finite());
    }

    fn numbers(label: &str, n: usize) -> Vec<f32> {
        let mut x = vec![0.0; n];
        random::fill_normal(random::key(&[2; 32], label), 3.0, &mut x);
        x
    }

    /// Every instruction set of this machine against the baseline, bit for bit.
    #[test]
    fn all_instruction_sets_give_the_same_bits() {
        let (d, rows) = (83, 5);
        let (x, y, gain) = (numbers("x", d * rows), numbers("y", d * rows), numbers("gain", d));
        let run = |set: InstructionSet| {
            let mut out = vec![0.0; d * rows];
            let mut inverse = vec![0.0; rows];
            rms_norm::on(set, &x, &gain, 1e-5, &mut out, &mut inverse);
            let (mut d_x, mut d_gain) = (vec![0.0; d * rows], vec![0.0; d]);
            rms_norm_backward::on(set, &x, &gain, &inverse, &y, &mut d_x, &mut d_gain);
            let (mut gate, mut up, mut product) = (x.clone(), y.clone(), x.clone());
            silu_product_backward::on(set, &mut gate, &mut up, &mut product);
            let mut e = x.clone();
            let sum = exp_sum::on(set, &mut e, 0.3, 1.0);
            let (mut w, mut m, mut v) =
                (x.clone(), y.clone(), gain.repeat(rows).iter().map(|g| g * g).collect::<Vec<_>>());
            let step = AdamStep {
                scale: 0.5,
                beta1: 0.9,
                beta2: 0.95,
                rate: 0.1,
                keep: 0.99,
                correction: 1.5,
                epsilon: 1e-8,
            };
            adamw::on(set, &mut w, &y, &mut m, &mut v, &step);
            let scalars =
                vec![sum, maximum::on(set, &x), dot::on(set, &x, &y), square_sum::on(set, &x) as f32];
            [out, inverse, d_x, d_gain, gate, up, product, e, w, m, v, scalars].concat()
        };
        let bits = |x: Vec<f32>| x.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        let want = bits(run(InstructionSet::Baseline));
        for set in available() {
            assert!(bits(run(set)) == want, "{set:?}");
        }
    }
}
