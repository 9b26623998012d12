//! The bound: only the matrix products of a step's linear layers, by `gemm` alone, one call each over the whole matrices.
//!
//!     products SEQUENCE BATCH THREADS
//!
//! Speaks the line protocol of `main.rs`: a step answers with seconds and processor seconds.

use std::io::BufRead;
use std::time::Instant;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let number = |i: usize, default: usize| arguments.get(i).and_then(|a| a.parse().ok()).unwrap_or(default);
    let (sequence, batch, threads) = (number(1, 256), number(2, 4), number(3, 2));
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().expect("threads");
    let rows = batch * sequence;
    let biggest = (rows * 2752).max(512 * 2752);
    let (a, b, mut c) = (vec![0.5f32; biggest], vec![0.25f32; biggest], vec![0.0f32; biggest]);
    for line in std::io::stdin().lock().lines() {
        if line.expect("stdin") != "step" {
            break;
        }
        let (start, cpu) = (Instant::now(), cpu_seconds());
        for _ in 0..4 {
            for (out, inner) in [(1536, 512), (512, 512), (2752, 512), (512, 1376)] {
                // Forward y = x wᵀ, backward d_x = d_y w, d_w = d_yᵀ x.
                product(rows, out, inner, &mut c, &a, (inner, 1), &b, (1, inner), threads);
                product(rows, inner, out, &mut c, &a, (out, 1), &b, (inner, 1), threads);
                product(out, inner, rows, &mut c, &a, (1, out), &b, (inner, 1), threads);
            }
        }
        println!("{} {}", start.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    }
}

#[expect(clippy::too_many_arguments, reason = "three sizes and three operands")]
fn product(
    m: usize,
    n: usize,
    k: usize,
    c: &mut [f32],
    a: &[f32],
    (a_row, a_column): (usize, usize),
    b: &[f32],
    (b_row, b_column): (usize, usize),
    threads: usize,
) {
    let parallelism = if threads > 1 { gemm::Parallelism::Rayon(threads) } else { gemm::Parallelism::None };
    let last = |rows: usize, r: usize, columns: usize, c: usize| (rows - 1) * r + (columns - 1) * c;
    assert!(
        last(m, a_row, k, a_column) < a.len() && last(k, b_row, n, b_column) < b.len() && m * n <= c.len()
    );
    // SAFETY: the assertion keeps every index inside its slice.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            1,
            n as isize,
            false,
            a.as_ptr(),
            a_column as isize,
            a_row as isize,
            b.as_ptr(),
            b_column as isize,
            b_row as isize,
            0.0f32,
            1.0f32,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// Processor time of all threads, in steps of 10 ms.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}
