//! The shared orthogonal basis: principal directions of earlier rows, in integers.

use crate::bytes::Reader;
use crate::entropy::range::{Decoder, Encoder};
use crate::entropy::weights::WeightModel;
use crate::error::CodecError;
use crate::header::CodecId;
use crate::limits::MAX_BASIS_COLUMNS;
use crate::linalg::Symmetric;
use crate::tensor::TensorRef;

/// Bytes that start every basis: a name and a version.
const MAGIC: [u8; 4] = *b"SBS1";
/// Fraction bits of the basis.
pub(crate) const FRACTION_BITS: u32 = 13;
/// Share of the earlier rows' energy that components may leave out.
const LEFT_OUT: f64 = 2e-6;
/// Share of it that is added to every direction before: rows of the next tensor differ.
const FLOOR: f64 = 1e-7;

/// An orthogonal basis of rows (Karhunen–Loève), both ends hold it.
///
/// Learn one from earlier tensors of a wire with [`Basis::learn`], send [`Basis::to_bytes`] once, name it by
/// [`Basis::id`].
#[derive(Clone, Debug, PartialEq)]
pub struct Basis {
    columns: usize,
    components: usize,
    /// For each column, pairs of its entries in consecutive components.
    by_column: Vec<[i16; 2]>,
    /// For each component, pairs of its entries in consecutive columns.
    by_component: Vec<[i16; 2]>,
    id: u64,
    bytes: Vec<u8>,
}

impl Basis {
    /// Learns from earlier float tensors of the same wire, with rows of the same length.
    ///
    /// Time grows with rows × columns² and columns³. The result depends on the machine's arithmetic in its last bits,
    /// so learn at one end and send it to the other.
    ///
    /// # Errors
    /// No tensors, integers, differing row lengths, values that are not finite, more than [`MAX_BASIS_COLUMNS`]
    /// columns.
    pub fn learn(tensors: &[TensorRef<'_>]) -> Result<Self, CodecError> {
        let range = "one or more finite float tensors with rows of the same length, at most 2048";
        let bad = CodecError::OutOfRange { what: "tensors to learn from", range };
        let columns = tensors.first().map_or(0, |t| t.rows_cols().1);
        if !(1..=MAX_BASIS_COLUMNS).contains(&columns) || !tensors.iter().all(|t| t.rows_cols().1 == columns)
        {
            return Err(bad);
        }
        let mut sum: Option<Symmetric> = None;
        for tensor in tensors {
            let mut values = super::values::finite_values(*tensor).ok_or(bad.clone())?;
            let most = values.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
            if most == 0.0 {
                continue;
            }
            // Tensors count alike whatever their scale, and their squares stay in range.
            let power = values.iter().map(|&v| f64::from(v / most) * f64::from(v / most)).sum::<f64>();
            let scale = ((values.len() as f64 / power).sqrt() / f64::from(most)) as f32;
            for v in values.iter_mut() {
                *v *= scale;
            }
            let rows: Vec<&[f32]> = values.chunks_exact(columns).collect();
            let part = Symmetric::of(&rows, columns);
            match &mut sum {
                Some(sum) => sum.add(&part),
                None => sum = Some(part),
            }
        }
        let (energies, vectors) = sum.ok_or(bad)?.eigen();
        let total: f64 = energies.iter().map(|e| e.max(0.0)).sum::<f64>() * (1.0 + FLOOR);
        let mut left = total;
        let mut components = 0;
        while components < columns && left > LEFT_OUT * total {
            left -= energies[components].max(0.0);
            components += 1;
        }
        // Where most directions count, rows yet to come have something in the others too.
        if 4 * components > 3 * columns {
            components = columns;
        }
        let unit = f64::from(1_u32 << FRACTION_BITS);
        let entries: Vec<i16> =
            vectors[..components * columns].iter().map(|v| (v * unit).round() as i16).collect();
        let mut body = Encoder::new();
        let mut model = WeightModel::new();
        for component in entries.chunks_exact(columns) {
            model.begin();
            for &e in component {
                model.write(&mut body, e);
            }
        }
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&(columns as u32).to_le_bytes());
        bytes.extend_from_slice(&(components as u32).to_le_bytes());
        body.finish(&mut bytes);
        Ok(Self::pack(columns, &entries, bytes))
    }

    fn pack(columns: usize, entries: &[i16], bytes: Vec<u8>) -> Self {
        let components = entries.len() / columns;
        let at = |c: usize, j: usize| entries.get(c * columns + j).copied().unwrap_or(0);
        let mut by_column = Vec::with_capacity(columns * components.div_ceil(2));
        for j in 0..columns {
            by_column.extend((0..components).step_by(2).map(|c| {
                let second = if c + 1 < components { at(c + 1, j) } else { 0 };
                [at(c, j), second]
            }));
        }
        let mut by_component = Vec::with_capacity(components * columns.div_ceil(2));
        for c in 0..components {
            by_component.extend((0..columns).step_by(2).map(|j| {
                let second = if j + 1 < columns { at(c, j + 1) } else { 0 };
                [at(c, j), second]
            }));
        }
        let id = twox_hash::XxHash3_64::oneshot(&bytes);
        Self { columns, components, by_column, by_component, id, bytes }
    }

    /// The basis as it is sent, once.
    pub fn to_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Reads what [`Basis::to_bytes`] gave.
    ///
    /// # Errors
    /// Anything but a basis of at most [`MAX_BASIS_COLUMNS`] columns.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(CodecId::Klt, bytes);
        if reader.take(4)? != MAGIC {
            return Err(reader.malformed("not a basis"));
        }
        let columns = reader.u32()? as usize;
        let components = reader.u32()? as usize;
        if !(1..=MAX_BASIS_COLUMNS).contains(&columns) || components > columns {
            return Err(reader.malformed("number of columns or components is out of range"));
        }
        let mut body = Decoder::new(&mut reader)?;
        reader.end()?;
        let mut model = WeightModel::new();
        let mut entries = Vec::new();
        for _ in 0..components {
            // A component of unit length cannot be coded in nothing, so a short input stops early.
            if body.is_past_end() {
                return Err(reader.malformed("basis is cut short"));
            }
            model.begin();
            entries.extend(
                (0..columns).map(|_| model.read(&mut body).clamp(-(1 << FRACTION_BITS), 1 << FRACTION_BITS)),
            );
        }
        Ok(Self::pack(columns, &entries, bytes.to_vec()))
    }

    /// Hash of the basis's bytes: what payloads name it by.
    pub const fn id(&self) -> u64 {
        self.id
    }

    /// Columns of the tensors that it serves.
    pub const fn columns(&self) -> usize {
        self.columns
    }

    /// Number of directions that are kept.
    pub const fn components(&self) -> usize {
        self.components
    }

    pub(crate) fn column(&self, j: usize) -> &[[i16; 2]] {
        let pairs = self.components.div_ceil(2);
        &self.by_column[j * pairs..(j + 1) * pairs]
    }

    pub(crate) fn component(&self, c: usize) -> &[[i16; 2]] {
        let pairs = self.columns.div_ceil(2);
        &self.by_component[c * pairs..(c + 1) * pairs]
    }
}
