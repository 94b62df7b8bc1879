//! Ranks texts by their relevance to a query, in the forms of text-embeddings-inference and of Cohere and Jina.

use std::borrow::Cow;

use axum::extract::State;
use jetmoe_rt::ndarray::ArrayView1;
use jetmoe_rt::{Classification, ClassificationFunction, ClassifierInput, ModelConfig, Task, log_sum_exp};
use serde::{Deserialize, Deserializer, Serialize, de};
use utoipa::openapi::{ObjectBuilder, OneOfBuilder, RefOr, Schema, Type};
use utoipa::{PartialSchema, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::ErrorResponses;
use super::classify::{RunOptions, classify, refuse_direction};
use super::encoded::EncodedJson;
use super::inputs::{InputUsage, check_count};
use crate::compute::Ends;
use crate::error::{ApiError, ApiResult};
use crate::json::JsonBody;
use crate::state::AppState;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(create))
}

/// What to rank: `documents` in the form of Cohere and Jina, or `texts` in the form of text-embeddings-inference. Each is
/// classified in a pair with the query. Control tokens in a text are text.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RerankRequest {
    /// Name of a model whose task is `sequence-classification`. May be left out if the server has one model.
    model: Option<String>,
    /// What the texts are compared with.
    query: String,
    /// The texts.
    documents: Option<Vec<Document>>,
    /// The texts. In place of `documents`.
    texts: Option<Vec<String>>,
    /// Most results; by default all.
    top_n: Option<usize>,
    /// Whether results hold the documents; false by default. With `documents` only.
    return_documents: Option<bool>,
    /// Whether results hold the texts; false by default. With `texts` only.
    return_text: Option<bool>,
    /// The class whose score ranks. By default the only one, or the second of two; a model of more labels needs it.
    label: Option<String>,
    /// Whether a score is the logarithm of the odds of the class, which for a model of one label is its logit; false by default: it
    /// is the score of `POST /classify`.
    raw_scores: Option<bool>,
    /// Whether a pair that is longer than the model's positions is truncated; false by default: it is an error.
    truncate: Option<bool>,
    /// Not supported: the tokenizer's configuration says which end is removed.
    #[schema(value_type = Option<String>)]
    truncation_direction: Option<serde_json::Value>,
}

/// A text, or an object with the field `text`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Document(String);

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) => Ok(Document(text)),
            serde_json::Value::Object(mut object) => match (object.remove("text"), object.keys().next()) {
                (Some(serde_json::Value::String(text)), None) => Ok(Document(text)),
                (_, Some(field)) => {
                    Err(de::Error::custom(format!("the field {field} is not read, only text")))
                }
                _ => Err(de::Error::custom("the field text is missing or no text")),
            },
            _ => Err(de::Error::custom("expected a text, or an object with the field text")),
        }
    }
}

impl ToSchema for Document {
    fn name() -> Cow<'static, str> {
        "RerankDocument".into()
    }
}

impl PartialSchema for Document {
    fn schema() -> RefOr<Schema> {
        let text = || ObjectBuilder::new().schema_type(Type::String);
        let object = ObjectBuilder::new().schema_type(Type::Object).property("text", text()).required("text");
        OneOfBuilder::new().item(text()).item(object).into()
    }
}

/// A ranked text, for a request with `texts`.
#[derive(Debug, Serialize, ToSchema)]
struct Rank {
    /// Index of the text in the request, from 0.
    index: usize,
    score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

/// Ranked documents, for a request with `documents`.
#[derive(Debug, Serialize, ToSchema)]
struct RerankList {
    id: String,
    /// The model that computed the scores.
    model: String,
    /// The most relevant document first; in the order of the request if scores are equal.
    results: Vec<RankedDocument>,
    usage: InputUsage,
}

/// A ranked document.
#[derive(Debug, Serialize, ToSchema)]
struct RankedDocument {
    /// Index of the document in the request, from 0.
    index: usize,
    relevance_score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    document: Option<DocumentText>,
}

/// The text of a document.
#[derive(Debug, Serialize, ToSchema)]
struct DocumentText {
    text: String,
}

/// The body of a response, in the form of the request.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
enum RerankResponse {
    List(RerankList),
    Ranks(Vec<Rank>),
}

/// The form of a request and of its response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Documents,
    Texts,
}

/// Which texts a request has, and what of them it wants back.
#[derive(Debug)]
struct Candidates {
    form: Form,
    texts: Vec<String>,
    top_n: usize,
    returns_texts: bool,
}

/// Which score of a class ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Measure {
    Score,
    LogOdds,
}

