pub(crate) mod support;

mod address;
mod calls;
mod failure;
mod hostile;
mod joining;
mod membership;
