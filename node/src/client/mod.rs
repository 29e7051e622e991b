//! A small client of OpenAI-compatible servers, for `cluster chat` and `cluster bench serve`.

pub mod channel;
pub mod endpoint;
pub mod events;
mod pinned;
