pub(crate) mod support;

mod calls;
mod failure;
mod hostile;
mod joining;
mod membership;
