//! Requests that were recorded: a line of text for each.

use crate::scenario::ScenarioError;

/// One recorded request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TraceRow {
    pub at_ms: u64,
    pub prompt_tokens: u32,
    pub output_tokens: u32,
    /// The prompt's blocks, the last one perhaps not full. Equal numbers mean the same tokens after the same tokens.
    pub blocks: Vec<u32>,
}

/// A trace: `milliseconds prompt output blocks` in each line, blocks as in `0-12,57`; lines that begin with `#` are remarks.
pub(crate) fn rows(file: &str, text: &str) -> Result<Vec<TraceRow>, ScenarioError> {
    let lines = text.lines().enumerate();
    lines
        .filter(|(_, line)| !line.starts_with('#'))
        .map(|(index, line)| {
            row(line).ok_or_else(|| ScenarioError::Trace {
                file: file.to_owned(),
                line: index + 1,
                what: "it must be `milliseconds prompt_tokens output_tokens blocks`, blocks as in `0-12,57`",
            })
        })
        .collect()
}

fn row(line: &str) -> Option<TraceRow> {
    let mut words = line.split_ascii_whitespace();
    let row = TraceRow {
        at_ms: words.next()?.parse().ok()?,
        prompt_tokens: words.next()?.parse().ok()?,
        output_tokens: words.next()?.parse().ok()?,
        blocks: blocks(words.next()?)?,
    };
    words.next().is_none().then_some(row)
}

/// A prompt has no more blocks than this, or a damaged line could fill the memory.
const BLOCKS_MAX: usize = 1 << 16;

fn blocks(text: &str) -> Option<Vec<u32>> {
    let mut blocks = Vec::new();
    for run in text.split(',') {
        let (first, last) = run.split_once('-').unwrap_or((run, run));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        let room = BLOCKS_MAX - blocks.len();
        if first > last || (last - first) as usize >= room {
            return None;
        }
        blocks.extend(first..=last);
    }
    Some(blocks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_request_and_a_remark_is_none() {
        let expected = TraceRow {
            at_ms: 40,
            prompt_tokens: 2100,
            output_tokens: 3,
            blocks: vec![0, 1, 2, 7, 9],
        };
        assert_eq!(rows("t", "# remark\n40 2100 3 0-2,7,9\n").unwrap(), [expected]);
    }

    #[test]
    fn a_damaged_line_is_named() {
        for line in [
            "",
            "1 2 3",
            "1 2 3 4 5",
            "1 2 3 4-",
            "1 2 3 9-4",
            "1 2 3 0-4000000000",
            "a 2 3 4",
        ] {
            let message = rows("t", &format!("0 1 1 0\n{line}\n1 1 1 1"))
                .unwrap_err()
                .to_string();
            assert!(
                message.starts_with("the trace t, line 2: it must be"),
                "{line}: {message}"
            );
        }
    }
}
