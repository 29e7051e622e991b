//! Request bodies, bounded in size and time.

use super::error::ApiError;
use super::fields::Fields;
use super::limits::Limits;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, StatusCode, header};
use bytes::Bytes;

/// The fields of a JSON object.
pub async fn read_fields(headers: &HeaderMap, body: Body, limits: &Limits) -> Result<Fields, ApiError> {
    let bytes = read(headers, body, limits).await?;
    Fields::parse(&bytes)
}

async fn read(headers: &HeaderMap, body: Body, limits: &Limits) -> Result<Bytes, ApiError> {
    // Said at once, before the client sends it all.
    if announced_bytes(headers).is_some_and(|bytes| bytes > limits.body_bytes_max) {
        return Err(too_large(limits));
    }
    match tokio::time::timeout(limits.body_wait_max, to_bytes(body, limits.body_bytes_max)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if is_length_limit(&error) => Err(too_large(limits)),
        Ok(Err(_)) => Err(ApiError::malformed("the body broke off")),
        Err(_) => {
            let message = "the body took too long to arrive";
            Err(ApiError::new(
                StatusCode::REQUEST_TIMEOUT,
                "body_timeout",
                message,
            ))
        }
    }
}

fn announced_bytes(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn is_length_limit(error: &axum::Error) -> bool {
    std::error::Error::source(error).is_some_and(|cause| cause.is::<http_body_util::LengthLimitError>())
}

fn too_large(limits: &Limits) -> ApiError {
    let message = format!("the body is larger than {} bytes", limits.body_bytes_max);
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", message)
}
