//! Strided views of row-major matrices that can be cut into disjoint tiles, and their product.
#![expect(unsafe_code, reason = "disjoint column tiles and the calls into `gemm` need raw pointers")]

use std::marker::PhantomData;

/// Longest inner dimension that one call of `gemm` gets. Its own block is never shorter, so where partial sums end
/// depends on this constant and not on the machine's caches.
const INNER_MAX: usize = 512;

/// A read-only view: element (r, c) is `data[r · row_stride + c · column_stride]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Matrix<'a> {
    data: *const f32,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    row_stride: usize,
    column_stride: usize,
    life: PhantomData<&'a [f32]>,
}

// SAFETY: a view is a shared borrow of f32s.
unsafe impl Send for Matrix<'_> {}
// SAFETY: as above.
unsafe impl Sync for Matrix<'_> {}

impl<'a> Matrix<'a> {
    /// All of a row-major `[rows, columns]` slice.
    pub(crate) fn new(data: &'a [f32], rows: usize, columns: usize) -> Matrix<'a> {
        assert_eq!(data.len(), rows * columns, "a matrix fills its slice");
        Matrix {
            data: data.as_ptr(),
            rows,
            columns,
            row_stride: columns,
            column_stride: 1,
            life: PhantomData,
        }
    }

    /// A tile.
    pub(crate) fn tile(self, row: usize, rows: usize, column: usize, columns: usize) -> Matrix<'a> {
        assert!(row + rows <= self.rows && column + columns <= self.columns, "a tile lies inside");
        // `wrapping_add`: for an empty tile the offset may lie one past the end.
        let data = self.data.wrapping_add(row * self.row_stride + column * self.column_stride);
        Matrix { data, rows, columns, ..self }
    }

    /// Rows `row..row + rows`.
    pub(crate) fn rows(self, row: usize, rows: usize) -> Matrix<'a> {
        self.tile(row, rows, 0, self.columns)
    }

    /// Columns `column..column + columns`.
    pub(crate) fn columns(self, column: usize, columns: usize) -> Matrix<'a> {
        self.tile(0, self.rows, column, columns)
    }

    /// The transposed view.
    pub(crate) fn transposed(self) -> Matrix<'a> {
        Matrix {
            rows: self.columns,
            columns: self.rows,
            row_stride: self.column_stride,
            column_stride: self.row_stride,
            ..self
        }
    }

    /// One row of an untransposed view.
    pub(crate) fn row(&self, row: usize) -> &'a [f32] {
        assert!(row < self.rows && self.column_stride == 1, "a row of an untransposed view");
        // SAFETY: the row lies inside the borrowed slice: `new` checked the whole, `tile` every part.
        unsafe { std::slice::from_raw_parts(self.data.add(row * self.row_stride), self.columns) }
    }
}

/// A mutable view with contiguous rows; splitting gives disjoint parts.
#[derive(Debug)]
pub(crate) struct MatrixMut<'a> {
    data: *mut f32,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    row_stride: usize,
    life: PhantomData<&'a mut [f32]>,
}

// SAFETY: a view is a unique borrow of the f32s in its tile; no two views made by splitting share any.
unsafe impl Send for MatrixMut<'_> {}

impl<'a> MatrixMut<'a> {
    /// All of a row-major `[rows, columns]` slice.
    pub(crate) fn new(data: &'a mut [f32], rows: usize, columns: usize) -> MatrixMut<'a> {
        assert_eq!(data.len(), rows * columns, "a matrix fills its slice");
        MatrixMut { data: data.as_mut_ptr(), rows, columns, row_stride: columns, life: PhantomData }
    }

    /// The first `rows` rows and the rest.
    pub(crate) fn split_rows(self, rows: usize) -> (MatrixMut<'a>, MatrixMut<'a>) {
        assert!(rows <= self.rows, "a split lies inside");
        let rest = self.data.wrapping_add(rows * self.row_stride);
        let below = MatrixMut { data: rest, rows: self.rows - rows, ..self };
        (MatrixMut { rows, ..self }, below)
    }

    /// The first `columns` columns and the rest.
    pub(crate) fn split_columns(self, columns: usize) -> (MatrixMut<'a>, MatrixMut<'a>) {
        assert!(columns <= self.columns, "a split lies inside");
        let rest = self.data.wrapping_add(columns);
        let right = MatrixMut { data: rest, columns: self.columns - columns, ..self };
        (MatrixMut { columns, ..self }, right)
    }

    /// Tiles of at most `rows × columns`, row by row.
    pub(crate) fn tiles(self, rows: usize, columns: usize) -> Vec<MatrixMut<'a>> {
        self.row_tiles(rows).into_iter().flat_map(|band| band.column_tiles(columns)).collect()
    }

