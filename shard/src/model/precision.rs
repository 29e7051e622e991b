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
//! The second term had a scale of its own then, and some 15 bits with the first; in eighths of the first one's step, as it is now, and with
//! attention by decision 0016, query, key, value and down have 1.04, and query, key and value 1.23. llama.cpp, with one term for all, has 1.5
//! (decision 0025).
//!
//! What is bought is what removes most error for its arithmetic.

use kernels::InputPrecision;

pub const QUERY_KEY_VALUE: InputPrecision = InputPrecision::TwoTerms;
pub const ATTENTION_OUTPUT: InputPrecision = InputPrecision::OneTerm;
pub const GATE_UP: InputPrecision = InputPrecision::OneTerm;
pub const DOWN: InputPrecision = InputPrecision::OneTerm;
pub const LOGITS: InputPrecision = InputPrecision::OneTerm;
