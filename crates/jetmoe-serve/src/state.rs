//! What every handler of a server shares.

use std::sync::Arc;
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
}

impl AppState {
    /// The state of a server.
    pub fn new(config: Config, registry: Registry, shutdown: Shutdown) -> Self {
        AppState(Arc::new(Shared { config, registry, metrics: Metrics::new(), shutdown }))
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

    /// When a request that begins now has to end, by [`Limits::request_seconds`](crate::config::Limits::request_seconds).
    pub fn deadline(&self) -> Option<Instant> {
        self.config().limits.request_seconds.and_then(|limit| Instant::now().checked_add(seconds(limit)))
    }
}
