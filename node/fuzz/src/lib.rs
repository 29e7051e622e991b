//! What the targets share: the promises that they hold every input to, and the model that they speak to.

pub mod compare;
pub mod conversation;
pub mod gateway;
pub mod memory;
pub mod model;
pub mod promises;
pub mod values;
