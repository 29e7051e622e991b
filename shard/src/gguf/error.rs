/// Why a GGUF file cannot be used: what is wrong, at which byte, and what to do about it.
#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
pub enum GgufError {
    #[error("not a GGUF file: it does not begin with \"GGUF\"; give the path of a .gguf model")]
    NotGguf,
    #[error(
        "GGUF version {found} at byte 4; versions 2 and 3 (little-endian) are read: convert the model again"
    )]
    UnknownVersion { found: u32 },
    #[error("truncated: {what} needs bytes {from}..{to}, the file has {length}: fetch it again")]
    Truncated {
        what: String,
        from: u64,
        to: u64,
        length: u64,
    },
    #[error("corrupted at byte {at}: {what}: fetch the file again")]
    Corrupted { what: String, at: u64 },
    #[error("the file has no metadata key {key}: it is no complete model; convert it again or take another")]
    MissingKey { key: String },
    #[error("metadata key {key} is {found} where {expected} is due: convert the model again or take another")]
    WrongKind {
        key: String,
        expected: &'static str,
        found: &'static str,
    },
    #[error("the file has no tensor {tensor}: it is no complete model; convert it again or take another")]
    MissingTensor { tensor: String },
    #[error(
        "tensor {tensor} is stored as {found}; F32, F16, BF16, Q8_0, Q5_0, Q4_0, Q4_1, Q4_K, Q5_K and Q6_K can be used: take another file of this model"
    )]
    UnusableFormat { tensor: String, found: String },
}
