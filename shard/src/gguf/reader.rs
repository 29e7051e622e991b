use super::GgufError;

/// A position in a file whose every step is checked.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Reader { bytes, at: 0 }
    }

    pub fn at(&self) -> u64 {
        self.at as u64
    }

    pub fn take(&mut self, count: u64, what: &str) -> Result<&'a [u8], GgufError> {
        let rest = &self.bytes[self.at..];
        match usize::try_from(count).ok().and_then(|count| rest.get(..count)) {
            Some(taken) => {
                self.at += taken.len();
                Ok(taken)
            }
            None => Err(GgufError::Truncated {
                what: what.to_owned(),
                from: self.at(),
                to: self.at().saturating_add(count),
                length: self.bytes.len() as u64,
            }),
        }
    }

    pub fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], GgufError> {
        let taken = self.take(N as u64, what)?;
        Ok(taken.try_into().expect("take gives what was asked for"))
    }

    pub fn u32(&mut self, what: &str) -> Result<u32, GgufError> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub fn u64(&mut self, what: &str) -> Result<u64, GgufError> {
        self.array(what).map(u64::from_le_bytes)
    }

    pub fn string(&mut self, what: &str) -> Result<&'a str, GgufError> {
        let length = self.u64(what)?;
        let at = self.at();
        let bytes = self.take(length, what)?;
        std::str::from_utf8(bytes).map_err(|_| corrupted(at, format!("{what} is no UTF-8")))
    }

    /// A number of things that take at least `bytes_min` each, so that a lying count is found before it is believed.
    pub fn count(&mut self, bytes_min: u64, what: &str) -> Result<u64, GgufError> {
        let at = self.at();
        let count = self.u64(what)?;
        let rest = self.bytes.len() as u64 - self.at();
        match count.checked_mul(bytes_min) {
            Some(bytes) if bytes <= rest => Ok(count),
            Some(_) | None => Err(corrupted(
                at,
                format!("{what} would be {count}, and only {rest} bytes follow"),
            )),
        }
    }
}

pub(super) fn corrupted(at: u64, what: String) -> GgufError {
    GgufError::Corrupted { what, at }
}
