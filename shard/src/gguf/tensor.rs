use super::GgufError;
use super::reader::{Reader, corrupted};
use kernels::WeightFormat;
use std::ops::Range;

/// ggml has at most four dimensions.
const DIMENSIONS_MAX: u32 = 4;

/// Where a tensor lies in the file and how to read it.
#[derive(Clone, PartialEq, Debug)]
pub struct Tensor<'a> {
    pub name: &'a str,
    /// Fastest first: `[inputs, outputs]` for a matrix.
    pub dimensions: Vec<usize>,
    /// Numbered as ggml does.
    pub(super) kind: u32,
    /// Relative to the data section.
    pub(super) offset: u64,
    /// Where its bytes begin in the file.
    at: u64,
    pub(super) bytes: &'a [u8],
}

/// ggml's types: number, name, weights per block, bytes per block.
const KINDS: [(u32, &str, u64, u64); 31] = [
    (0, "F32", 1, 4),
    (1, "F16", 1, 2),
    (2, "Q4_0", 32, 18),
    (3, "Q4_1", 32, 20),
    (6, "Q5_0", 32, 22),
    (7, "Q5_1", 32, 24),
    (8, "Q8_0", 32, 34),
    (9, "Q8_1", 32, 36),
    (10, "Q2_K", 256, 84),
    (11, "Q3_K", 256, 110),
    (12, "Q4_K", 256, 144),
    (13, "Q5_K", 256, 176),
    (14, "Q6_K", 256, 210),
    (15, "Q8_K", 256, 292),
    (16, "IQ2_XXS", 256, 66),
    (17, "IQ2_XS", 256, 74),
    (18, "IQ3_XXS", 256, 98),
    (19, "IQ1_S", 256, 50),
    (20, "IQ4_NL", 32, 18),
    (21, "IQ3_S", 256, 110),
    (22, "IQ2_S", 256, 82),
    (23, "IQ4_XS", 256, 136),
    (24, "I8", 1, 1),
    (25, "I16", 1, 2),
    (26, "I32", 1, 4),
    (27, "I64", 1, 8),
    (28, "F64", 1, 8),
    (29, "IQ1_M", 256, 56),
    (30, "BF16", 1, 2),
    (34, "TQ1_0", 256, 54),
    (39, "MXFP4", 32, 17),
];

