//! Metrics of an engine, for Prometheus.
//!
//! The model-server protocol of the Gateway API's inference extension asks for three gauges, whose names a gateway is told:
//! `jetmoe_engine_requests_waiting` (TotalQueuedRequests), `jetmoe_engine_requests_running` (TotalRunningRequests) and
//! `jetmoe_engine_kv_cache_usage_ratio` (KVCacheUtilization, from 0 to 1). There are no adapters, so the gauge for them is left out.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use jetmoe_rt::FinishReason;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use super::experts::{Experts, PartExperts};
use super::{EngineOptions, JobError, Refusal};

/// Labels: names with values.
type Labels = Vec<(&'static str, String)>;

/// Parts of a layer that have a router, in the order of [`PartExperts::for_each`].
const PARTS: [&str; 2] = ["attention", "mlp"];

/// What an engine counts.
#[derive(Debug)]
pub(super) struct EngineMetrics {
    outcomes: Family<Labels, Counter>,
    prompt_tokens: Counter,
    generated_tokens: Counter,
    pub(super) waiting: Gauge,
    pub(super) running: Gauge,
    slots: Gauge,
    capacity: Gauge,
    cached_tokens: Gauge,
    cache_usage: Gauge<f64, AtomicU64>,
    occupancy: Histogram,
    step_tokens: Histogram,
    step_seconds: Histogram,
    between_steps_seconds: Histogram,
    failed_steps: Counter,
    queue_seconds: Histogram,
    first_token_seconds: Histogram,
    inter_token_seconds: Histogram,
    request_seconds: Histogram,
    prefix_queries: Counter,
    prefix_hits: Counter,
    prefix_tokens: Counter,
    prefix_bytes: Gauge,
    expert_tokens: Family<Labels, Counter>,
}

/// Counters of every expert, so that none is looked up while steps run.
#[derive(Debug)]
pub(super) struct ExpertCounters {
    experts: usize,
    /// `[layers, 2, experts]`
    counters: Vec<Counter>,
    /// Of the step that is counted.
    counts: Vec<u64>,
}

/// Seconds from a millisecond to a minute.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 17))
}

impl EngineMetrics {
    pub(super) fn new(options: &EngineOptions, capacity: usize) -> Self {
        let metrics = EngineMetrics {
            outcomes: Family::default(),
            prompt_tokens: Counter::default(),
            generated_tokens: Counter::default(),
            waiting: Gauge::default(),
            running: Gauge::default(),
            slots: Gauge::default(),
            capacity: Gauge::default(),
            cached_tokens: Gauge::default(),
            cache_usage: Gauge::default(),
            occupancy: Histogram::new(exponential_buckets(1.0, 2.0, 9)),
            step_tokens: Histogram::new(exponential_buckets(1.0, 2.0, 13)),
            step_seconds: seconds(),
            between_steps_seconds: Histogram::new(exponential_buckets(0.000_01, 2.0, 17)),
            failed_steps: Counter::default(),
            queue_seconds: seconds(),
            first_token_seconds: seconds(),
            inter_token_seconds: seconds(),
            request_seconds: seconds(),
            prefix_queries: Counter::default(),
            prefix_hits: Counter::default(),
            prefix_tokens: Counter::default(),
            prefix_bytes: Gauge::default(),
            expert_tokens: Family::default(),
        };
        set(&metrics.slots, options.slots as u64);
        set(&metrics.capacity, (options.slots as u64).saturating_mul(capacity as u64));
        metrics
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("jetmoe_engine");
        self.register_requests(registry);
        self.register_steps(registry);
        self.register_cache(registry);
    }

