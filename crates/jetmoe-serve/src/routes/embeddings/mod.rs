//! Embeddings of texts, in the form of OpenAI's API.

mod embed;
mod input;
mod pooling;

use axum::extract::State;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jetmoe_rt::{ModelConfig, Task};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::embed::{Embedding, EmbeddingOptions, embed};
use self::input::Inputs;
use self::pooling::{Normalization, Pooling};
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

/// What to embed, and how.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct EmbeddingRequest {
    /// Name of a model whose task is `backbone`. May be left out if the server has one model.
    model: Option<String>,
    /// A text, token ids, or a list of either, at most 2048. Control tokens in a text are text.
    input: Inputs,
    /// Numbers or their bytes.
    #[serde(default)]
    encoding_format: Option<EncodingFormat>,
    /// Must be the number of the model's dimensions, if it is given: vectors are not shortened.
    dimensions: Option<usize>,
    /// Accepted; has no effect.
    #[expect(dead_code, reason = "identifies an end user, and no result depends on it")]
    user: Option<String>,
    /// How the hidden states of the tokens become the vector of a text; `mean` by default. With `none` the embedding is a list of
    /// vectors, one for each token.
    pooling: Option<Pooling>,
    /// Whether vectors are divided by their Euclidean norm; true by default.
    normalize: Option<bool>,
}

/// The form of vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum EncodingFormat {
    /// Numbers.
    #[default]
    Float,
    /// Their bytes in base64: float32, little-endian, vector by vector.
    Base64,
}

/// The embeddings of a request, in the order of its inputs.
#[derive(Debug, Serialize, ToSchema)]
struct EmbeddingResponse {
    /// `list`.
    object: &'static str,
    data: Vec<EmbeddingObject>,
    /// The model that computed them.
    model: String,
    usage: InputUsage,
}

/// The embedding of an input.
#[derive(Debug, Serialize, ToSchema)]
struct EmbeddingObject {
    /// `embedding`.
    object: &'static str,
    /// Index of the input, from 0.
    index: usize,
    embedding: EmbeddingValue,
}

/// A vector, a list of vectors without pooling, or their bytes in base64.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
enum EmbeddingValue {
    Vector(Vec<f32>),
    Vectors(Vec<Vec<f32>>),
    Base64(String),
}

/// Embeds texts.
#[utoipa::path(
    post, path = "/v1/embeddings", tag = "embeddings", operation_id = "create_embedding", request_body = EmbeddingRequest,
    responses((status = 200, description = "The embeddings", body = EmbeddingResponse), ErrorResponses)
)]
async fn create(
    State(state): State<AppState>,
    JsonBody(request): JsonBody<EmbeddingRequest>,
) -> ApiResult<EncodedJson> {
    check_count("input", request.input.0.len())?;
    let lease = state.registry().get(request.model.as_deref()).await?;
    let model = lease.of_task(Task::Backbone)?.clone();
    check_dimensions(&request, model.config())?;
    let options = request.options();
    let format = request.encoding_format.unwrap_or_default();
    let inputs = request.input.0;
    let (name, owned) = (lease.name().to_owned(), lease.clone());
    let ends = Ends { deadline: state.deadline(), shutdown: state.shutdown() };
    let work = move |cancellation: &_| {
        let embeddings = embed(&model, &inputs, options, cancellation)?;
        owned.computations().count_tokens(embeddings.iter().map(|embedding| embedding.tokens).sum());
        EncodedJson::new(&EmbeddingResponse::new(name, embeddings, options.pooling, format))
    };
    lease.computations().run(ends, work).await
}

impl EmbeddingRequest {
    fn options(&self) -> EmbeddingOptions {
        EmbeddingOptions {
            pooling: self.pooling.unwrap_or_default(),
            normalization: match self.normalize {
                Some(false) => Normalization::None,
                Some(true) | None => Normalization::Euclidean,
            },
        }
    }
}

fn check_dimensions(request: &EmbeddingRequest, config: &ModelConfig) -> ApiResult<()> {
    let size = config.hidden_size;
    match request.dimensions {
        None => Ok(()),
        Some(dimensions) if dimensions == size => Ok(()),
        Some(_) => Err(ApiError::unsupported(
            "dimensions",
            format!(
                "leave it out: the vectors of this model have {size} dimensions, and a part of one has no meaning"
            ),
        )),
    }
}

impl EmbeddingResponse {
    fn new(model: String, embeddings: Vec<Embedding>, pooling: Pooling, format: EncodingFormat) -> Self {
        let usage = InputUsage::of(embeddings.iter().map(|embedding| embedding.tokens));
        let data = embeddings.into_iter().enumerate().map(|(index, embedding)| EmbeddingObject {
            object: "embedding",
            index,
            embedding: EmbeddingValue::new(embedding.vectors, pooling, format),
        });
        EmbeddingResponse { object: "list", data: data.collect(), model, usage }
    }
}

impl EmbeddingValue {
    fn new(vectors: Vec<Vec<f32>>, pooling: Pooling, format: EncodingFormat) -> Self {
        match (format, pooling) {
            (EncodingFormat::Base64, _) => {
                let bytes: Vec<u8> = vectors.iter().flatten().flat_map(|value| value.to_le_bytes()).collect();
                EmbeddingValue::Base64(STANDARD.encode(bytes))
            }
            (EncodingFormat::Float, Pooling::None) => EmbeddingValue::Vectors(vectors),
            (EncodingFormat::Float, Pooling::Mean | Pooling::Last) => {
                EmbeddingValue::Vector(vectors.into_iter().flatten().collect())
            }
        }
    }
}
