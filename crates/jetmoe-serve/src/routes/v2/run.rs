//! Runs inference requests: token ids by the model itself, texts by its engine.

use axum::http::HeaderMap;
use axum::response::Response;

use super::data::Elements;
use super::infer::{self, output_name, token_batch};
use super::metadata::{self, TEXT_INPUT, TEXT_OUTPUT};
use super::parameters::InferParameters;
use super::problem::Problem;
use super::request::{ParsedRequest, RequestedOutput};
use super::response::{Encoding, Output, OutputData, encode};
use super::tensor::Tensor;
use super::text::Steps;
use crate::compute::Ends;
use crate::error::{ApiError, ApiResult};
use crate::registry::Lease;
use crate::state::AppState;

/// Answers an inference request. `name`: the model in the address.
///
/// # Errors
/// A request that is not as the protocol and the metadata of the model say, or an error of the model.
pub(super) async fn run(
    state: &AppState,
    lease: &Lease,
    name: &str,
    headers: &HeaderMap,
    body: &[u8],
) -> ApiResult<Response> {
    let ParsedRequest { request, mut tensors } =
        ParsedRequest::new(headers, body, &metadata::inputs(lease.model()))?;
    if let Some(found) = request.model_name
        && found != name
    {
        return Err(Problem::ModelName { found, expected: name.to_owned() }.into());
    }
    let parameters = InferParameters::new(request.parameters, state.deadline())?;
    let text = tensors.iter().position(|tensor| tensor.name == TEXT_INPUT);
    let output = if text.is_some() { TEXT_OUTPUT } else { output_name(lease.model()) };
    let encoding = output_encoding(request.outputs.as_deref(), output, parameters.binary_outputs)?;
    let id = request.id;
    match text {
        Some(index) if tensors.len() == 1 => {
            let output = texts(state, lease, tensors.swap_remove(index), &parameters).await?;
            Ok(encode(lease.name().to_owned(), id, vec![(output, encoding)])?)
        }
        Some(_) => {
            let found = tensors.iter().map(|tensor| tensor.name.as_str()).collect::<Vec<_>>().join(", ");
            Err(Problem::Inputs { found, expected: "text_input alone, or input_ids" }.into())
        }
        None => token_ids(state, lease, tensors, &parameters, (id, encoding)).await,
    }
}

/// How the output is returned. Without a list of outputs, or with an empty one, it is requested.
fn output_encoding(
    requested: Option<&[RequestedOutput]>,
    name: &'static str,
    binary: bool,
) -> Result<Encoding, Problem> {
    let encoding = |binary| if binary { Encoding::Bytes } else { Encoding::Json };
    let outputs = match requested {
        None | Some([]) => return Ok(encoding(binary)),
        Some(outputs) => outputs,
    };
    if let Some(other) = outputs.iter().find(|output| output.name != name) {
        return Err(Problem::UnknownOutput { found: other.name.clone(), known: vec![name] });
    }
    if outputs.len() > 1 {
        return Err(Problem::Twice { tensor: name.to_owned() });
    }
    let own = outputs.first().and_then(|output| output.parameters.as_ref()?.binary_data);
    Ok(encoding(own.unwrap_or(binary)))
}

/// Continues every text of a tensor.
async fn texts(
    state: &AppState,
    lease: &Lease,
    tensor: Tensor,
    parameters: &InferParameters,
) -> ApiResult<Output> {
    let Tensor { name, shape, elements } = tensor;
    let is_column = matches!(shape[..], [count] | [count, 1] if count >= 1);
    let texts = match elements {
        Elements::Texts(texts) if is_column => texts,
        _ => {
            let expected = "[texts] or [texts, 1] with at least one text".to_owned();
            return Err(Problem::Shape { tensor: name, found: shape, expected }.into());
        }
    };
    let limit = state.config().limits.sequences;
    if texts.len() > limit {
        let message = format!("{name} has {} texts, more than the {limit} of a request", texts.len());
        return Err(ApiError::invalid(TEXT_INPUT, message).with_advice("send them in several requests"));
    }
    let generation = parameters.generation()?;
    if generation.has_details() {
        let (name, found) = ("details".to_owned(), "true".to_owned());
        let expected = "false: tensors have no details, which generate returns";
        return Err(Problem::Parameter { name, found, expected }.into());
    }
    let count = texts.len();
    let steps = Steps::start(state, lease, texts, &generation, parameters.deadline).await?;
    let continuations = steps.collect(count).await?;
    let texts = continuations.into_iter().map(|continuation| continuation.text).collect();
    Ok(Output { name: TEXT_OUTPUT, shape, data: OutputData::Texts(texts) })
}

/// Runs the model over token ids.
async fn token_ids(
    state: &AppState,
    lease: &Lease,
    tensors: Vec<Tensor>,
    parameters: &InferParameters,
    (id, encoding): (Option<String>, Encoding),
) -> ApiResult<Response> {
    parameters.without_generation()?;
    let batch = token_batch(lease.model(), &tensors)?;
    let owned = lease.clone();
    let ends = Ends { deadline: parameters.deadline, shutdown: state.shutdown() };
    let work = move |cancellation: &_| {
        let output = infer::run(owned.model(), &batch, cancellation)?;
        owned.computations().count_tokens(batch.mask().iter().filter(|counts| **counts).count());
        Ok(encode(owned.name().to_owned(), id, vec![(output, encoding)])?)
    };
    lease.computations().run(ends, work).await
}
