//! Answers to clients of whom no request was read: there is no seat for them, they speak HTTP where HTTPS is served, or
//! their head cannot be understood. hyper has some for the last case, without a body and a name; these take their place.

use super::seats::Crowd;
use crate::http::edge;
use crate::http::error::ApiError;
use crate::http::telemetry;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use proto::Span;

const BUSY_WAIT: Span = Span::from_secs(1);

pub fn crowded(crowd: Crowd) -> ApiError {
    let (status, message) = match crowd {
        Crowd::Everywhere => (
            StatusCode::SERVICE_UNAVAILABLE,
            "too many connections are open here; try again later",
        ),
        Crowd::Neighbourhood => (
            StatusCode::TOO_MANY_REQUESTS,
            "too many connections are open from this address; close some, or try again later",
        ),
    };
    ApiError::new(status, "too_many_connections", message).after(BUSY_WAIT)
}

pub fn bad_head(error: &hyper::Error) -> ApiError {
    match error.is_parse_too_large() {
        true => ApiError::new(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "headers_too_large",
            "the request's head is too long, or has too many fields",
        ),
        false => ApiError::new(
            StatusCode::BAD_REQUEST,
            "invalid_request",
            format!("the request's head is not HTTP/1.1: {error}"),
        ),
    }
}

pub fn plain_http() -> ApiError {
    ApiError::new(
        StatusCode::BAD_REQUEST,
        "https_required",
        "this port speaks HTTPS, and the request came as plain HTTP: begin the address with https://",
    )
}

/// The whole answer as it is sent, after which the connection ends; counted as one.
pub fn last_words(error: &ApiError) -> Vec<u8> {
    let status = error.status();
    telemetry::answered("other".to_string(), status);
    let body = error.body().to_string();
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    headers.insert(header::CONNECTION, super::CLOSE);
    headers.insert(edge::REQUEST_ID, edge::new_id());
    headers.extend(error.headers());
    let mut answer = format!("HTTP/1.1 {status}\r\n").into_bytes();
    for (name, value) in &headers {
        answer.extend_from_slice(name.as_str().as_bytes());
        answer.extend_from_slice(b": ");
        answer.extend_from_slice(value.as_bytes());
        answer.extend_from_slice(b"\r\n");
    }
    answer.extend_from_slice(b"\r\n");
    answer.extend_from_slice(body.as_bytes());
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_and_has_a_name() {
        for crowd in [Crowd::Everywhere, Crowd::Neighbourhood] {
            let answer = String::from_utf8(last_words(&crowded(crowd))).unwrap();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            let lines: Vec<&str> = head.lines().collect();
            assert!(
                [
                    "HTTP/1.1 503 Service Unavailable",
                    "HTTP/1.1 429 Too Many Requests"
                ]
                .contains(&lines[0]),
                "{head}"
            );
            let length = format!("content-length: {}", body.len());
            for line in [length.as_str(), "connection: close", "retry-after: 1"] {
                assert!(lines.contains(&line), "{head}");
            }
            assert!(head.contains("\r\nx-request-id: "), "{head}");
            let body: serde_json::Value = serde_json::from_str(body).unwrap();
            assert_eq!(body["error"]["code"], "too_many_connections");
        }
    }
}
