//! The step-cost model: one fit, used by engine, router and simulator.
