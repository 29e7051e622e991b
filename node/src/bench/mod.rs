//! Measuring: from outside, any server that speaks the OpenAI API (`serve`); from inside, what computes
//! (`engine`) and what grammars cost (`schemas`).

mod arrivals;
mod completion;
pub mod engine;
pub mod machine;
pub mod schemas;
pub mod serve;
pub mod summary;
