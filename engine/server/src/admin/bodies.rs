//! Bodies that are too long: whoever is still sending one is to hear why it is refused.

use super::REQUEST_BYTES_MAX;
use super::reply::Refusal;
use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::header;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::future::poll_fn;
use std::pin::Pin;

/// So much of a refused body is still taken. Whoever sends more finds the connection closed, perhaps before the answer.
const TAKEN_BYTES_MAX: u64 = 64 << 20;

/// Takes a body that says that it is too long, keeps nothing of it, and answers then: a connection that is closed with bytes
/// unread is reset, and with it goes the answer. Others are counted as they come.
pub(super) async fn refuse_long(request: Request, next: Next) -> Response {
    let said_bytes = request.body().size_hint().lower();
    if said_bytes <= REQUEST_BYTES_MAX as u64 {
        return next.run(request).await;
    }
    // Who asks first has sent nothing yet.
    if !request.headers().contains_key(header::EXPECT) && said_bytes <= TAKEN_BYTES_MAX {
        take(request.into_body()).await;
    }
    Refusal::too_long().into_response()
}

async fn take(mut body: Body) {
    while let Some(Ok(_)) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {}
}
