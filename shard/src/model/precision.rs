//! How finely each product sees its input when its weights are quantised.
//!
//! Mean error of log-probabilities of SmolLM2-135M in Q4_1 against float32, as a multiple of bfloat16's own, over the
//! prompts of `tests/goldens`:
//!
//! | inputs in two terms | error | arithmetic |
//! |---|---|---|
//! | none | 1.57 | 1 |
//! | query, key and value | 1.21 | 1.12 |
//! | attention output | 1.47 | 1.07 |
//! | gate and up | 1.36 | 1.39 |
//! | down | 1.42 | 1.20 |
//! | logits | 1.34 | 1.21 |
//! | query, key, value and down | 1.07 | 1.32 |
//! | all | 0.15 | 2 |
//!
//! The second term had a scale of its own then, and some 15 bits with the first; in eighths of the first one's step, as it is now, the
//! last but one row is the same, and the others were not taken again.
//!
//! What is bought is what removes most error for its arithmetic, up to the accuracy of bfloat16.

use kernels::InputPrecision;

pub const QUERY_KEY_VALUE: InputPrecision = InputPrecision::TwoTerms;
pub const ATTENTION_OUTPUT: InputPrecision = InputPrecision::OneTerm;
pub const GATE_UP: InputPrecision = InputPrecision::OneTerm;
pub const DOWN: InputPrecision = InputPrecision::TwoTerms;
pub const LOGITS: InputPrecision = InputPrecision::OneTerm;
