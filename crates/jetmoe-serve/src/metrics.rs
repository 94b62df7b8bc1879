//! Metrics of HTTP requests. Those of generation are the engines', and are read with these.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// The metrics of a server.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    request_seconds: Family<RouteLabels, Histogram>,
    in_flight: Gauge,
    panics: Counter,
}

/// Labels of an answered request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    method: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: String,
}

/// From 1 ms to about 2 minutes.
fn latency() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 18))
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Metrics that have counted nothing.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("jetmoe_http");
        let requests = Family::default();
        registry.register("requests", "Answered requests", requests.clone());
        let request_seconds: Family<RouteLabels, Histogram> = Family::new_with_constructor(latency);
        let help = "From the head of a request to the end of its response";
        registry.register_with_unit("request", help, Unit::Seconds, request_seconds.clone());
        let in_flight = Gauge::default();
        registry.register("requests_in_flight", "Requests that are being answered", in_flight.clone());
        let panics = Counter::default();
        registry.register("panics", "Requests that ended with a panic", panics.clone());
        Metrics { registry, requests, request_seconds, in_flight, panics }
    }

    /// Counts an answered request.
    pub(crate) fn answered(&self, route: &str, method: &str, status: u16, elapsed: Duration) {
        let labels = RequestLabels { route: route.to_owned(), method: method.to_owned(), status };
        self.requests.get_or_create(&labels).inc();
        let labels = RouteLabels { route: route.to_owned() };
        self.request_seconds.get_or_create(&labels).observe(elapsed.as_secs_f64());
    }

    /// Requests that are being answered.
    pub(crate) fn in_flight(&self) -> &Gauge {
        &self.in_flight
    }

    /// Counts a panic of a handler.
    pub(crate) fn panicked(&self) {
        self.panics.inc();
    }

    /// The metrics.
    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }
}
