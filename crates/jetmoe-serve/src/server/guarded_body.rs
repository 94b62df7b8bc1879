//! A body that owns a value until it ends.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes, HttpBody};
use http_body::{Frame, SizeHint};

/// A body that drops a value when its last frame was taken, or when it is dropped itself.
struct GuardedBody<G> {
    body: Body,
    guard: Option<G>,
    on_end: fn(&mut G),
}

/// Gives a value to a body. `on_end` is called before the value is dropped, if all of the body was taken.
pub(super) fn guard<G: Send + Unpin + 'static>(body: Body, guard: G, on_end: fn(&mut G)) -> Body {
    let mut guarded = GuardedBody { body, guard: Some(guard), on_end };
    // an empty body is never polled
    guarded.end_if_complete();
    Body::new(guarded)
}

impl<G> GuardedBody<G> {
    fn end_if_complete(&mut self) {
        if self.body.is_end_stream() {
            self.end();
        }
    }

    fn end(&mut self) {
        if let Some(mut guard) = self.guard.take() {
            (self.on_end)(&mut guard);
        }
    }
}

impl<G: Unpin> HttpBody for GuardedBody<G> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        match &frame {
            None => self.end(),
            Some(Ok(_)) => self.end_if_complete(),
            Some(Err(_)) => {}
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
