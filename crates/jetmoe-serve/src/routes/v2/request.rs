//! The body of an inference request: JSON, and the bytes of tensors behind it.

use axum::http::HeaderMap;
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::data::JsonData;
use super::problem::Problem;
use super::tensor::{DataType, Tensor};

/// The header with the length of the JSON, if bytes of tensors follow it.
pub(crate) const HEADER_LENGTH: &str = "inference-header-content-length";

/// An inference request. With tensors as bytes the JSON is followed by them, in the order of the inputs, and the header
/// `Inference-Header-Content-Length` has the length of the JSON.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct InferRequest {
    /// Returned in the response.
    pub(crate) id: Option<String>,
    /// The name of the address again, as KServe's client sends it.
    pub(crate) model_name: Option<String>,
    /// `binary_data_output` (outputs as bytes), `timeout` in microseconds, and with the input `text_input` the parameters of
    /// `generate`.
    #[schema(value_type = Option<Object>)]
    pub(crate) parameters: Option<Map<String, Value>>,
    /// `input_ids` and perhaps `attention_mask`, or `text_input`.
    #[schema(min_items = 1)]
    pub(crate) inputs: Vec<InputTensor>,
    /// The outputs to return, in this order; by default all.
    pub(crate) outputs: Option<Vec<RequestedOutput>>,
}

/// An input tensor.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct InputTensor {
    /// Its name in the metadata of the model.
    pub(crate) name: String,
    /// Its sizes.
    pub(crate) shape: Vec<u64>,
    /// The datatype in the metadata of the model.
    #[schema(example = "INT64")]
    pub(crate) datatype: String,
    /// Where its bytes are.
    pub(crate) parameters: Option<InputParameters>,
    /// Its elements, row by row, in a flat list or nested as the shape says.
    #[schema(value_type = Option<Vec<Object>>)]
    pub(crate) data: Option<JsonData>,
}

/// Parameters of an input.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct InputParameters {
    /// The tensor is this many bytes behind the JSON, instead of `data`.
    pub(crate) binary_data_size: Option<u64>,
}

/// An output to return.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RequestedOutput {
    /// Its name in the metadata of the model.
    pub(crate) name: String,
    /// How it is returned.
    pub(crate) parameters: Option<OutputParameters>,
}

/// Parameters of a requested output.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OutputParameters {
    /// As bytes behind the JSON of the response; by default as `binary_data_output` of the request says.
    pub(crate) binary_data: Option<bool>,
}

/// A request whose tensors have the elements that their shapes say.
#[derive(Debug)]
pub(crate) struct ParsedRequest {
    pub(crate) request: InferRequest,
    pub(crate) tensors: Vec<Tensor>,
}

