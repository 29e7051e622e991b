//! GGUF: metadata and tensors of a model in one file, versions 2 and 3, little-endian.
//!
//! ```text
//! "GGUF" · version u32 · tensor count u64 · metadata count u64
//! metadata: key string · type u32 · value          string: length u64 · UTF-8; array: type u32 · count u64 · elements
//! tensors:  name string · dimension count u32 · dimensions u64… · type u32 · offset u64
//! padding up to `general.alignment` (32), then the tensors' data, each at its offset from here
//! ```
//! Source: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>. The file is untrusted: every offset, size and
//! count is checked before use, nothing is allocated on a count's word alone, and no input panics.

mod error;
mod layout;
mod reader;
mod tensor;
mod value;

pub use error::GgufError;
pub use layout::Layout;
pub use tensor::Tensor;
pub use value::{Array, NumberKind, Value};

use reader::{Reader, corrupted};
use std::collections::BTreeMap;

const ALIGNMENT_DEFAULT: u64 = 32;
const ALIGNMENT_MAX: u64 = 1 << 20;

/// A parsed file. Borrows from its bytes; asking for strings copies nothing.
#[derive(Clone, PartialEq, Debug)]
pub struct Gguf<'a> {
    metadata: BTreeMap<&'a str, Value<'a>>,
    tensors: BTreeMap<&'a str, Tensor<'a>>,
    head_bytes: u64,
}

impl<'a> Gguf<'a> {
    /// Reads header, metadata and the table of tensors, and checks that all tensors lie inside the file.
    pub fn parse(bytes: &'a [u8]) -> Result<Gguf<'a>, GgufError> {
        let Table {
            mut gguf,
            data_at,
            alignment,
        } = Table::parse(bytes)?;
        gguf.locate(bytes, data_at, alignment)?;
        Ok(gguf)
    }

    /// Of the file's beginning: all but the tensors' data.
    pub fn head_bytes(&self) -> u64 {
        self.head_bytes
    }

    fn alignment(&self, at: u64) -> Result<u64, GgufError> {
        let alignment = self.u64("general.alignment")?.unwrap_or(ALIGNMENT_DEFAULT);
        if alignment.is_power_of_two() && (8..=ALIGNMENT_MAX).contains(&alignment) {
            return Ok(alignment);
        }
        Err(corrupted(
            at,
            format!("general.alignment in the metadata before is {alignment}"),
        ))
    }

    fn locate(&mut self, bytes: &'a [u8], data_at: u64, alignment: u64) -> Result<(), GgufError> {
        let data = usize::try_from(data_at)
            .ok()
            .and_then(|at| bytes.get(at..))
            .unwrap_or(&[]);
        // A file without data may end before the padding does; then no tensor fits and the message is right.
        let data_at = data_at.min(bytes.len() as u64);
        self.head_bytes = data_at;
        self.tensors
            .values_mut()
            .try_for_each(|tensor| tensor.locate(data, data_at, alignment))
    }

    pub fn tensor(&self, name: &str) -> Result<&Tensor<'a>, GgufError> {
        self.find_tensor(name).ok_or_else(|| GgufError::MissingTensor {
            tensor: name.to_owned(),
        })
    }

