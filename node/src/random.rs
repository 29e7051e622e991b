//! Randomness of the operating system.

/// # Panics
/// When the kernel has no randomness to give: no key or seed made then could be trusted.
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
    bytes
}
