//! The actors that run deciders, and the worlds in which their actions happen.

pub mod board;
pub mod gateway;
pub mod machine;
pub mod router;
pub mod streams;
