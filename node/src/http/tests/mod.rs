//! The HTTP interface over a scripted gateway.

mod answers;
mod connections;
mod edges;
mod fake;
mod logprobs;
mod refusals;
mod streams;
