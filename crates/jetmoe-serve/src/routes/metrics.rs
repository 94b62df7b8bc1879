//! `GET /metrics`: the metrics of the server and of the engines of loaded models.

use std::collections::HashMap;
use std::fmt;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::text::encode_registry;
use prometheus_client::registry::Registry;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::ErrorResponses;
use crate::error::{ApiError, ApiResult};
use crate::state::AppState;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(metrics))
}

/// Metrics for Prometheus, in the text format of OpenMetrics.
#[utoipa::path(
    get, path = "/metrics", tag = "operation", security(()),
    responses(
        (status = 200, description = "The metrics", body = String, content_type = "application/openmetrics-text"),
        ErrorResponses,
    )
)]
async fn metrics(State(state): State<AppState>) -> ApiResult<Response> {
    let mut engines = Registry::default();
    for model in state.registry().loaded().await {
        let label = ("model".into(), model.name().to_owned().into());
        let part = engines.sub_registry_with_label(label);
        if let Ok(engine) = model.engine() {
            engine.register_metrics(part);
        }
        model.computations().register_metrics(part);
    }
    let text = encode(&[state.metrics().registry(), &engines]).map_err(|error| {
        tracing::error!(%error, "the metrics are no text");
        ApiError::internal()
    })?;
    Ok(([(CONTENT_TYPE, OPEN_METRICS)], text).into_response())
}

fn encode(registries: &[&Registry]) -> Result<String, fmt::Error> {
    let mut text = String::new();
    for registry in registries {
        encode_registry(&mut text, registry)?;
    }
    Ok(joined(&text) + "# EOF\n")
}

/// The text with each metric once: every engine writes its own part of it.
fn joined(text: &str) -> String {
    let mut places: HashMap<&str, usize> = HashMap::new();
    // comments, and samples
    let mut families: Vec<(String, String)> = Vec::new();
    let mut current = 0;
    for line in text.lines() {
        let mut words = line.split(' ');
        let (is_comment, name) = (words.next() == Some("#"), words.nth(1).unwrap_or_default());
        if is_comment && !places.contains_key(name) {
            places.insert(name, families.len());
            families.push(Default::default());
        }
        if is_comment {
            current = places[name];
        }
        let Some((comments, samples)) = families.get_mut(current) else { continue };
        match is_comment {
            false => samples.extend([line, "\n"]),
            // the same of every engine
            true if samples.is_empty() => comments.extend([line, "\n"]),
            true => {}
        }
    }
    families.into_iter().map(|(comments, samples)| comments + &samples).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_of_several_engines_is_described_once() {
        let text = "# HELP a First.\n# TYPE a counter\na_total{m=\"x\"} 1\n# HELP b Second.\n# TYPE b gauge\nb 2\n\
                    # HELP a First.\n# TYPE a counter\na_total{m=\"y\"} 3\n";
        let expected = "# HELP a First.\n# TYPE a counter\na_total{m=\"x\"} 1\na_total{m=\"y\"} 3\n# HELP b Second.\n\
                        # TYPE b gauge\nb 2\n";
        assert_eq!(joined(text), expected);
    }
}
