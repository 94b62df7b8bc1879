//! What can be wrong with an inference request.

use axum::http::StatusCode;

use super::tensor::DataType;
use crate::error::ApiError;

/// What is wrong with an inference request. All are the client's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    /// The header that says where the JSON ends.
    #[error(
        "the header Inference-Header-Content-Length is {found:?}, expected the length of the JSON at the begin of the body, \
         at most its {body} bytes"
    )]
    HeaderLength { found: String, body: usize },
    #[error(
        "the request has no JSON, Inference-Header-Content-Length is 0: a raw tensor has no shape\n  describe the inputs in JSON, \
         with binary_data_size for each tensor in bytes"
    )]
    RawTensor,
    #[error("the JSON of the request is not valid: {0}")]
    Json(#[from] serde_json::Error),
    #[error("there is no input {found}, the model has: {}", known.join(", "))]
    UnknownInput { found: String, known: Vec<&'static str> },
    #[error("there is no output {found}, these inputs give: {}", known.join(", "))]
    UnknownOutput { found: String, known: Vec<&'static str> },
    #[error("{tensor} is named twice")]
    Twice { tensor: String },
    #[error("the inputs are {found}, expected {expected}")]
    Inputs { found: String, expected: &'static str },
    #[error("{tensor} has the datatype {found}, expected {expected}")]
    Datatype { tensor: String, found: String, expected: DataType },
    #[error("{tensor} has the shape {found:?}, expected {expected}")]
    Shape { tensor: String, found: Vec<usize>, expected: String },
    #[error("{tensor} has the shape {shape:?}, which is more than fits in memory")]
    ShapeTooLarge { tensor: String, shape: Vec<u64> },
    #[error("{tensor} has {found} elements, and its shape {shape:?} needs {expected}")]
    Elements { tensor: String, found: usize, shape: Vec<usize>, expected: usize },
    #[error("{tensor} has lists of the shape {found:?}, expected {shape:?} or one flat list")]
    Nesting { tensor: String, found: Vec<usize>, shape: Vec<usize> },
    #[error("{tensor} has other elements than its datatype {datatype}")]
    ElementType { tensor: String, datatype: DataType },
    #[error("{tensor} has neither data nor the parameter binary_data_size")]
    NoData { tensor: String },
    #[error("{tensor} has both data and the parameter binary_data_size")]
    TwoData { tensor: String },
    #[error("{tensor} has {found} bytes, which are not those of {datatype} in the shape {shape:?}")]
    BinarySize { tensor: String, found: usize, shape: Vec<usize>, datatype: DataType },
    #[error("{tensor} has the binary_data_size {needed}, and {left} bytes are left in the body")]
    BinaryShort { tensor: String, needed: u64, left: usize },
    #[error("{left} bytes are left in the body behind the tensors")]
    BinaryLeft { left: usize },
    #[error("element {index} of {tensor} has {length} bytes by its length, and {left} are left")]
    TextLength { tensor: String, index: usize, length: usize, left: usize },
    #[error("element {index} of {tensor} is not UTF-8")]
    Utf8 { tensor: String, index: usize },
    #[error("the parameter {name} is {found}, expected {expected}")]
    Parameter { name: String, found: String, expected: &'static str },
    #[error("the parameter {name} is not supported by this server\n  leave it out")]
    RefusedParameter { name: &'static str },
    #[error("there is no parameter {name}, known are: {}", known.join(", "))]
    UnknownParameter { name: String, known: Vec<&'static str> },
    #[error("element {index} of {tensor} is {found}, expected {expected}")]
    Element { tensor: &'static str, index: usize, found: i64, expected: &'static str },
    #[error(
        "sequence {row} of attention_mask has no token, or padding between tokens\n  put the padding in front of the tokens or \
         behind them"
    )]
    Mask { row: usize },
    #[error(
        "the batch has {found} tokens with padding, more than the {limit} of a request\n  send fewer sequences at a time"
    )]
    Tokens { found: usize, limit: usize },
    #[error(
        "the output would have {found} bytes, more than the {limit} of a response\n  send fewer tokens at a time"
    )]
    OutputSize { found: u128, limit: usize },
    #[error("the model {found:?} of the body is not {expected:?} of the address")]
    ModelName { found: String, expected: String },
    #[error("the model {model} has no version {found:?}\n  leave the version out, or ask for version 1")]
    Version { model: String, found: String },
    #[error("an output is infinite or NaN, which JSON does not have\n  request it with binary_data")]
    NotFinite,
}

impl From<Problem> for ApiError {
    fn from(problem: Problem) -> Self {
        let status = match problem {
            Problem::Tokens { .. } | Problem::OutputSize { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Problem::Version { .. } => StatusCode::NOT_FOUND,
            Problem::NotFinite => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        };
        let text = problem.to_string();
        match text.split_once('\n') {
            None => ApiError::new(status, "invalid_request", text),
            Some((message, advice)) => {
                ApiError::new(status, "invalid_request", message).with_advice(advice.trim())
            }
        }
    }
}
