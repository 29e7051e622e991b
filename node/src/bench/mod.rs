//! Measuring: from outside, any server that speaks the OpenAI API (`serve`); from inside, what computes (`engine`).

mod arrivals;
mod completion;
pub mod engine;
pub mod serve;
pub mod summary;
