//! Where a request stands in the trace of whoever sent it, by the W3C's Trace Context.

use super::spans;
use crate::random;

/// The part of a trace that one request is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Trace {
    pub trace_id: u128,
    /// The caller's span, if it sent one.
    pub caller: Option<u64>,
    /// This request's own span.
    pub root: u64,
}

tokio::task_local! {
    /// Of the request that this task handles, as with spans of logs.
    static CURRENT: Option<Trace>;
}

/// What `traceparent` says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct TraceParent {
    trace_id: u128,
    span_id: u64,
    is_sampled: bool,
}

impl Trace {
    /// `None`: nobody collects spans, or the caller has decided that this request is not to be traced. What does not
    /// read as a trace context is no context.
    pub fn begin(traceparent: Option<&str>) -> Option<Trace> {
        if !spans::are_collected() {
            return None;
        }
        match traceparent.and_then(TraceParent::parse) {
            Some(parent) if !parent.is_sampled => None,
            Some(parent) => Some(Trace {
                trace_id: parent.trace_id,
                caller: Some(parent.span_id),
                root: fresh_span_id(),
            }),
            None => Some(Trace {
                trace_id: u128::from_le_bytes(random::bytes()) | 1,
                caller: None,
                root: fresh_span_id(),
            }),
        }
    }
}

/// Runs `handling` as the handling of a request with this trace.
pub fn within<F: Future>(trace: Option<Trace>, handling: F) -> impl Future<Output = F::Output> {
    CURRENT.scope(trace, handling)
}

/// `None`: this task handles no request, or none that is traced.
pub fn current() -> Option<Trace> {
    CURRENT.try_with(|trace| *trace).ok().flatten()
}

/// Never zero, which means none.
pub fn fresh_span_id() -> u64 {
    u64::from_le_bytes(random::bytes()) | 1
}

impl TraceParent {
    /// `version-trace id-span id-flags`, lower-case hexadecimal; a later version may have more behind.
    fn parse(text: &str) -> Option<TraceParent> {
        let mut parts = text.split('-');
        let version = hexadecimal(parts.next()?, 2)?;
        let trace_id = hexadecimal(parts.next()?, 32)?;
        let span_id = u64::try_from(hexadecimal(parts.next()?, 16)?).ok()?;
        let flags = hexadecimal(parts.next()?, 2)?;
        let is_whole = version != 0 || parts.next().is_none();
        (version != 0xff && trace_id != 0 && span_id != 0 && is_whole).then_some(TraceParent {
            trace_id,
            span_id,
            is_sampled: flags & 1 == 1,
        })
    }
}

fn hexadecimal(text: &str, digits: usize) -> Option<u128> {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    (text.len() == digits && text.bytes().all(is_digit))
        .then(|| u128::from_str_radix(text, 16).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_context_is_read_strictly() {
        let parent = TraceParent::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").unwrap();
        assert_eq!(parent.trace_id, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!((parent.span_id, parent.is_sampled), (0x00f0_67aa_0ba9_02b7, true));
        let later = TraceParent::parse("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00-more");
        assert!(!later.unwrap().is_sampled);
        for bad in [
            "",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4BF92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceParent::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn without_a_collector_nothing_is_traced() {
        assert_eq!(Trace::begin(None), None);
    }
}
