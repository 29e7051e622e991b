//! How fast a node computes what models are made of, as it measured itself. Persisted and sent: fields never change.

use super::placement::KvCacheFormat;
use rkyv::{Archive, Deserialize, Serialize};
use std::fmt;

/// How the weights of a matrix are stored.
#[derive(
    Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default,
)]
pub enum MatrixFormat {
    #[default]
    F32,
    F16,
    Bf16,
    Q8_0,
    Q4_0,
    Q4_1,
}

/// In how many terms of 8 bits a product with quantised weights sees its inputs. Others see them as they are.
#[derive(
    Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default,
)]
pub enum InputTerms {
    /// Also with weights that are not quantised.
    #[default]
    One,
    Two,
}

/// What decides how long the products with so many weights take.
#[derive(
    Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default,
)]
pub struct ProductKind {
    pub format: MatrixFormat,
    pub inputs: InputTerms,
}

/// All products of one kind in a part of a model.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Products {
    pub kind: ProductKind,
    /// Parameters that each row is multiplied with.
    pub weights: u64,
}

/// Of a node, by all its threads together.
#[derive(Archive, Serialize, Deserialize, Clone, PartialEq, Eq, Debug, Default)]
pub struct NodeRates {
    pub products: Vec<ProductRates>,
    pub attention: Vec<AttentionRates>,
}

/// How many weights of a large matrix are multiplied in a second, by the number of rows that they are multiplied with at
/// once. With one row they are read about as fast as memory gives them; with many rows what counts is multiplying.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ProductRates {
    pub kind: ProductKind,
    pub with_1_row_per_sec: u64,
    pub with_16_rows_per_sec: u64,
    pub with_128_rows_per_sec: u64,
}

/// Multiplications of a query's or a weight's number with one of a key or value, in a second.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct AttentionRates {
    pub kv_cache: KvCacheFormat,
    /// Many rows of one sequence at once.
    pub prompt_per_sec: u64,
    /// One row of each of many sequences.
    pub decode_per_sec: u64,
}

impl MatrixFormat {
    pub const ALL: [MatrixFormat; 6] = [
        MatrixFormat::F32,
        MatrixFormat::F16,
        MatrixFormat::Bf16,
        MatrixFormat::Q8_0,
        MatrixFormat::Q4_0,
        MatrixFormat::Q4_1,
    ];
}

impl fmt::Display for MatrixFormat {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            MatrixFormat::F32 => "F32",
            MatrixFormat::F16 => "F16",
            MatrixFormat::Bf16 => "BF16",
            MatrixFormat::Q8_0 => "Q8_0",
            MatrixFormat::Q4_0 => "Q4_0",
            MatrixFormat::Q4_1 => "Q4_1",
        })
    }
}
