use super::GgufError;
use super::reader::{Reader, corrupted};

/// Arrays of arrays deeper than this are refused: no model has them, and recursion must end.
const DEPTH_MAX: u32 = 4;

/// A metadata value. Borrows from the file.
#[derive(Clone, PartialEq, Debug)]
pub enum Value<'a> {
    Integer(i128),
    Float(f64),
    Bool(bool),
    String(&'a str),
    Array(Array<'a>),
}

/// The elements of an array. Numbers stay as they lie in the file until they are asked for.
#[derive(Clone, PartialEq, Debug)]
pub enum Array<'a> {
    Numbers { kind: NumberKind, bytes: &'a [u8] },
    Strings(Vec<&'a str>),
    Arrays(Vec<Array<'a>>),
}

/// How a number lies in the file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NumberKind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    U64,
    I64,
    F64,
}

enum Kind {
    Number(NumberKind),
    String,
    Array,
}

impl<'a> Value<'a> {
    pub(super) fn parse(reader: &mut Reader<'a>, key: &str) -> Result<Value<'a>, GgufError> {
        match Kind::parse(reader, key)? {
            Kind::Number(kind) => {
                let at = reader.at();
                let bytes = reader.take(kind.bytes() as u64, key)?;
                number(kind, bytes).ok_or_else(|| corrupted(at, format!("{key} is no {kind:?}")))
            }
            Kind::String => reader.string(key).map(Value::String),
            Kind::Array => Array::parse(reader, key, DEPTH_MAX).map(Value::Array),
        }
    }

    /// What it is, for messages.
    pub(super) fn describe(&self) -> &'static str {
        match self {
            Value::Integer(_) => "an integer",
            Value::Float(_) => "a float",
            Value::Bool(_) => "a bool",
            Value::String(_) => "a string",
            Value::Array(Array::Numbers { .. }) => "an array of numbers",
            Value::Array(Array::Strings(_)) => "an array of strings",
            Value::Array(Array::Arrays(_)) => "an array of arrays",
        }
    }
}

impl<'a> Array<'a> {
    fn parse(reader: &mut Reader<'a>, key: &str, depth: u32) -> Result<Array<'a>, GgufError> {
        let at = reader.at();
        if depth == 0 {
            return Err(corrupted(
                at,
                format!("{key} nests arrays more than {DEPTH_MAX} deep"),
            ));
        }
        match Kind::parse(reader, key)? {
            Kind::Number(kind) => {
                let count = reader.count(kind.bytes() as u64, key)?;
                let bytes = reader.take(count * kind.bytes() as u64, key)?;
                Ok(Array::Numbers { kind, bytes })
            }
            Kind::String => {
                let count = reader.count(8, key)?;
                (0..count)
                    .map(|_| reader.string(key))
                    .collect::<Result<_, _>>()
                    .map(Array::Strings)
            }
            Kind::Array => {
                let count = reader.count(12, key)?;
                let inner = (0..count).map(|_| Array::parse(reader, key, depth - 1));
                inner.collect::<Result<_, _>>().map(Array::Arrays)
            }
        }
    }

    /// The numbers, each as a scalar value; `None` for other arrays and for a bool that is neither 0 nor 1.
    pub(super) fn numbers(&self) -> Option<Vec<Value<'a>>> {
        match self {
            Array::Numbers { kind, bytes } => bytes
                .chunks_exact(kind.bytes())
                .map(|bytes| number(*kind, bytes))
                .collect(),
            Array::Strings(_) | Array::Arrays(_) => None,
        }
    }
}

impl NumberKind {
    pub fn bytes(self) -> usize {
        match self {
            NumberKind::U8 | NumberKind::I8 | NumberKind::Bool => 1,
            NumberKind::U16 | NumberKind::I16 => 2,
            NumberKind::U32 | NumberKind::I32 | NumberKind::F32 => 4,
            NumberKind::U64 | NumberKind::I64 | NumberKind::F64 => 8,
        }
    }
}

impl Kind {
    fn parse(reader: &mut Reader<'_>, key: &str) -> Result<Kind, GgufError> {
        let at = reader.at();
        Ok(match reader.u32(key)? {
            0 => Kind::Number(NumberKind::U8),
            1 => Kind::Number(NumberKind::I8),
            2 => Kind::Number(NumberKind::U16),
            3 => Kind::Number(NumberKind::I16),
            4 => Kind::Number(NumberKind::U32),
            5 => Kind::Number(NumberKind::I32),
            6 => Kind::Number(NumberKind::F32),
            7 => Kind::Number(NumberKind::Bool),
            8 => Kind::String,
            9 => Kind::Array,
            10 => Kind::Number(NumberKind::U64),
            11 => Kind::Number(NumberKind::I64),
            12 => Kind::Number(NumberKind::F64),
            found => {
                return Err(corrupted(
                    at,
                    format!("{key} has value type {found}, which does not exist"),
                ));
            }
        })
    }
}

/// `None` when the bytes are no value of that kind.
fn number(kind: NumberKind, bytes: &[u8]) -> Option<Value<'static>> {
    let unsigned = bytes
        .iter()
        .rev()
        .fold(0u64, |value, byte| value << 8 | u64::from(*byte));
    Some(match kind {
        NumberKind::U8 | NumberKind::U16 | NumberKind::U32 | NumberKind::U64 => {
            Value::Integer(unsigned.into())
        }
        NumberKind::I8 => Value::Integer((unsigned as i8).into()),
        NumberKind::I16 => Value::Integer((unsigned as i16).into()),
        NumberKind::I32 => Value::Integer((unsigned as i32).into()),
        NumberKind::I64 => Value::Integer((unsigned as i64).into()),
        NumberKind::F32 => Value::Float(f32::from_bits(unsigned as u32).into()),
        NumberKind::F64 => Value::Float(f64::from_bits(unsigned)),
        NumberKind::Bool if unsigned <= 1 => Value::Bool(unsigned == 1),
        NumberKind::Bool => return None,
    })
}