    pub fn find_tensor(&self, name: &str) -> Option<&Tensor<'a>> {
        self.tensors.get(name)
    }

    /// By name.
    pub fn tensors(&self) -> impl Iterator<Item = &Tensor<'a>> {
        self.tensors.values()
    }

    pub fn value(&self, key: &str) -> Option<&Value<'a>> {
        self.metadata.get(key)
    }

    /// The value of a key that must be there: `gguf.required("general.architecture", Gguf::string)`.
    pub fn required<'g, T>(
        &'g self,
        key: &str,
        get: impl Fn(&'g Self, &str) -> Result<Option<T>, GgufError>,
    ) -> Result<T, GgufError> {
        get(self, key)?.ok_or_else(|| GgufError::MissingKey { key: key.to_owned() })
    }

    /// `None`: no such key. So for all getters.
    pub fn string(&self, key: &str) -> Result<Option<&'a str>, GgufError> {
        self.typed(key, "a string", |value| match value {
            Value::String(text) => Some(*text),
            Value::Integer(_) | Value::Float(_) | Value::Bool(_) | Value::Array(_) => None,
        })
    }

    /// From an integer of any width.
    pub fn u64(&self, key: &str) -> Result<Option<u64>, GgufError> {
        self.typed(key, "a whole number up to 2^64 - 1", |value| {
            u64::try_from(integer(value)?).ok()
        })
    }

    /// From an integer of any width.
    pub fn u32(&self, key: &str) -> Result<Option<u32>, GgufError> {
        self.typed(key, "a whole number up to 2^32 - 1", |value| {
            u32::try_from(integer(value)?).ok()
        })
    }

    pub fn f32(&self, key: &str) -> Result<Option<f32>, GgufError> {
        self.typed(key, "a float", float)
    }

    pub fn bool(&self, key: &str) -> Result<Option<bool>, GgufError> {
        self.typed(key, "a bool", |value| match value {
            Value::Bool(truth) => Some(*truth),
            Value::Integer(_) | Value::Float(_) | Value::String(_) | Value::Array(_) => None,
        })
    }

    pub fn strings<'g>(&'g self, key: &str) -> Result<Option<&'g [&'a str]>, GgufError> {
        self.typed(key, "an array of strings", |value| match value {
            Value::Array(Array::Strings(texts)) => Some(texts.as_slice()),
            Value::Integer(_) | Value::Float(_) | Value::Bool(_) | Value::String(_) | Value::Array(_) => None,
        })
    }

    /// From integers of any width.
    pub fn i32s(&self, key: &str) -> Result<Option<Vec<i32>>, GgufError> {
        self.typed(key, "an array of 32-bit integers", |value| {
            numbers(value)?
                .iter()
                .map(|number| i32::try_from(integer(number)?).ok())
                .collect()
        })
    }

    pub fn f32s(&self, key: &str) -> Result<Option<Vec<f32>>, GgufError> {
        self.typed(key, "an array of floats", |value| {
            numbers(value)?.iter().map(float).collect()
        })
    }

    fn typed<'g, T>(
        &'g self,
        key: &str,
        expected: &'static str,
        get: impl Fn(&'g Value<'a>) -> Option<T>,
    ) -> Result<Option<T>, GgufError> {
        let Some(value) = self.metadata.get(key) else {
            return Ok(None);
        };
        let wrong = || GgufError::WrongKind {
            key: key.to_owned(),
            expected,
            found: value.describe(),
        };
        get(value).map(Some).ok_or_else(wrong)
    }
}

/// All but the tensors' data: a file may not be there any further.
struct Table<'a> {
    /// Its tensors have no bytes yet.
    gguf: Gguf<'a>,
    /// Where the data begins.
    data_at: u64,
    alignment: u64,
}

impl<'a> Table<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Table<'a>, GgufError> {
        let mut reader = Reader::new(bytes);
        header(&mut reader)?;
        let tensor_count = reader.count(24, "the number of tensors")?;
        let metadata_count = reader.count(13, "the number of metadata entries")?;
        let mut gguf = Gguf {
            metadata: metadata(&mut reader, metadata_count)?,
            tensors: BTreeMap::new(),
            head_bytes: 0,
        };
        let alignment = gguf.alignment(reader.at())?;
        gguf.tensors = tensors(&mut reader, tensor_count)?;
        Ok(Table {
            gguf,
            data_at: reader.at().next_multiple_of(alignment),
            alignment,
        })
    }
}

fn header(reader: &mut Reader<'_>) -> Result<(), GgufError> {
    match reader.take(4, "the header") {
        Ok(b"GGUF") => {}
        Ok(_) | Err(_) => return Err(GgufError::NotGguf),
    }
    match reader.u32("the version")? {
        2 | 3 => Ok(()),
        found => Err(GgufError::UnknownVersion { found }),
    }
}

fn metadata<'a>(reader: &mut Reader<'a>, count: u64) -> Result<BTreeMap<&'a str, Value<'a>>, GgufError> {
    let mut metadata = BTreeMap::new();
    for _ in 0..count {
        let at = reader.at();
        let key = reader.string("a metadata key")?;
        let value = Value::parse(reader, key)?;
        if metadata.insert(key, value).is_some() {
            return Err(corrupted(
                at,
                format!("metadata key {key} stands there a second time"),
            ));
        }
    }
    Ok(metadata)
}

fn tensors<'a>(reader: &mut Reader<'a>, count: u64) -> Result<BTreeMap<&'a str, Tensor<'a>>, GgufError> {
    let mut tensors = BTreeMap::new();
    for _ in 0..count {
        let at = reader.at();
        let tensor = Tensor::parse(reader)?;
        let name = tensor.name;
        if tensors.insert(name, tensor).is_some() {
            return Err(corrupted(at, format!("tensor {name} stands there a second time")));
        }
    }
    Ok(tensors)
}

fn integer(value: &Value<'_>) -> Option<i128> {
    match value {
        Value::Integer(integer) => Some(*integer),
        Value::Float(_) | Value::Bool(_) | Value::String(_) | Value::Array(_) => None,
    }
}

fn float(value: &Value<'_>) -> Option<f32> {
    match value {
        Value::Float(float) => Some(*float as f32),
        Value::Integer(_) | Value::Bool(_) | Value::String(_) | Value::Array(_) => None,
    }
}

fn numbers<'a>(value: &Value<'a>) -> Option<Vec<Value<'a>>> {
    match value {
        Value::Array(array) => array.numbers(),
        Value::Integer(_) | Value::Float(_) | Value::Bool(_) | Value::String(_) => None,
    }
}
