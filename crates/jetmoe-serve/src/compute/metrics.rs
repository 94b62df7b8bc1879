//! Metrics of computations outside of an engine, for Prometheus.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// What the computations of a model count.
#[derive(Debug, Clone)]
pub(super) struct ComputationMetrics {
    pub(super) waiting: Gauge,
    pub(super) running: Gauge,
    pub(super) tokens: Counter,
    pub(super) seconds: Histogram,
}

impl ComputationMetrics {
    pub(super) fn new() -> Self {
        ComputationMetrics {
            waiting: Gauge::default(),
            running: Gauge::default(),
            tokens: Counter::default(),
            // from a millisecond to about a minute
            seconds: Histogram::new(exponential_buckets(0.001, 2.0, 17)),
        }
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        let prefix = |name: &str| format!("jetmoe_computation_{name}");
        registry.register(
            prefix("waiting"),
            "Embeddings, classes and tensors that wait",
            self.waiting.clone(),
        );
        registry.register(prefix("running"), "Of those, how many are computed", self.running.clone());
        registry.register(prefix("tokens"), "Tokens that they read", self.tokens.clone());
        let text = "How long they are computed, without the wait";
        registry.register_with_unit(prefix("duration"), text, Unit::Seconds, self.seconds.clone());
    }
}