    fn register_requests(&self, registry: &mut Registry) {
        let mut counter =
            |name: &str, help: &str, counter: &Counter| registry.register(name, help, counter.clone());
        counter(
            "prompt_tokens",
            "Tokens of prompts that were read, without those that were reused",
            &self.prompt_tokens,
        );
        counter("generated_tokens", "Tokens that were generated", &self.generated_tokens);
        registry.register("requests", "Jobs that ended, by how they did", self.outcomes.clone());
        registry.register("requests_waiting", "Jobs that wait for a slot", self.waiting.clone());
        registry.register("requests_running", "Jobs that have a slot", self.running.clone());
        register_seconds(registry, "queue", "Time of a job in the queue", &self.queue_seconds);
        register_seconds(
            registry,
            "time_to_first_token",
            "Time from the arrival of a job to its first token",
            &self.first_token_seconds,
        );
        register_seconds(
            registry,
            "inter_token",
            "Time between two tokens of a job",
            &self.inter_token_seconds,
        );
        register_seconds(
            registry,
            "request",
            "Time from the arrival of a job to its end",
            &self.request_seconds,
        );
    }

    fn register_steps(&self, registry: &mut Registry) {
        register_seconds(registry, "step", "Time of a step in the model", &self.step_seconds);
        register_seconds(
            registry,
            "between_steps",
            "Time from a step to the next one of jobs that go on",
            &self.between_steps_seconds,
        );
        registry.register("step_sequences", "Sequences that shared a step", self.occupancy.clone());
        registry.register("step_tokens", "Tokens that a step read", self.step_tokens.clone());
        registry.register("failed_steps", "Steps that failed", self.failed_steps.clone());
        let help = "Tokens that took an expert, by part of the layer, layer and expert; of models whose routing is observed";
        registry.register("expert_tokens", help, self.expert_tokens.clone());
    }

    fn register_cache(&self, registry: &mut Registry) {
        let help = "Share of the slots' tokens that running jobs take";
        registry.register("slots", "Sequences that can share a step", self.slots.clone());
        registry.register("cache_capacity_tokens", "Tokens that all slots can hold", self.capacity.clone());
        registry.register(
            "cache_tokens",
            "Tokens of running jobs that slots hold",
            self.cached_tokens.clone(),
        );
        registry.register("kv_cache_usage_ratio", help, self.cache_usage.clone());
        let mut counter =
            |name: &str, help: &str, counter: &Counter| registry.register(name, help, counter.clone());
        counter("prefix_queries", "Prompts of which a part could be reused", &self.prefix_queries);
        counter("prefix_hits", "Prompts of which a part was reused", &self.prefix_hits);
        counter("prefix_reused_tokens", "Tokens of prompts that were reused", &self.prefix_tokens);
        registry.register("prefix_memory_bytes", "Memory of kept prefixes", self.prefix_bytes.clone());
    }

    /// Counts a job that was not taken.
    pub(super) fn refused(&self, refusal: &Refusal) {
        self.outcome(match refusal {
            Refusal::QueueFull { .. } => "queue-full",
            Refusal::ShuttingDown => "shutting-down",
            _ => "invalid",
        });
    }

    /// Counts the end of a job that was taken.
    pub(super) fn ended(&self, reason: FinishReason, time: Duration) {
        self.outcome(&reason.to_string());
        self.request_seconds.observe(time.as_secs_f64());
    }

    /// Counts a job that could not go on.
    pub(super) fn failed(&self, error: &JobError) {
        self.outcome(match error {
            JobError::ShuttingDown => "shutting-down",
            _ => "failed",
        });
    }

    fn outcome(&self, outcome: &str) {
        self.outcomes.get_or_create(&vec![("outcome", outcome.to_owned())]).inc();
    }

    /// Counts a job that got a slot.
    pub(super) fn started(&self, queued: Duration, reused_tokens: Option<usize>) {
        self.queue_seconds.observe(queued.as_secs_f64());
        if let Some(tokens) = reused_tokens {
            self.prefix_queries.inc();
            self.prefix_hits.inc_by(u64::from(tokens > 0));
            self.prefix_tokens.inc_by(tokens as u64);
        }
    }

    /// Counts a step.
    pub(super) fn step(&self, sequences: usize, tokens: usize, time: Duration) {
        self.occupancy.observe(sequences as f64);
        self.step_tokens.observe(tokens as f64);
        self.step_seconds.observe(time.as_secs_f64());
    }

    /// Counts the time between two steps.
    pub(super) fn between_steps(&self, time: Duration) {
        self.between_steps_seconds.observe(time.as_secs_f64());
    }

