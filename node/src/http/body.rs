//! Request bodies, bounded in size, time and rate.

use super::Service;
use super::error::ApiError;
use super::limits::Limits;
use super::request;
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode, header};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use std::pin::pin;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Larger bodies are parsed off the async threads, so that megabytes of JSON hold up no other connection.
const PARSED_AT_ONCE_BYTES_MAX: usize = 64 << 10;

impl Service {
    /// A JSON object with the fields of `T`, of `bytes_max` at most.
    pub async fn read_request<T: DeserializeOwned + Send + 'static>(
        &self,
        headers: &HeaderMap,
        body: Body,
        bytes_max: usize,
    ) -> Result<T, ApiError> {
        let bytes = read(headers, body, bytes_max, &self.limits).await?;
        match bytes.len() > PARSED_AT_ONCE_BYTES_MAX {
            true => self.text_work.run(move || request::parse(&bytes)).await,
            false => request::parse(&bytes),
        }
    }
}

/// The body as bytes.
pub async fn read(
    headers: &HeaderMap,
    body: Body,
    bytes_max: usize,
    limits: &Limits,
) -> Result<Bytes, ApiError> {
    if let Some(encoding) = headers.get(header::CONTENT_ENCODING)
        && encoding != "identity"
    {
        return Err(encoded());
    }
    // Said at once, before the client sends it all.
    if announced_bytes(headers).is_some_and(|bytes| bytes > bytes_max) {
        return Err(too_large(bytes_max));
    }
    let started = Instant::now();
    let mut body = pin!(Limited::new(body, bytes_max));
    let mut bytes = BytesMut::new();
    loop {
        let due = started + limits.body_time_max(bytes.len());
        let frame = timeout_at(due, body.frame()).await.map_err(|_| too_slow())?;
        match frame.transpose() {
            Ok(Some(frame)) => bytes.extend_from_slice(frame.data_ref().map_or(&[], |data| data)),
            Ok(None) => return Ok(bytes.freeze()),
            Err(error) if error.is::<LengthLimitError>() => return Err(too_large(bytes_max)),
            Err(_) => return Err(ApiError::malformed("the body broke off")),
        }
    }
}

impl Limits {
    /// From the start of a body to its next byte, when this many have come: a grace, and from then on what they take at
    /// the least rate.
    fn body_time_max(&self, bytes: usize) -> Duration {
        (self.body_grace + self.time_for(bytes)).min(self.body_wait_max)
    }
}

fn announced_bytes(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn encoded() -> ApiError {
    ApiError::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported_encoding",
        "the body has a Content-Encoding; send it as plain JSON",
    )
}

fn too_large(bytes_max: usize) -> ApiError {
    let message = format!("the body is larger than {bytes_max} bytes");
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
}

fn too_slow() -> ApiError {
    ApiError::new(
        StatusCode::REQUEST_TIMEOUT,
        "body_timeout",
        "the body took too long to arrive",
    )
}
