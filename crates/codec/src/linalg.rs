//! Small dense linear algebra for what is learned: covariance and symmetric eigenvectors.

use crate::simd::Level;

/// A symmetric matrix of sums of products, with how many rows it sums.
#[derive(Clone, Debug)]
pub(crate) struct Symmetric {
    pub(crate) n: usize,
    pub(crate) rows: f64,
    /// Full square, row-major; only the lower triangle is kept.
    pub(crate) sums: Vec<f64>,
}

impl Symmetric {
    /// Sums x xᵀ over rows of length `n`.
    pub(crate) fn of(rows: &[&[f32]], n: usize) -> Self {
        let mut sums = vec![0.0_f64; n * n];
        let level = Level::detect();
        // Partial sums of 64 rows in f32 lose no more than a few of their last bits.
        for part in rows.chunks(64) {
            for (a, sums) in sums.chunks_exact_mut(n).enumerate() {
                let mut row_sums = vec![0.0_f32; a + 1];
                level.run(
                    #[inline(always)]
                    || {
                        for row in part {
                            let x = row[a];
                            for (s, &y) in row_sums.iter_mut().zip(*row) {
                                *s += x * y;
                            }
                        }
                    },
                );
                for (s, &r) in sums.iter_mut().zip(&row_sums) {
                    *s += f64::from(r);
                }
            }
        }
        Self { n, rows: rows.len() as f64, sums }
    }

    /// The sum over no rows.
    pub(crate) fn none(n: usize) -> Self {
        Self { n, rows: 0.0, sums: vec![0.0; n * n] }
    }

    /// Counts all rows so far `share` times.
    pub(crate) fn scale(&mut self, share: f64) {
        self.rows *= share;
        self.sums.iter_mut().for_each(|s| *s *= share);
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.rows += other.rows;
        for (s, o) in self.sums.iter_mut().zip(&other.sums) {
            *s += o;
        }
    }

    /// Covariance of columns `a` and `b`.
    pub(crate) fn at(&self, a: usize, b: usize) -> f64 {
        let (a, b) = if a >= b { (a, b) } else { (b, a) };
        self.sums[a * self.n + b] / self.rows.max(1.0)
    }

    /// Eigenvalues, largest first, and their eigenvectors, one a row.
    ///
    /// Householder reduction to a tridiagonal matrix, then the QL algorithm with implicit shifts (Bowdler, Martin,
    /// Reinsch, Wilkinson, "The QR and QL algorithms for symmetric matrices", 1968: `tred2` and `tql2`).
    pub(crate) fn eigen(&self) -> (Vec<f64>, Vec<f64>) {
        let n = self.n;
        let mut v: Vec<f64> = (0..n * n).map(|i| self.at(i / n, i % n)).collect();
        let (mut d, mut e) = tridiagonalize(&mut v, n);
        diagonalize(&mut v, &mut d, &mut e);
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by(|&a, &b| d[b].total_cmp(&d[a]));
        let values = order.iter().map(|&i| d[i]).collect();
        let vectors = order.iter().flat_map(|&i| v[i * n..(i + 1) * n].iter().copied()).collect();
        (values, vectors)
    }
}

/// Turns `v`, symmetric, into the transposed transformation to tridiagonal form (row i holds the i-th basis vector) and
/// returns diagonal and subdiagonal, the latter shifted by one.
fn tridiagonalize(v: &mut Vec<f64>, n: usize) -> (Vec<f64>, Vec<f64>) {
    let mut a = std::mem::take(v);
    let mut d = vec![0.0; n];
    let mut e = vec![0.0; n];
    let mut reflectors: Vec<(Vec<f64>, f64)> = Vec::with_capacity(n);
    // Eliminate row i left of its subdiagonal, from the last row up; a keeps the leading block.
    for i in (1..n).rev() {
        let row: Vec<f64> = a[i * n..i * n + i].to_vec();
        let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt();
        d[i] = a[i * n + i];
        let mut u = row;
        let alpha = if u[i - 1] > 0.0 { -norm } else { norm };
        e[i] = alpha;
        u[i - 1] -= alpha;
        let h = 0.5 * u.iter().map(|x| x * x).sum::<f64>();
        if h > 0.0 {
            // p = A u / h, q = p − (uᵀp / 2h) u, A ← A − u qᵀ − q uᵀ.
            let mut p = vec![0.0; i];
            for (r, p) in p.iter_mut().enumerate() {
                *p = a[r * n..r * n + i].iter().zip(&u).map(|(x, y)| x * y).sum::<f64>() / h;
            }
            let k = p.iter().zip(&u).map(|(x, y)| x * y).sum::<f64>() / (2.0 * h);
            for (p, u) in p.iter_mut().zip(&u) {
                *p -= k * u;
            }
            for r in 0..i {
                let (ur, qr) = (u[r], p[r]);
                for ((x, &uc), &qc) in a[r * n..r * n + i].iter_mut().zip(&u).zip(&p) {
                    *x -= ur * qc + qr * uc;
                }
            }
        }
        reflectors.push((u, h));
    }
    if n > 0 {
        d[0] = a[0];
    }
    // The product of the reflectors, applied to unit vectors: columns of Q, kept as rows.
    let mut q = vec![0.0; n * n];
    for i in 0..n {
        q[i * n + i] = 1.0;
    }
    for (u, h) in reflectors.iter().rev().filter(|(_, h)| *h > 0.0) {
        for column in q.chunks_exact_mut(n) {
            let dot = column.iter().zip(u).map(|(x, y)| x * y).sum::<f64>() / h;
            for (x, &y) in column.iter_mut().zip(u) {
                *x -= dot * y;
            }
        }
    }
    *v = q;
    (d, e)
}