    /// Counts a step that failed.
    pub(super) fn step_failed(&self) {
        self.failed_steps.inc();
    }

    /// Counts tokens of a prompt that a step read.
    pub(super) fn prompt_tokens(&self, tokens: usize) {
        self.prompt_tokens.inc_by(tokens as u64);
    }

    /// Counts a generated token: the time since the one before it, or since the arrival of the job for the first one.
    pub(super) fn token(&self, is_first: bool, time: Duration) {
        self.generated_tokens.inc();
        let histogram = if is_first { &self.first_token_seconds } else { &self.inter_token_seconds };
        histogram.observe(time.as_secs_f64());
    }

    /// Sets how many tokens of running jobs the slots hold, and the memory of kept prefixes.
    pub(super) fn cache(&self, tokens: u64, prefix_bytes: u64) {
        set(&self.cached_tokens, tokens);
        let capacity = self.capacity.get().max(1) as f64;
        self.cache_usage.set(tokens as f64 / capacity);
        set(&self.prefix_bytes, prefix_bytes);
    }

    /// Counters of the experts of a model.
    pub(super) fn experts(&self, experts: &Experts) -> ExpertCounters {
        let mut counters = Vec::with_capacity(experts.layers() * PARTS.len() * experts.experts());
        for layer in 0..experts.layers() {
            for part in PARTS {
                for expert in 0..experts.experts() {
                    let labels = vec![
                        ("part", part.to_owned()),
                        ("layer", layer.to_string()),
                        ("expert", expert.to_string()),
                    ];
                    counters.push(self.expert_tokens.get_or_create_owned(&labels));
                }
            }
        }
        ExpertCounters { experts: experts.experts(), counts: vec![0; counters.len()], counters }
    }
}

impl ExpertCounters {
    /// Counts the assignments of a part of a step.
    pub(super) fn add(&mut self, part: &PartExperts) {
        let (experts, counts) = (self.experts, &mut self.counts);
        part.for_each(|layer, part, expert| {
            if let Some(count) = counts.get_mut((layer * PARTS.len() + part) * experts + expert) {
                *count += 1;
            }
        });
        for (counter, count) in self.counters.iter().zip(&mut self.counts) {
            if *count > 0 {
                counter.inc_by(std::mem::take(count));
            }
        }
    }
}

/// Registers a histogram of times.
fn register_seconds(registry: &mut Registry, name: &str, help: &str, histogram: &Histogram) {
    registry.register_with_unit(name, help, Unit::Seconds, histogram.clone());
}

fn set(gauge: &Gauge, value: u64) {
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn the_names_that_documents_tell_are_there() {
        let metrics = EngineMetrics::new(&EngineOptions::default(), 100);
        metrics.ended(FinishReason::Eos, Duration::from_millis(5));
        metrics.failed(&JobError::Ended);
        metrics.started(Duration::ZERO, Some(3));
        metrics.token(true, Duration::from_millis(20));
        metrics.cache(800, 7);
        metrics.between_steps(Duration::from_micros(15));
        let mut registry = Registry::default();
        metrics.register(registry.sub_registry_with_label(("model".into(), "mini".into())));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "jetmoe_engine_requests_waiting{model=\"mini\"} 0",
            "jetmoe_engine_requests_running{model=\"mini\"} 0",
            "jetmoe_engine_kv_cache_usage_ratio{model=\"mini\"} 0.5",
            "jetmoe_engine_requests_total{model=\"mini\",outcome=\"end-token\"} 1",
            "jetmoe_engine_requests_total{model=\"mini\",outcome=\"failed\"} 1",
            "jetmoe_engine_prefix_reused_tokens_total{model=\"mini\"} 3",
            "jetmoe_engine_time_to_first_token_seconds_count{model=\"mini\"} 1",
            "jetmoe_engine_prefix_memory_bytes{model=\"mini\"} 7",
            "jetmoe_engine_between_steps_seconds_count{model=\"mini\"} 1",
        ] {
            assert!(text.contains(line), "{line}\nis not in\n{text}");
        }
    }
}
