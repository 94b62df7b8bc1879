//! Classification of texts, in the forms of text-embeddings-inference and of vLLM.

mod input;
mod run;

use axum::extract::State;
use jetmoe_rt::{Classification, ClassificationFunction, ClassifierInput, ModelConfig, Task};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::input::{Inputs, Texts};
pub(super) use self::run::{RunOptions, classify};
use super::ErrorResponses;
use super::encoded::EncodedJson;
use super::inputs::{InputUsage, check_count};
use crate::compute::Ends;
use crate::error::{ApiError, ApiResult};
use crate::json::JsonBody;
use crate::state::AppState;

pub(super) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(create))
}

/// What to classify: `inputs` in the form of text-embeddings-inference, or `input` in the form of vLLM. Control tokens in a text
/// are text.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ClassifyRequest {
    /// Name of a model whose task is `sequence-classification`. May be left out if the server has one model.
    model: Option<String>,
    /// A text, a pair of texts that are one input, or a list of lists of one or two texts.
    inputs: Option<Inputs>,
    /// A text, or a list of texts. In place of `inputs`.
    input: Option<Texts>,
    /// Whether scores are the logits; false by default: they are the model's own, see `ClassPrediction`.
    raw_scores: Option<bool>,
    /// Whether an input that is longer than the model's positions is truncated; false by default: it is an error.
    truncate: Option<bool>,
    /// Not supported: the tokenizer's configuration says which end is removed.
    #[schema(value_type = Option<String>)]
    truncation_direction: Option<serde_json::Value>,
    /// Accepted; has no effect.
    #[expect(dead_code, reason = "identifies an end user, and no result depends on it")]
    user: Option<String>,
}

/// A class of an input.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
struct ClassPrediction {
    /// The probability of the class: by the softmax of all logits, or by the sigmoid of its own for a model of one label or of
    /// several labels at a time. The logit itself for a regression and with `raw_scores`.
    score: f32,
    /// Its name in the configuration of the model.
    label: String,
}

/// Every class of an input, the highest score first; of a batch, those of each input.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
#[serde(untagged)]
enum Predictions {
    One(Vec<ClassPrediction>),
    Batch(Vec<Vec<ClassPrediction>>),
}

/// The classes of inputs, for a request with `input`.
#[derive(Debug, Serialize, ToSchema)]
struct ClassList {
    id: String,
    /// `list`.
    object: &'static str,
    /// In seconds since 1970.
    created: u64,
    /// The model that computed them.
    model: String,
    data: Vec<ClassObject>,
    usage: InputUsage,
}

/// The classes of an input.
#[derive(Debug, Serialize, ToSchema)]
struct ClassObject {
    /// Index of the input, from 0.
    index: usize,
    /// The class with the highest score.
    label: String,
    /// Scores of all classes, in the order of the model's configuration.
    probs: Vec<f32>,
    num_classes: usize,
}

/// The body of a response, in the form of the request.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
enum ClassifyResponse {
    Predictions(Predictions),
    List(ClassList),
}

/// The form of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    One,
    Batch,
    List,
}

/// Classifies texts.
#[utoipa::path(
    post, path = "/classify", tag = "classification", operation_id = "classify", request_body = ClassifyRequest,
    responses((status = 200, description = "The classes", body = ClassifyResponse), ErrorResponses)
)]
async fn create(
    State(state): State<AppState>,
    JsonBody(request): JsonBody<ClassifyRequest>,
) -> ApiResult<EncodedJson> {
    let run = run_options(&request)?;
    let (field, form, inputs) = take_inputs(request.inputs, request.input)?;
    let lease = state.registry().get(request.model.as_deref()).await?;
    let model = lease.of_task(Task::SequenceClassification)?.clone();
    let (name, owned) = (lease.name().to_owned(), lease.clone());
    let ends = Ends { deadline: state.deadline(), shutdown: state.shutdown() };
    let work = move |cancellation: &_| {
        let classes = classify(&model, inputs, run, cancellation);
        let classes = classes.map_err(|error| ApiError::from(error).or_param(field))?;
        owned.computations().count_tokens(classes.iter().map(|class| class.tokens).sum());
        EncodedJson::new(&response(name, form, model.config(), classes))
    };
    lease.computations().run(ends, work).await
}

fn run_options(request: &ClassifyRequest) -> ApiResult<RunOptions> {
    refuse_direction(request.truncation_direction.as_ref())?;
    let function = match request.raw_scores {
        Some(true) => Some(ClassificationFunction::None),
        Some(false) | None => None,
    };
    Ok(RunOptions { truncation: request.truncate.into(), function })
}

/// Refuses `truncation_direction`.
pub(super) fn refuse_direction(direction: Option<&serde_json::Value>) -> ApiResult<()> {
    match direction {
        None => Ok(()),
        Some(_) => Err(ApiError::unsupported(
            "truncation_direction",
            "leave it out: truncation_side of the model's tokenizer_config.json says which end is removed",
        )),
    }
}

/// The inputs of a request, with the name of their field.
fn take_inputs(
    inputs: Option<Inputs>,
    input: Option<Texts>,
) -> ApiResult<(&'static str, Form, Vec<ClassifierInput>)> {
    let (field, form, inputs) = match (inputs, input) {
        (Some(inputs @ Inputs::One(_)), None) => ("inputs", Form::One, inputs.into_vec()),
        (Some(inputs @ Inputs::Batch(_)), None) => ("inputs", Form::Batch, inputs.into_vec()),
        (None, Some(Texts(texts))) => ("input", Form::List, texts.into_iter().map(Into::into).collect()),
        (None, None) => return Err(ApiError::invalid("inputs", "inputs is missing")),
        (Some(_), Some(_)) => {
            let error = ApiError::invalid("input", "inputs and input are both given");
            return Err(error.with_advice("give one of them"));
        }
    };
    check_count(field, inputs.len())?;
    Ok((field, form, inputs))
}

fn response(
    name: String,
    form: Form,
    config: &ModelConfig,
    classes: Vec<Classification>,
) -> ClassifyResponse {
    let mut predictions = classes.iter().map(|class| predictions_of(config, class));
    match form {
        Form::One => ClassifyResponse::Predictions(Predictions::One(predictions.next().unwrap_or_default())),
        Form::Batch => ClassifyResponse::Predictions(Predictions::Batch(predictions.collect())),
        Form::List => ClassifyResponse::List(ClassList::new(name, &classes)),
    }
}

/// Every class, the highest score first; in the order of the configuration if scores are equal.
fn predictions_of(config: &ModelConfig, class: &Classification) -> Vec<ClassPrediction> {
    let scores = config.labels.iter().zip(&class.scores);
    let mut predictions: Vec<ClassPrediction> =
        scores.map(|(label, score)| ClassPrediction { score: *score, label: label.clone() }).collect();
    predictions.sort_by(|left, right| right.score.total_cmp(&left.score));
    predictions
}

impl ClassList {
    fn new(model: String, classes: &[Classification]) -> Self {
        let data = classes.iter().enumerate().map(|(index, class)| ClassObject {
            index,
            label: class.label.clone(),
            probs: class.scores.clone(),
            num_classes: class.scores.len(),
        });
        ClassList {
            id: super::ids::new("classify"),
            object: "list",
            created: crate::registry::now(),
            model,
            data: data.collect(),
            usage: InputUsage::of(classes.iter().map(|class| class.tokens)),
        }
    }
}
