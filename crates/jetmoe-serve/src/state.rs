//! What every handler of a server shares.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crate::config::{Config, seconds};
use crate::metrics::Metrics;
use crate::registry::Registry;
use crate::shutdown::Shutdown;

/// What every handler of a server shares. Cloning shares it.
#[derive(Debug, Clone)]
pub struct AppState(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    config: Config,
    registry: Registry,
    metrics: Metrics,
    shutdown: Shutdown,
    is_ready: AtomicBool,
}

impl AppState {
    /// The state of a server.
    pub fn new(config: Config, registry: Registry, shutdown: Shutdown) -> Self {
        let (metrics, is_ready) = (Metrics::new(), AtomicBool::new(false));
        AppState(Arc::new(Shared { config, registry, metrics, shutdown, is_ready }))
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// The models.
    pub fn registry(&self) -> &Registry {
        &self.0.registry
    }

    /// The metrics of the server.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// Whether the server ends, and when its requests have to.
    pub fn shutdown(&self) -> &Shutdown {
        &self.0.shutdown
    }

    /// Whether the models that are loaded at the start are, and the server does not end.
    pub fn is_ready(&self) -> bool {
        self.0.is_ready.load(Ordering::Acquire) && !self.shutdown().is_draining()
    }

    /// From now on the models that are loaded at the start are.
    pub(crate) fn set_ready(&self) {
        self.0.is_ready.store(true, Ordering::Release);
    }

    /// When a request that begins now has to end, by [`Limits::request_seconds`](crate::config::Limits::request_seconds).
    pub fn deadline(&self) -> Option<Instant> {
        self.config().limits.request_seconds.and_then(|limit| Instant::now().checked_add(seconds(limit)))
    }
}
