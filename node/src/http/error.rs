//! Errors as clients see them: a status and `{"error": {"message", "type", "param", "code"}}`.

use crate::gateway::StreamFailure;
use axum::Json;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use proto::Span;
use proto::request::Refusal;
use serde_json::{Value, json};

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    param: Option<String>,
    retry_after: Option<Span>,
}

impl ApiError {
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> ApiError {
        ApiError {
            status,
            code,
            message: message.into(),
            param: None,
            retry_after: None,
        }
    }

    /// A field of the request cannot be honoured as it stands.
    pub fn invalid(param: &str, message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, "invalid_value", message).about(param)
    }

    pub fn missing(param: &str) -> ApiError {
        ApiError::invalid(param, format!("`{param}` is missing"))
    }

    /// A field asks for something that this server does not do.
    pub fn unsupported(param: &str, message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, "unsupported_parameter", message).about(param)
    }

    /// The answer cannot have the form that is asked for.
    pub fn bad_grammar(reason: &str) -> ApiError {
        let message = format!("the answer cannot have this form: {reason}");
        ApiError::new(StatusCode::BAD_REQUEST, "invalid_grammar", message)
    }

    pub fn malformed(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, "invalid_json", message)
    }

    pub fn too_long(param: &str, message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, "context_length_exceeded", message).about(param)
    }

    /// Prompt and output do not fit. Clients, which then cut the conversation or choose another model, know this error by
    /// its words and not by its code: the first sentence is OpenAI's (litellm), `prompt is too long` Anthropic's
    /// (langchain).
    pub fn beyond_context(param: &str, context_tokens: usize, needed: &str) -> ApiError {
        let message = format!(
            "This model's maximum context length is {context_tokens} tokens. However, the prompt is too long: {needed}."
        );
        ApiError::too_long(param, message)
    }

    pub fn no_such_model(name: &str) -> ApiError {
        let message = format!("the model `{name}` does not exist here; GET /v1/models lists what does");
        ApiError::new(StatusCode::NOT_FOUND, "model_not_found", message).about("model")
    }

    pub fn no_key() -> ApiError {
        let message = "no valid API key; send it as `Authorization: Bearer KEY`";
        ApiError::new(StatusCode::UNAUTHORIZED, "invalid_api_key", message)
    }

    pub fn unavailable(message: impl Into<String>, retry_after: Span) -> ApiError {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message).after(retry_after)
    }

    /// The same request is running already; its answer will be there soon.
    pub fn running() -> ApiError {
        let message = "a request with this Idempotency-Key is running; try again for its answer";
        ApiError::new(StatusCode::CONFLICT, "idempotency_key_running", message).after(Span::from_secs(1))
    }

    /// A fault of ours, in words that tell the client what it can do.
    pub fn internal(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", message)
    }

    /// Names the field that is to blame.
    pub fn about(self, param: &str) -> ApiError {
        ApiError {
            param: Some(param.to_string()),
            ..self
        }
    }

    /// It may be different after this long.
    pub fn after(self, retry_after: Span) -> ApiError {
        ApiError {
            retry_after: Some(retry_after),
            ..self
        }
    }

    pub fn status(&self) -> StatusCode {
        self.status
    }

    pub fn body(&self) -> Value {
        json!({"error": {
            "message": self.message,
            "type": kind(self.status),
            "param": self.param,
            "code": self.code,
        }})
    }

    pub fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(wait) = self.retry_after {
            let wait_millis = wait.0.div_ceil(1_000_000).max(1);
            headers.insert(
                header::RETRY_AFTER,
                HeaderValue::from(wait_millis.div_ceil(1_000)),
            );
            headers.insert("retry-after-ms", HeaderValue::from(wait_millis));
        }
        headers
    }
}

/// OpenAI's name for the kind of error.
fn kind(status: StatusCode) -> &'static str {
    match status.as_u16() {
        401 => "authentication_error",
        403 => "permission_error",
        429 => "rate_limit_error",
        status if status < 500 => "invalid_request_error",
        503 => "service_unavailable_error",
        _fault_of_ours => "server_error",
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, self.headers(), Json(self.body())).into_response()
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> ApiError {
        match refusal {
            Refusal::Busy { retry_after } => ApiError::new(
                StatusCode::TOO_MANY_REQUESTS,
                "busy",
                "the queue is full; try again later",
            )
            .after(retry_after),
            Refusal::TooLong { tokens, tokens_max } => ApiError::beyond_context(
                "max_tokens",
                tokens_max as usize,
                &format!("with its output it needs {tokens} tokens"),
            ),
            Refusal::Unavailable { retry_after } => ApiError::unavailable(
                "no replica of the model serves at the moment; try again later",
                retry_after,
            ),
            Refusal::BadGrammar { reason } => ApiError::bad_grammar(&reason),
            Refusal::Draining => ApiError::unavailable(
                "this node is ending; try another or try again",
                Span::from_secs(1),
            ),
        }
    }
}

impl From<StreamFailure> for ApiError {
    fn from(failure: StreamFailure) -> ApiError {
        match failure {
            StreamFailure::SlowReader => ApiError::new(
                StatusCode::TOO_MANY_REQUESTS,
                "slow_reader",
                "the answer was produced faster than it was read, beyond what is kept for a reader",
            ),
            StreamFailure::Refused(refusal) => refusal.into(),
        }
    }
}
