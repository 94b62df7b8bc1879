//! Counters and histograms of requests. Gauges of the engines are read from them when the metrics are.

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
    prompt_tokens: Family<ModelLabels, Counter>,
    cached_tokens: Family<ModelLabels, Counter>,
    generated_tokens: Family<ModelLabels, Counter>,
    queue_seconds: Family<ModelLabels, Histogram>,
    first_token_seconds: Family<ModelLabels, Histogram>,
    token_seconds: Family<ModelLabels, Histogram>,
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

/// The label of a model.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelLabels {
    model: String,
}

/// From 1 ms to about 2 minutes.
fn latency() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 18))
}

fn model(name: &str) -> ModelLabels {
    ModelLabels { model: name.to_owned() }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// Metrics that have counted nothing.
    pub fn new() -> Self {
        let mut metrics = Metrics {
            registry: Registry::with_prefix("jetmoe"),
            requests: Family::default(),
            request_seconds: Family::new_with_constructor(latency),
            in_flight: Gauge::default(),
            prompt_tokens: Family::default(),
            cached_tokens: Family::default(),
            generated_tokens: Family::default(),
            queue_seconds: Family::new_with_constructor(latency),
            first_token_seconds: Family::new_with_constructor(latency),
            token_seconds: Family::new_with_constructor(latency),
            panics: Counter::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("http_requests", "Answered requests", self.requests.clone());
        let help = "From the head of a request to the end of its response";
        registry.register_with_unit("http_request", help, Unit::Seconds, self.request_seconds.clone());
        registry.register("http_requests_in_flight", "Requests that are being answered", self.in_flight.clone());
        registry.register("prompt_tokens", "Tokens of prompts", self.prompt_tokens.clone());
        let help = "Tokens of prompts that were reused from earlier requests";
        registry.register("cached_prompt_tokens", help, self.cached_tokens.clone());
        registry.register("generated_tokens", "Generated tokens", self.generated_tokens.clone());
        let help = "Time of a sequence in the queue";
        registry.register_with_unit("queue", help, Unit::Seconds, self.queue_seconds.clone());
        let help = "From the request to the first token of a sequence";
        registry.register_with_unit("time_to_first_token", help, Unit::Seconds, self.first_token_seconds.clone());
        let help = "Between two tokens of a sequence";
        registry.register_with_unit("inter_token_latency", help, Unit::Seconds, self.token_seconds.clone());
        registry.register("panics", "Requests that ended with a panic", self.panics.clone());
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

    /// Counts a sequence that got its slot.
    pub(crate) fn started(&self, name: &str, prompt_tokens: usize, cached_tokens: usize, queued: Duration) {
        let labels = model(name);
        self.prompt_tokens.get_or_create(&labels).inc_by(prompt_tokens as u64);
        self.cached_tokens.get_or_create(&labels).inc_by(cached_tokens as u64);
        self.queue_seconds.get_or_create(&labels).observe(queued.as_secs_f64());
    }

    /// Counts the first token of a sequence.
    pub(crate) fn first_token(&self, name: &str, since_request: Duration) {
        let labels = model(name);
        self.generated_tokens.get_or_create(&labels).inc();
        self.first_token_seconds.get_or_create(&labels).observe(since_request.as_secs_f64());
    }

    /// Counts a further token of a sequence.
    pub(crate) fn next_token(&self, name: &str, since_last: Duration) {
        let labels = model(name);
        self.generated_tokens.get_or_create(&labels).inc();
        self.token_seconds.get_or_create(&labels).observe(since_last.as_secs_f64());
    }

    /// The metrics.
    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }
}