/// Ranks texts by their relevance to a query.
#[utoipa::path(
    post, path = "/rerank", tag = "classification", operation_id = "rerank", request_body = RerankRequest,
    responses((status = 200, description = "The ranks", body = RerankResponse), ErrorResponses)
)]
async fn create(
    State(state): State<AppState>,
    JsonBody(mut request): JsonBody<RerankRequest>,
) -> ApiResult<EncodedJson> {
    refuse_direction(request.truncation_direction.as_ref())?;
    let candidates = Candidates::of(&mut request)?;
    let lease = state.registry().get(request.model.as_deref()).await?;
    let model = lease.of_task(Task::SequenceClassification)?.clone();
    let class = ranking_class(model.config(), request.label.as_deref())?;
    let measure = if request.raw_scores == Some(true) { Measure::LogOdds } else { Measure::Score };
    let run = RunOptions { truncation: request.truncate.into(), function: None };
    let (name, owned, query) = (lease.name().to_owned(), lease.clone(), request.query);
    let ends = Ends { deadline: state.deadline(), shutdown: state.shutdown() };
    let work = move |cancellation: &_| {
        let pairs =
            candidates.texts.iter().map(|text| ClassifierInput::from((query.as_str(), text.as_str())));
        let classes = classify(&model, pairs.collect(), run, cancellation);
        let classes = classes.map_err(|error| ApiError::from(error).or_param(candidates.field()))?;
        owned.computations().count_tokens(classes.iter().map(|found| found.tokens).sum());
        let scores: Vec<f32> = classes.iter().map(|found| relevance(found, class, measure)).collect();
        EncodedJson::new(&candidates.response(
            name,
            &scores,
            InputUsage::of(classes.iter().map(|class| class.tokens)),
        ))
    };
    lease.computations().run(ends, work).await
}

/// The class whose score ranks.
fn ranking_class(config: &ModelConfig, label: Option<&str>) -> ApiResult<usize> {
    let labels = &config.labels;
    let known = || format!("the labels are {}", labels.join(", "));
    match (label, labels.len()) {
        (Some(label), _) => labels.iter().position(|known| known == label).ok_or_else(|| {
            ApiError::invalid("label", format!("the model has no label {label:?}")).with_advice(known())
        }),
        (None, 1) => Ok(0),
        (None, 2) => Ok(1),
        (None, count) => {
            let message = format!("label is missing, and the model has {count} labels");
            Err(ApiError::invalid("label", message).with_advice(known()))
        }
    }
}

/// The score of a class, or the logarithm of its odds.
fn relevance(found: &Classification, class: usize, measure: Measure) -> f32 {
    let logit = found.logits.get(class).copied().unwrap_or(f32::NEG_INFINITY);
    match (measure, found.function) {
        (Measure::Score, _) => found.scores.get(class).copied().unwrap_or(f32::NEG_INFINITY),
        (Measure::LogOdds, ClassificationFunction::Softmax) => {
            let others: Vec<f32> = found
                .logits
                .iter()
                .enumerate()
                .filter(|(index, _)| *index != class)
                .map(|(_, it)| *it)
                .collect();
            (f64::from(logit) - log_sum_exp(ArrayView1::from(&others))) as f32
        }
        // the sigmoid's odds have the logit as their logarithm; the score of a regression is its logit
        (Measure::LogOdds, _) => logit,
    }
}

impl Candidates {
    fn of(request: &mut RerankRequest) -> ApiResult<Self> {
        let (form, texts) = match (request.documents.take(), request.texts.take()) {
            (Some(documents), None) => (Form::Documents, documents.into_iter().map(|it| it.0).collect()),
            (None, Some(texts)) => (Form::Texts, texts),
            (None, None) => return Err(ApiError::invalid("documents", "documents is missing")),
            (Some(_), Some(_)) => {
                let error = ApiError::invalid("texts", "documents and texts are both given");
                return Err(error.with_advice("give one of them"));
            }
        };
        let (returned, other) = match form {
            Form::Documents => (request.return_documents, ("return_text", request.return_text)),
            Form::Texts => (request.return_text, ("return_documents", request.return_documents)),
        };
        let mut candidates =
            Candidates { form, texts, top_n: usize::MAX, returns_texts: returned == Some(true) };
        if let (name, Some(_)) = other {
            let message = format!("{name} does not belong to {}", candidates.field());
            return Err(ApiError::invalid(name, message));
        }
        check_count(candidates.field(), candidates.texts.len())?;
        if let Some(top_n) = request.top_n {
            candidates.top_n = top_n;
            if top_n == 0 {
                return Err(ApiError::invalid("top_n", "top_n is 0, expected at least 1"));
            }
        }
        Ok(candidates)
    }

    fn field(&self) -> &'static str {
        match self.form {
            Form::Documents => "documents",
            Form::Texts => "texts",
        }
    }

    /// The candidates by their scores.
    fn response(mut self, model: String, scores: &[f32], usage: InputUsage) -> RerankResponse {
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|left, right| scores[*right].total_cmp(&scores[*left]));
        order.truncate(self.top_n);
        let mut text = |index: usize| self.returns_texts.then(|| std::mem::take(&mut self.texts[index]));
        match self.form {
            Form::Texts => RerankResponse::Ranks(
                order.iter().map(|&index| Rank { index, score: scores[index], text: text(index) }).collect(),
            ),
            Form::Documents => {
                let results = order.iter().map(|&index| RankedDocument {
                    index,
                    relevance_score: scores[index],
                    document: text(index).map(|text| DocumentText { text }),
                });
                let results = results.collect();
                RerankResponse::List(RerankList { id: super::ids::new("rerank"), model, results, usage })
            }
        }
    }
}