impl<'a> Tensor<'a> {
    /// The entry in the file's table; its bytes are found later, when it is known where the data begins.
    pub(super) fn parse(reader: &mut Reader<'a>) -> Result<Tensor<'a>, GgufError> {
        let name = reader.string("a tensor's name")?;
        let at = reader.at();
        let count = reader.u32(name)?;
        if count > DIMENSIONS_MAX {
            return Err(corrupted(at, format!("tensor {name} has {count} dimensions")));
        }
        let dimensions = (0..count)
            .map(|_| dimension(reader, name))
            .collect::<Result<_, _>>()?;
        let kind = reader.u32(name)?;
        let offset = reader.u64(name)?;
        Ok(Tensor {
            name,
            dimensions,
            kind,
            offset,
            at: 0,
            bytes: &[],
        })
    }

    /// `data` is the file from the data section on, which begins at byte `data_at`.
    pub(super) fn locate(&mut self, data: &'a [u8], data_at: u64, alignment: u64) -> Result<(), GgufError> {
        let at = data_at.saturating_add(self.offset);
        if !self.offset.is_multiple_of(alignment) {
            let what = format!(
                "tensor {} begins there, which is no multiple of {alignment}",
                self.name
            );
            return Err(corrupted(at, what));
        }
        let size = self.size().ok_or_else(|| corrupted(at, self.describe_size()))?;
        let bytes = usize::try_from(self.offset)
            .ok()
            .and_then(|from| data.get(from..));
        match bytes.and_then(|bytes| bytes.get(..usize::try_from(size).ok()?)) {
            Some(bytes) => {
                (self.at, self.bytes) = (at, bytes);
                Ok(())
            }
            None => Err(GgufError::Truncated {
                what: format!("tensor {}", self.name),
                from: at,
                to: at.saturating_add(size),
                length: data_at + data.len() as u64,
            }),
        }
    }

    /// Bytes in the file; 0 for a type that this table does not know. `None`: no whole number of blocks, or too many.
    pub(super) fn size(&self) -> Option<u64> {
        let Some((_, _, block, block_bytes)) = KINDS.iter().find(|kind| kind.0 == self.kind) else {
            return Some(0);
        };
        let columns = self.dimensions.first().map_or(1, |&columns| columns as u64);
        let count = self
            .dimensions
            .iter()
            .try_fold(1u64, |count, &n| count.checked_mul(n as u64))?;
        if !columns.is_multiple_of(*block) {
            return None;
        }
        (count / block).checked_mul(*block_bytes)
    }

    pub(super) fn describe_size(&self) -> String {
        format!(
            "tensor {} of {:?} weights cannot be {}",
            self.name,
            self.dimensions,
            self.kind_name()
        )
    }

    /// ggml's name of the type, for messages.
    pub fn kind_name(&self) -> String {
        let known = KINDS.iter().find(|kind| kind.0 == self.kind);
        known.map_or_else(|| format!("type {}", self.kind), |kind| kind.1.to_owned())
    }

    pub fn format(&self) -> Result<WeightFormat, GgufError> {
        match self.kind {
            0 => Ok(WeightFormat::F32),
            1 => Ok(WeightFormat::F16),
            2 => Ok(WeightFormat::Q4_0),
            3 => Ok(WeightFormat::Q4_1),
            6 => Ok(WeightFormat::Q5_0),
            8 => Ok(WeightFormat::Q8_0),
            12 => Ok(WeightFormat::Q4K),
            13 => Ok(WeightFormat::Q5K),
            14 => Ok(WeightFormat::Q6K),
            30 => Ok(WeightFormat::Bf16),
            _ => Err(GgufError::UnusableFormat {
                tensor: self.name.to_owned(),
                found: self.kind_name(),
            }),
        }
    }

    /// As stored. Empty for a type of unknown size, which [`Tensor::format`] refuses.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Bytes that it takes once packed, about: as many as in the file, unless it lies in another form from then on.
    pub fn packed_bytes(&self) -> u64 {
        let stored = self.bytes.len() as u64;
        match self.format() {
            Ok(format) => {
                let weights = stored / format.block_bytes() as u64 * format.block() as u64;
                let packed = usize::try_from(weights).ok();
                let packed = packed.and_then(|weights| format.packed_row_bytes(weights));
                packed.map_or(stored, |bytes| bytes as u64)
            }
            Err(_) => stored,
        }
    }

    /// Where [`Tensor::bytes`] lie in the file.
    pub fn place(&self) -> Range<u64> {
        self.at..self.at + self.bytes.len() as u64
    }

    /// A vector in one of the float formats, widened exactly.
    pub fn floats(&self) -> Result<Vec<f32>, GgufError> {
        let wide = |bytes: &[u8]| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        let half = |bytes: &[u8]| u16::from_le_bytes([bytes[0], bytes[1]]);
        match self.format()? {
            WeightFormat::F32 => Ok(self.bytes.chunks_exact(4).map(wide).collect()),
            WeightFormat::F16 => Ok(self
                .bytes
                .chunks_exact(2)
                .map(|bytes| f32_of_f16(half(bytes)))
                .collect()),
            WeightFormat::Bf16 => {
                let widen = |bytes: &[u8]| f32::from_bits(u32::from(half(bytes)) << 16);
                Ok(self.bytes.chunks_exact(2).map(widen).collect())
            }
            WeightFormat::Q8_0
            | WeightFormat::Q4_0
            | WeightFormat::Q4_1
            | WeightFormat::Q5_0
            | WeightFormat::Q4K
            | WeightFormat::Q5K
            | WeightFormat::Q6K => Err(GgufError::UnusableFormat {
                tensor: self.name.to_owned(),
                found: format!("{}, a format for matrices", self.kind_name()),
            }),
        }
    }
}

fn dimension(reader: &mut Reader<'_>, name: &str) -> Result<usize, GgufError> {
    let at = reader.at();
    let size = reader.u64(name)?;
    match usize::try_from(size) {
        Ok(size) if size > 0 && size <= isize::MAX as usize => Ok(size),
        Ok(_) | Err(_) => Err(corrupted(at, format!("tensor {name} has a dimension of {size}"))),
    }
}

fn f32_of_f16(bits: u16) -> f32 {
    let sign = if bits >> 15 == 0 { 1.0 } else { -1.0 };
    let fraction = f32::from(bits & 0x3ff);
    match bits >> 10 & 0x1f {
        0 => sign * fraction * 2f32.powi(-24),
        31 if fraction == 0.0 => sign * f32::INFINITY,
        31 => f32::NAN,
        exponent => sign * (1.0 + fraction / 1024.0) * 2f32.powi(i32::from(exponent) - 15),
    }
}