/// QL with implicit shifts; `v` has one vector a row, `e[i]` couples i − 1 and i.
fn diagonalize(v: &mut [f64], d: &mut [f64], e: &mut [f64]) {
    /// More sweeps than any matrix of doubles needs; a cap, so that NaN cannot loop for ever.
    const SWEEPS: usize = 60;
    let n = d.len();
    e.rotate_left(1.min(n));
    if n > 0 {
        e[n - 1] = 0.0;
    }
    for l in 0..n {
        for _ in 0..SWEEPS {
            let small = |m: usize| e[m].abs() <= f64::EPSILON * (d[m].abs() + d[m + 1].abs());
            let m = (l..n - 1).find(|&m| small(m)).unwrap_or(n - 1);
            if m == l {
                break;
            }
            let mut g = (d[l + 1] - d[l]) / (2.0 * e[l]);
            let r = g.hypot(1.0);
            g = d[m] - d[l] + e[l] / (g + r.copysign(g));
            let (mut s, mut c, mut p) = (1.0, 1.0, 0.0);
            let mut early = false;
            for i in (l..m).rev() {
                let (f, b) = (s * e[i], c * e[i]);
                let r = f.hypot(g);
                e[i + 1] = r;
                if r == 0.0 {
                    d[i + 1] -= p;
                    e[m] = 0.0;
                    early = true;
                    break;
                }
                (s, c) = (f / r, g / r);
                g = d[i + 1] - p;
                let t = (d[i] - g) * s + 2.0 * c * b;
                p = s * t;
                d[i + 1] = g + p;
                g = c * t - b;
                let (low, high) = v.split_at_mut((i + 1) * n);
                for (x, y) in low[i * n..].iter_mut().zip(&mut high[..n]) {
                    let f = *y;
                    *y = s * *x + c * f;
                    *x = c * *x - s * f;
                }
            }
            if !early {
                d[l] -= p;
                e[l] = g;
                e[m] = 0.0;
            }
        }
    }
}

/// Makes the rows of `vectors`, each of length `n`, orthonormal, in order; a row that the others span becomes zero.
pub(crate) fn orthonormalize(vectors: &mut [f32], n: usize) {
    for i in 0..vectors.len() / n {
        let (before, rest) = vectors.split_at_mut(i * n);
        let row = &mut rest[..n];
        let norm_of = |row: &[f32]| row.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>().sqrt();
        let whole = norm_of(row);
        // Twice is enough (W. Kahan, in Parlett, "The Symmetric Eigenvalue Problem", §6.9).
        for _ in 0..2 {
            for other in before.chunks_exact(n) {
                let dot: f64 = other.iter().zip(&*row).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
                for (x, &o) in row.iter_mut().zip(other) {
                    *x -= (dot * f64::from(o)) as f32;
                }
            }
        }
        let norm = norm_of(row);
        let inverse = if norm > 1e-6 * whole && norm.is_normal() { (1.0 / norm) as f32 } else { 0.0 };
        for x in row.iter_mut() {
            *x *= inverse;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eigenvectors_diagonalize() {
        let n = 23;
        let mut state = 5_u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        let rows: Vec<Vec<f32>> = (0..40).map(|_| (0..n).map(|_| next()).collect()).collect();
        let rows: Vec<&[f32]> = rows.iter().map(Vec::as_slice).collect();
        let m = Symmetric::of(&rows, n);
        let (values, vectors) = m.eigen();
        assert!(values.is_sorted_by(|a, b| a >= b));
        for i in 0..n {
            for j in 0..n {
                let (a, b) = (&vectors[i * n..][..n], &vectors[j * n..][..n]);
                let dot: f64 = a.iter().zip(b).map(|(x, y)| x * y).sum();
                assert!((dot - f64::from(u8::from(i == j))).abs() < 1e-9);
            }
            let a = &vectors[i * n..][..n];
            for r in 0..n {
                let product: f64 = (0..n).map(|k| m.at(r, k) * a[k]).sum();
                assert!((product - values[i] * a[r]).abs() < 1e-9, "{i} {r}");
            }
        }
    }
}
