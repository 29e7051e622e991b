//! Every page of KV cache is in exactly one state, after every event. The engine asserts it about itself: a violation
//! is a bug that leaves nothing worth reporting.

use coordinator::engine::Engine;

pub fn check(engine: &Engine) {
    engine.check();
}
