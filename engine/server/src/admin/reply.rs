//! Errors of the admin endpoint as JSON.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// An answer other than the wanted one.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    text: String,
}

impl Refusal {
    /// The request is wrong.
    pub(super) fn bad(text: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, text: text.into() }
    }

    /// The web framework refused the request by itself: no JSON, too long, a wrong field.
    pub(super) fn rejected(status: StatusCode, text: String) -> Self {
        // What it calls unprocessable is a wrong request like any other.
        let status =
            if status == StatusCode::UNPROCESSABLE_ENTITY { StatusCode::BAD_REQUEST } else { status };
        // What the standard library says of a text that is no number.
        Self {
            status,
            text: text.replace("invalid digit found in string", "allowed: a whole number, 0 or more"),
        }
    }

    /// The request carries no token, or a wrong one.
    pub(super) fn unauthorised(is_given: bool) -> Self {
        let what = if is_given { "the bearer token is wrong" } else { "a bearer token is needed" };
        let text = format!("{what}: the right one is in the node's admin.token_file");
        Self { status: StatusCode::UNAUTHORIZED, text }
    }

    /// The request names a host that may be anybody's name for this machine.
    pub(super) fn misdirected() -> Self {
        let text = "the endpoint has no token, so that it answers by an IP address or localhost only: ask it by one of \
            them, or give it a token (admin.token_file)";
        Self { status: StatusCode::MISDIRECTED_REQUEST, text: text.into() }
    }

    /// Too many wrong tokens came.
    pub(super) fn too_often() -> Self {
        Self { status: StatusCode::TOO_MANY_REQUESTS, text: "too many wrong tokens: try again later".into() }
    }

    /// The request's body is too long.
    pub(super) fn too_long() -> Self {
        let text = "the body is longer than 16 MiB: make several requests of it";
        Self { status: StatusCode::PAYLOAD_TOO_LARGE, text: text.into() }
    }

    /// The client sends its request too slowly, or the node cannot do it in time.
    pub(super) fn too_slow() -> Self {
        Self { status: StatusCode::REQUEST_TIMEOUT, text: "the request took too long".into() }
    }

    /// There is no such thing.
    pub(super) fn missing(text: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, text: text.into() }
    }

    /// The node drains, its drive is full, or a shard does not answer.
    pub(super) fn unavailable(text: impl Into<String>) -> Self {
        Self { status: StatusCode::SERVICE_UNAVAILABLE, text: text.into() }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(json!({ "error": self.text }))).into_response();
        let headers = response.headers_mut();
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.status == StatusCode::TOO_MANY_REQUESTS {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if matches!(
            self.status,
            StatusCode::UNAUTHORIZED | StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT
        ) {
            // Who comes with wrong tokens pays for a connection each time.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}
