//! Bytes as lower-case hexadecimal digits.

pub fn encode(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `None` where it is not exactly `N` bytes of digits.
pub fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    decode_all(text)?.try_into().ok()
}

/// `None` where it is not pairs of digits alone.
pub fn decode_all(text: &str) -> Option<Vec<u8>> {
    let is_digits = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_digits || text.len() % 2 == 1 {
        return None;
    }
    let pair = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok();
    text.as_bytes().chunks_exact(2).map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_and_bytes_are_the_same_thing() {
        assert_eq!(encode(&[0, 255, 16]), "00ff10");
        assert_eq!(decode::<3>("00ff10"), Some([0, 255, 16]));
        assert_eq!(decode::<2>("00ff10"), None);
        assert_eq!(decode::<1>("+1"), None);
        assert_eq!(decode_all("00f"), None);
        assert_eq!(decode_all(""), Some(vec![]));
    }
}
