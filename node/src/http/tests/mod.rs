//! The HTTP interface over a scripted gateway.

mod answer_shapes;
mod answers;
mod connections;
mod edges;
mod extras;
mod fake;
mod forms;
mod idempotency;
mod logprobs;
mod objects;
mod openapi;
mod reasoning;
mod refusals;
mod streams;
mod timing;
mod tools;
mod unserved;
