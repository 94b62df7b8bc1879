//! What ends a generation from outside: the request's token and its deadline.

use std::time::Instant;

use jetmoe_backend::{CancellationGuard, CancellationToken, DeadlineGuard};

use super::FinishReason;

/// The token and the deadline of a request, and the token that stops the steps of its session.
#[derive(Debug)]
pub(super) struct Interruption {
    token: CancellationToken,
    deadline: Option<Instant>,
    step_token: CancellationToken,
    /// The request's token and the deadline cancel `step_token` as long as these exist.
    _guards: Option<(CancellationGuard, Option<DeadlineGuard>)>,
}

impl Interruption {
    pub(super) fn new(token: CancellationToken, deadline: Option<Instant>) -> Self {
        let Some(time) = deadline else {
            return Interruption { step_token: token.clone(), token, deadline, _guards: None };
        };
        // not the request's own token, which other requests may share
        let step_token = CancellationToken::new();
        let cancelled = step_token.clone();
        let token_guard = token.on_cancel(move || cancelled.cancel());
        let deadline_guard = step_token.cancel_at(time).inspect_err(|error| {
            tracing::warn!("the deadline ends the generation between two steps only: {error}");
        });
        Interruption { token, deadline, step_token, _guards: Some((token_guard, deadline_guard.ok())) }
    }

    /// The token for the session.
    pub(super) fn step_token(&self) -> &CancellationToken {
        &self.step_token
    }

    /// Why the generation has to end; `None` if it has not.
    pub(super) fn reason(&self) -> Option<FinishReason> {
        if self.token.is_cancelled() {
            Some(FinishReason::Cancelled)
        } else if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            Some(FinishReason::Deadline)
        } else {
            None
        }
    }
}
