//! Grammars: from what a client asks for to the tokens that may come next.
//!
//! A grammar is compiled twice by the same rules: in the node, so that a bad one is refused before it is admitted, and in
//! the shard host, beside the step loop. Fuel bounds both, and it is counted in work, not in time, so a grammar that
//! was taken once is always taken.
//!
//! * [`vocabulary`]: the model's tokens as a tree of bytes.
//! * [`schema`]: what of JSON schema is taken; [`pattern`], [`formats`], [`number`], [`literal`], [`negation`],
//!   [`exclusive`], [`spacing`] and [`cost`] are its parts, [`mod@unimplemented`] says where stands what is refused.
//! * [`lexeme`]: regexes and choices; [`ascii`] says what `\d` and `\w` are in them and in the regexes of Lark, which
//!   [`lark_regex`] finds. [`classes`] and [`nesting`] bound what llguidance takes from any language, and
//!   [`end_tokens`] keeps the end of an answer out of it.
//! * [`compiler`]: from a grammar to a [`follower::Follower`] at its start; [`complexity`] says what was too much for it, and
//!   [`cache`] keeps those.
//! * [`masks`]: threads that compute masks beside the forward pass; [`stream`] is what a rank sees of it.
//! * [`workshop`]: a bounded queue and a thread of the lowest priority, for compiling.
//! * [`checker`]: the node's side.

pub mod ascii;
pub mod bounds;
pub mod cache;
pub mod checker;
pub mod classes;
pub mod compiler;
pub mod complexity;
pub mod cost;
pub mod end_tokens;
pub mod exclusive;
pub mod follower;
pub mod formats;
pub mod lark_regex;
pub mod lexeme;
pub mod literal;
pub mod masks;
pub mod names;
pub mod negation;
pub mod nesting;
pub mod number;
pub mod pattern;
pub mod schema;
pub mod spacing;
pub mod stream;
#[cfg(test)]
pub mod tests;
pub mod unimplemented;
pub mod vocabulary;
pub mod workshop;

/// Deep grammars recurse while they are compiled and followed; the pages are taken only when they are used.
const STACK_BYTES: usize = 256 << 20;
