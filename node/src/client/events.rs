//! Server-sent events, as they arrive.

use anyhow::bail;
use http_body_util::BodyExt;
use hyper::body::Incoming;

/// A line longer than this is no event of a completion.
const LINE_BYTES_MAX: usize = 1 << 20;

pub struct Events {
    body: Incoming,
    lines: Lines,
}

impl Events {
    pub fn of(body: Incoming) -> Events {
        Events {
            body,
            lines: Lines::default(),
        }
    }

    /// The data of the next event; `None` after `[DONE]` or when the stream has ended. Dropping the future loses
    /// nothing.
    ///
    /// # Errors
    /// When the connection broke or a line is too long.
    pub async fn next(&mut self) -> anyhow::Result<Option<Vec<u8>>> {
        loop {
            if let Some(data) = self.lines.data() {
                return Ok((data != b"[DONE]").then_some(data));
            }
            if self.lines.pending.len() > LINE_BYTES_MAX {
                bail!("an event of more than {LINE_BYTES_MAX} bytes");
            }
            let Some(frame) = self.body.frame().await else {
                return Ok(None);
            };
            if let Ok(data) = frame?.into_data() {
                self.lines.pending.extend_from_slice(&data);
            }
        }
    }
}

#[derive(Default)]
struct Lines {
    pending: Vec<u8>,
}

impl Lines {
    /// The next line that carries data, if it is here whole; others are dropped.
    fn data(&mut self) -> Option<Vec<u8>> {
        while let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.pending.drain(..=end).collect();
            if let Some(data) = line.strip_prefix(b"data:") {
                return Some(data.trim_ascii().to_vec());
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_lines_of_data_are_events() {
        let mut lines = Lines {
            pending: b": a comment\nid: 3\ndata: {\"a\":1}\r\n\ndata:[DONE]\ndata: half".to_vec(),
        };
        assert_eq!(lines.data().as_deref(), Some(&b"{\"a\":1}"[..]));
        assert_eq!(lines.data().as_deref(), Some(&b"[DONE]"[..]));
        assert_eq!(lines.data(), None);
        lines.pending.extend_from_slice(b" of it\n");
        assert_eq!(lines.data().as_deref(), Some(&b"half of it"[..]));
    }
}
