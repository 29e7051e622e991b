//! The HTTP interface over a scripted gateway.