    /// Bands of at most `rows` rows.
    pub(crate) fn row_tiles(self, rows: usize) -> Vec<MatrixMut<'a>> {
        let mut tiles = Vec::with_capacity(self.rows.div_ceil(rows));
        let mut rest = self;
        while rest.rows > 0 {
            let (tile, below) = {
                let n = rows.min(rest.rows);
                rest.split_rows(n)
            };
            tiles.push(tile);
            rest = below;
        }
        tiles
    }

    /// Bands of at most `columns` columns.
    pub(crate) fn column_tiles(self, columns: usize) -> Vec<MatrixMut<'a>> {
        let mut tiles = Vec::with_capacity(self.columns.div_ceil(columns));
        let mut rest = self;
        while rest.columns > 0 {
            let (tile, right) = {
                let n = columns.min(rest.columns);
                rest.split_columns(n)
            };
            tiles.push(tile);
            rest = right;
        }
        tiles
    }

    /// One row.
    pub(crate) fn row(&mut self, row: usize) -> &mut [f32] {
        assert!(row < self.rows, "a row lies inside");
        // SAFETY: the row lies inside the uniquely borrowed tile: `new` checked the whole, splits every part.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(row * self.row_stride), self.columns) }
    }

    /// A shorter borrow of the same tile.
    pub(crate) fn reborrow(&mut self) -> MatrixMut<'_> {
        MatrixMut {
            data: self.data,
            rows: self.rows,
            columns: self.columns,
            row_stride: self.row_stride,
            life: PhantomData,
        }
    }

    /// The same tile, read-only.
    pub(crate) fn as_matrix(&self) -> Matrix<'_> {
        Matrix {
            data: self.data,
            rows: self.rows,
            columns: self.columns,
            row_stride: self.row_stride,
            column_stride: 1,
            life: PhantomData,
        }
    }
}

/// `out = left · right`, or `out += left · right`, on the calling thread. The inner dimension is summed in order, in
/// even parts of at most [`INNER_MAX`].
pub(crate) fn product(out: &mut MatrixMut<'_>, left: Matrix<'_>, right: Matrix<'_>, accumulate: bool) {
    let (rows, columns, inner) = (out.rows, out.columns, left.columns);
    assert!(
        left.rows == rows && right.columns == columns && right.rows == inner,
        "shapes of a product agree"
    );
    let part = inner.div_ceil(inner.div_ceil(INNER_MAX).max(1)).max(1);
    let mut start = 0;
    loop {
        let length = part.min(inner - start);
        let (left, right) = (left.columns(start, length), right.rows(start, length));
        let read = accumulate || start > 0;
        // SAFETY: all three views lie inside live borrows (checked where they are made), `out` is borrowed uniquely
        // and so overlaps neither; strides are those of the views.
        unsafe {
            gemm::gemm(
                rows,
                columns,
                length,
                out.data,
                1,
                out.row_stride as isize,
                read,
                left.data,
                left.column_stride as isize,
                left.row_stride as isize,
                right.data,
                right.column_stride as isize,
                right.row_stride as isize,
                1.0f32,
                1.0f32,
                false,
                false,
                false,
                gemm::Parallelism::None,
            );
        }
        start += length;
        if start >= inner {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random;

    fn numbers(label: &str, n: usize) -> Vec<f32> {
        let mut x = vec![0.0; n];
        random::fill_normal(random::key(&[1; 32], label), 1.0, &mut x);
        x
    }

    #[test]
    fn products_of_all_layouts_match_f64() {
        for (m, n, k) in [(1, 1, 1), (3, 5, 7), (64, 33, 513), (1, 70, 1030), (17, 1, 40), (50, 48, 2)] {
            let (a, b) = (numbers("a", m * k), numbers("b", k * n));
            for transposed in 0..4 {
                let a = if transposed & 1 == 0 {
                    Matrix::new(&a, m, k)
                } else {
                    Matrix::new(&a, k, m).transposed()
                };
                let b = if transposed & 2 == 0 {
                    Matrix::new(&b, k, n)
                } else {
                    Matrix::new(&b, n, k).transposed()
                };
                let mut out = vec![1.0; m * n];
                product(&mut MatrixMut::new(&mut out, m, n), a, b, true);
                let at = |x: Matrix<'_>, r: usize, c: usize| {
                    let t = if x.column_stride == 1 { x } else { x.transposed() };
                    f64::from(if x.column_stride == 1 { t.row(r)[c] } else { t.row(c)[r] })
                };
                for r in 0..m {
                    for c in 0..n {
                        let want = 1.0 + (0..k).map(|i| at(a, r, i) * at(b, i, c)).sum::<f64>();
                        let got = f64::from(out[r * n + c]);
                        assert!((want - got).abs() < 1e-4 * (k as f64).sqrt(), "{m} {n} {k}: {want} {got}");
                    }
                }
            }
        }
    }

    #[test]
    fn tiles_are_disjoint_and_cover() {
        let mut x = vec![0.0; 7 * 10];
        for (i, mut tile) in MatrixMut::new(&mut x, 7, 10).tiles(3, 4).into_iter().enumerate() {
            for r in 0..tile.rows {
                for v in tile.row(r) {
                    *v += 1.0 + i as f32;
                }
            }
        }
        assert_eq!(&x[..10], &[1.0, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0, 2.0, 3.0, 3.0]);
        assert_eq!(x[69], 9.0);
    }
}
