//! Which replica: the production router against simpler ones, on recorded prompts and with late reports of load.

mod herding;
mod mooncake;
mod rival;
