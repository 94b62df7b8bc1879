//! The end of a server: no new requests, time for those in progress, then their end.

use tokio::sync::watch;

/// Where a server is on its way to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Serving,
    Draining,
    Ending,
}

/// Tells the parts of a server that it ends. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Sender<Phase>);

impl Default for Shutdown {
    fn default() -> Self {
        Shutdown(watch::Sender::new(Phase::Serving))
    }
}

impl Shutdown {
    /// From now on new requests are refused, and those in progress go on.
    pub fn drain(&self) {
        self.advance(Phase::Draining);
    }

    /// From now on requests in progress end with an error.
    pub fn end(&self) {
        self.advance(Phase::Ending);
    }

    /// Phases do not go back.
    fn advance(&self, phase: Phase) {
        self.0.send_modify(|current| *current = phase.max(*current));
    }

    /// Whether new requests are refused.
    pub fn is_draining(&self) -> bool {
        *self.0.borrow() >= Phase::Draining
    }

    /// Waits until new requests are refused.
    pub async fn draining(&self) {
        self.reached(Phase::Draining).await;
    }

    /// Waits until requests in progress have to end.
    pub async fn ending(&self) {
        self.reached(Phase::Ending).await;
    }

    async fn reached(&self, phase: Phase) {
        // the sender is this value, so that waiting cannot fail
        let _reached = self.0.subscribe().wait_for(|current| *current >= phase).await.is_ok();
    }
}