impl ParsedRequest {
    /// Reads a body. `known`: names and datatypes of the model's inputs.
    ///
    /// # Errors
    /// Anything that is not as the protocol and the model's metadata say.
    pub(crate) fn new(
        headers: &HeaderMap,
        body: &[u8],
        known: &[(&'static str, DataType)],
    ) -> Result<Self, Problem> {
        let (json, tail) = split(headers, body)?;
        let mut request: InferRequest = serde_json::from_slice(json)?;
        let tensors = tensors(&mut request.inputs, tail, known)?;
        Ok(ParsedRequest { request, tensors })
    }
}

/// The JSON of a body, and the bytes behind it.
fn split<'a>(headers: &HeaderMap, body: &'a [u8]) -> Result<(&'a [u8], &'a [u8]), Problem> {
    let Some(length) = headers.get(HEADER_LENGTH) else { return Ok((body, &[])) };
    let invalid = || Problem::HeaderLength {
        found: String::from_utf8_lossy(length.as_bytes()).into_owned(),
        body: body.len(),
    };
    let length = length.to_str().ok().and_then(|length| length.parse::<usize>().ok()).ok_or_else(invalid)?;
    if length == 0 {
        return Err(Problem::RawTensor);
    }
    body.split_at_checked(length).ok_or_else(invalid)
}

/// The tensors of all inputs. Takes their elements out of `inputs`.
fn tensors(
    inputs: &mut [InputTensor],
    mut tail: &[u8],
    known: &[(&'static str, DataType)],
) -> Result<Vec<Tensor>, Problem> {
    let mut tensors: Vec<Tensor> = Vec::with_capacity(inputs.len().min(known.len()));
    for input in inputs {
        let name = &input.name;
        let Some((_, datatype)) = known.iter().find(|(known, _)| *known == name.as_str()) else {
            let known = known.iter().map(|(name, _)| *name).collect();
            return Err(Problem::UnknownInput { found: name.clone(), known });
        };
        if tensors.iter().any(|tensor| tensor.name == *name) {
            return Err(Problem::Twice { tensor: name.clone() });
        }
        if input.datatype != datatype.to_string() {
            return Err(Problem::Datatype {
                tensor: name.clone(),
                found: input.datatype.clone(),
                expected: *datatype,
            });
        }
        let size = input.parameters.as_ref().and_then(|parameters| parameters.binary_data_size);
        tensors.push(match (input.data.take(), size) {
            (Some(data), None) => Tensor::from_json(name, *datatype, &input.shape, data)?,
            (None, Some(size)) => {
                let (bytes, rest) =
                    usize::try_from(size).ok().and_then(|size| tail.split_at_checked(size)).ok_or_else(
                        || Problem::BinaryShort { tensor: name.clone(), needed: size, left: tail.len() },
                    )?;
                tail = rest;
                Tensor::from_bytes(name, *datatype, &input.shape, bytes)?
            }
            (None, None) => return Err(Problem::NoData { tensor: name.clone() }),
            (Some(_), Some(_)) => return Err(Problem::TwoData { tensor: name.clone() }),
        });
    }
    if tail.is_empty() { Ok(tensors) } else { Err(Problem::BinaryLeft { left: tail.len() }) }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderMap;
    use serde_json::{Value, json};

    use super::super::data::Elements;
    use super::super::tensor::DataType;
    use super::{HEADER_LENGTH, ParsedRequest};

    const KNOWN: [(&str, DataType); 2] = [("input_ids", DataType::Int64), ("text_input", DataType::Bytes)];

    fn parse(length: Option<&str>, body: &[u8]) -> Result<ParsedRequest, String> {
        let mut headers = HeaderMap::new();
        if let Some(length) = length {
            headers.insert(HEADER_LENGTH, length.parse().unwrap());
        }
        ParsedRequest::new(&headers, body, &KNOWN).map_err(|problem| problem.to_string())
    }

    /// A request with tensors of bytes.
    fn binary(json: &Value, tail: &[u8]) -> Result<ParsedRequest, String> {
        let json = json.to_string();
        parse(Some(&json.len().to_string()), &[json.as_bytes(), tail].concat())
    }

    fn ids(size: u64) -> Value {
        json!({"inputs": [{"name": "input_ids", "shape": [1, 2], "datatype": "INT64",
            "parameters": {"binary_data_size": size}}]})
    }

    #[test]
    fn bytes_and_lists_give_the_same_tensors() {
        let list = json!({"inputs": [{"name": "input_ids", "shape": [1, 2], "datatype": "INT64", "data": [[7, 8]]}]});
        let list = parse(None, list.to_string().as_bytes()).unwrap();
        let bytes: Vec<u8> = [7_i64, 8].iter().flat_map(|id| id.to_le_bytes()).collect();
        let binary = binary(&ids(16), &bytes).unwrap();
        assert_eq!(list.tensors, binary.tensors);
        assert_eq!(list.tensors[0].elements, Elements::Integers(vec![7, 8]));
    }

    #[test]
    fn bytes_follow_in_the_order_of_the_inputs() {
        let request = json!({"inputs": [
            {"name": "text_input", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 5}},
            {"name": "input_ids", "shape": [1, 1], "datatype": "INT64", "parameters": {"binary_data_size": 8}},
        ]});
        let tail = [1, 0, 0, 0, b'x', 9, 0, 0, 0, 0, 0, 0, 0];
        let parsed = binary(&request, &tail).unwrap();
        assert_eq!(parsed.tensors[0].elements, Elements::Texts(vec!["x".to_owned()]));
        assert_eq!(parsed.tensors[1].elements, Elements::Integers(vec![9]));
    }

    #[test]
    fn a_length_that_does_not_fit_is_refused() {
        let json = ids(16).to_string();
        let body = [json.as_bytes(), &[0; 16]].concat();
        for length in ["1000000", "18446744073709551615", "18446744073709551616", "-1", "x", ""] {
            let problem = parse(Some(length), &body).unwrap_err();
            assert!(problem.contains("Inference-Header-Content-Length"), "{length}: {problem}");
        }
        assert!(parse(Some("0"), &body).unwrap_err().contains("raw tensor"));
        assert!(parse(Some("3"), &body).unwrap_err().contains("not valid"));
        assert!(parse(None, &body).unwrap_err().contains("not valid"));
    }

    #[test]
    fn sizes_of_bytes_are_exact() {
        assert!(binary(&ids(16), &[0; 15]).unwrap_err().contains("15 bytes are left"));
        assert!(binary(&ids(u64::MAX), &[0; 16]).unwrap_err().contains("16 bytes are left"));
        assert!(binary(&ids(8), &[0; 16]).unwrap_err().contains("input_ids has 8 bytes"));
        assert!(binary(&ids(16), &[0; 17]).unwrap_err().contains("1 bytes are left"));
    }

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        let refused = |input: Value, name: &str| {
            let problem = parse(None, json!({"inputs": [input]}).to_string().as_bytes()).unwrap_err();
            assert!(problem.contains(name), "{problem}");
        };
        let input = |name: &str, datatype: &str| json!({"name": name, "shape": [1], "datatype": datatype, "data": [1]});
        refused(input("other", "INT64"), "no input other");
        refused(input("input_ids", "INT32"), "INT32, expected INT64");
        refused(json!({"name": "input_ids", "shape": [1], "datatype": "INT64"}), "neither data");
        refused(
            json!({"name": "input_ids", "shape": [1], "datatype": "INT64", "parameters": {"shared_memory_region": "x"}}),
            "shared_memory_region",
        );
        refused(json!({"name": "input_ids", "shape": [-1], "datatype": "INT64", "data": []}), "-1");
        let twice = json!({"inputs": [input("input_ids", "INT64"), input("input_ids", "INT64")]});
        assert!(parse(None, twice.to_string().as_bytes()).unwrap_err().contains("twice"));
    }
}
