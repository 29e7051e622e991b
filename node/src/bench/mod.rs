//! Measuring from outside: a load generator for any server that speaks the OpenAI API.

mod completion;
mod serve;
mod summary;

pub use serve::{BenchServeArgs, run};
