//! The body of an inference response: JSON, and the bytes of tensors behind it.

use axum::http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::VERSION;
use super::problem::Problem;
use super::request::HEADER_LENGTH;
use super::tensor::DataType;

/// An inference response. Outputs as bytes follow the JSON, whose length the header `Inference-Header-Content-Length` has then.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct InferResponse {
    model_name: String,
    model_version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    outputs: Vec<OutputTensor>,
}

/// An output tensor.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OutputTensor {
    name: &'static str,
    datatype: DataType,
    shape: Vec<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<BinaryOutput>,
    /// Its elements in a flat list, row by row. Absent if it is bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Object>>)]
    data: Option<OutputData>,
}

/// Where the bytes of an output are.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BinaryOutput {
    /// Number of its bytes behind the JSON.
    binary_data_size: usize,
}

/// Elements of an output.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub(crate) enum OutputData {
    Floats(Vec<f32>),
    Texts(Vec<String>),
}

/// An output that a model computed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Output {
    pub(crate) name: &'static str,
    pub(crate) shape: Vec<usize>,
    pub(crate) data: OutputData,
}

impl OutputData {
    fn datatype(&self) -> DataType {
        match self {
            OutputData::Floats(_) => DataType::Fp32,
            OutputData::Texts(_) => DataType::Bytes,
        }
    }

    /// Appends the elements as bytes, little-endian; returns how many.
    fn append_to(&self, bytes: &mut Vec<u8>) -> usize {
        let before = bytes.len();
        match self {
            OutputData::Floats(floats) => {
                bytes.reserve(size_of_val(floats.as_slice()));
                bytes.extend(floats.iter().flat_map(|float| float.to_le_bytes()));
            }
            OutputData::Texts(texts) => {
                for text in texts {
                    let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
                    bytes.extend(length.to_le_bytes());
                    bytes.extend(text.as_bytes());
                }
            }
        }
        bytes.len() - before
    }

    fn is_finite(&self) -> bool {
        match self {
            OutputData::Floats(floats) => floats.iter().all(|float| float.is_finite()),
            OutputData::Texts(_) => true,
        }
    }
}

/// The response with outputs, each in JSON or as bytes.
///
/// # Errors
/// Numbers that JSON does not have.
pub(crate) fn encode(
    model_name: String,
    id: Option<String>,
    outputs: Vec<(Output, Encoding)>,
) -> Result<Response, Problem> {
    let mut tail = Vec::new();
    let outputs: Vec<OutputTensor> = outputs
        .into_iter()
        .map(|(output, encoding)| output_tensor(output, encoding, &mut tail))
        .collect::<Result<_, _>>()?;
    let is_binary = outputs.iter().any(|output| output.parameters.is_some());
    let response = InferResponse { model_name, model_version: VERSION, id, outputs };
    // what is not finite was refused before
    let mut body = serde_json::to_vec(&response).map_err(|_| Problem::NotFinite)?;
    if !is_binary {
        return Ok(([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response());
    }
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/octet-stream")),
        (HeaderName::from_static(HEADER_LENGTH), HeaderValue::from(body.len())),
    ];
    body.append(&mut tail);
    Ok((headers, body).into_response())
}

/// How an output is returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Json,
    Bytes,
}

fn output_tensor(output: Output, encoding: Encoding, tail: &mut Vec<u8>) -> Result<OutputTensor, Problem> {
    let Output { name, shape, data } = output;
    let datatype = data.datatype();
    let (parameters, data) = match encoding {
        Encoding::Bytes => (Some(BinaryOutput { binary_data_size: data.append_to(tail) }), None),
        Encoding::Json if data.is_finite() => (None, Some(data)),
        Encoding::Json => return Err(Problem::NotFinite),
    };
    Ok(OutputTensor { name, datatype, shape, parameters, data })
}
