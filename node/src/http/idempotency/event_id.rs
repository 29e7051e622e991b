//! The place of an event in a stream: `REQUEST:CHOICE:POSITION`.

use crate::http::error::ApiError;
use axum::http::{HeaderMap, HeaderName};
use proto::{Position, RequestId};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const REQUEST_DIGITS: usize = 32;

/// Of choice 0, the only one of a stream that can be resumed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EventId {
    pub request: RequestId,
    pub position: Position,
}

/// The last event that the client has seen. `None`: it asks for the whole answer.
pub fn last_event(headers: &HeaderMap) -> Result<Option<EventId>, ApiError> {
    let Some(given) = headers.get(LAST_EVENT_ID) else {
        return Ok(None);
    };
    match given.to_str().ok().and_then(read) {
        Some((event, 0)) => Ok(Some(event)),
        Some((_, _other_choice)) => Err(one_stream_only()),
        None => Err(refused(
            "`Last-Event-ID` must be the `id` of an event of the stream: REQUEST:CHOICE:POSITION",
        )),
    }
}

/// With the choice that it is of.
pub fn read(id: &str) -> Option<(EventId, u32)> {
    let mut parts = id.split(':');
    let (request, choice, position) = (parts.next()?, parts.next()?, parts.next()?);
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_hex = request.bytes().all(|byte| byte.is_ascii_hexdigit());
    if parts.next().is_some() || !is_hex || request.len() != REQUEST_DIGITS {
        return None;
    }
    if !is_number(choice) || !is_number(position) {
        return None;
    }
    let event = EventId {
        request: RequestId(u128::from_str_radix(request, 16).ok()?),
        position: Position(position.parse().ok()?),
    };
    Some((event, choice.parse().ok()?))
}

/// Without a key nobody knows which answer is meant, and how its tokens were drawn.
pub fn needs_key() -> ApiError {
    refused("`Last-Event-ID` needs the `Idempotency-Key` that the request had when its stream began")
}

pub fn one_stream_only() -> ApiError {
    refused(
        "`Last-Event-ID` is for answers that are streamed and have one choice: `stream: true`, `n: 1`, one prompt",
    )
}

/// Another one than that which is kept under the key: what its client has seen cannot be told from here.
pub fn of_other_stream() -> ApiError {
    refused(
        "`Last-Event-ID` is of another stream than the one with this `Idempotency-Key`; send the key that the stream had \
            when it began",
    )
}

fn refused(message: &str) -> ApiError {
    ApiError::invalid("Last-Event-ID", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_to_the_letter() {
        let request = RequestId(0xab);
        let event = EventId {
            request,
            position: Position(12),
        };
        assert_eq!(read(&format!("{request}:0:12")), Some((event, 0)));
        assert_eq!(read(&format!("{request}:3:12")), Some((event, 3)));
        for wrong in [
            String::new(),
            "5".to_owned(),
            format!("{request}:0"),
            format!("{request}:0:1:2"),
            format!("{request}:0:+1"),
            format!("{request}:0:-1"),
            format!("{request}:0:99999999999"),
            "ab:0:1".to_owned(),
            format!("+{}:0:1", &request.to_string()[1..]),
        ] {
            assert_eq!(read(&wrong), None, "{wrong}");
        }
    }
}
