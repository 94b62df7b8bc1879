//! `/v2`: health, metadata, and inference on tensors in JSON and in bytes.

use jetmoe_rt::TokenBatch;
use jetmoe_rt::ndarray::{Array2, Array3, s};
use serde_json::{Value, json};

use crate::client::Reply;
use crate::server::{floats, floats_of_bytes, get, model, post, post_bytes};

const LENGTH: &str = "inference-header-content-length";

/// Three texts of different lengths.
const ROWS: [&[u32]; 3] = [&[1, 367, 308], &[1, 593], &[1, 367, 308, 324, 1948, 1555]];

fn path(name: &str) -> String {
    format!("/v2/models/{name}/infer")
}

/// A request with the rows as a padded batch.
fn batch(rows: &[&[u32]], pads_in_front: bool) -> (Value, Vec<usize>) {
    let columns = rows.iter().map(|row| row.len()).max().unwrap();
    let padded = |row: &&[u32], padding: u32, values: &dyn Fn(&u32) -> u32| {
        let padding = vec![padding; columns - row.len()];
        let values: Vec<u32> = row.iter().map(values).collect();
        if pads_in_front { [padding, values].concat() } else { [values, padding].concat() }
    };
    // any id may be there
    let ids: Vec<Vec<u32>> = rows.iter().map(|row| padded(row, 77, &|id| *id)).collect();
    let mask: Vec<Vec<u32>> = rows.iter().map(|row| padded(row, 0, &|_| 1)).collect();
    let shape = vec![rows.len(), columns];
    let input = |name: &str, data: &Vec<Vec<u32>>| json!({"name": name, "shape": shape, "datatype": "INT64", "data": data});
    (json!({"inputs": [input("input_ids", &ids), input("attention_mask", &mask)]}), shape)
}

/// The body of a request with tensors of 64-bit integers as bytes, and the length of its JSON.
fn binary(tensors: &[(&str, &[usize], &[i64])], mut request: Value) -> (String, Vec<u8>) {
    let mut tail = Vec::new();
    let mut inputs = Vec::new();
    for (name, shape, values) in tensors {
        let size = values.len() * 8;
        inputs.push(json!({"name": name, "shape": shape, "datatype": "INT64", "parameters": {"binary_data_size": size}}));
        tail.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    }
    request["inputs"] = json!(inputs);
    let json = request.to_string();
    (json.len().to_string(), [json.as_bytes(), &tail].concat())
}

/// As `tritonclient.http` sends it: without a content type.
fn send_binary(name: &str, tensors: &[(&str, &[usize], &[i64])], request: Value) -> Reply {
    let (length, body) = binary(tensors, request);
    post_bytes(&path(name), &[(LENGTH, &length)], &body)
}

/// JSON and bytes of a response with outputs as bytes.
fn split(reply: &Reply) -> (Value, &[u8]) {
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.headers["content-type"], "application/octet-stream");
    let (json, bytes) = reply.body.split_at(reply.headers[LENGTH].parse().unwrap());
    (serde_json::from_slice(json).unwrap(), bytes)
}

/// What the model computes for one row alone, `[1, tokens, width]`.
fn alone(name: &str, row: &[u32]) -> Array3<f32> {
    let output = model(name).session().unwrap().step(&TokenBatch::left_padded(&[row], 0).unwrap()).unwrap();
    let output = if name == "mini" { output.logits() } else { output.last_hidden_state() };
    output.unwrap().to_owned()
}

/// A message of an error, whose body has nothing else.
fn error(reply: &Reply) -> String {
    let body = reply.json();
    assert_eq!(body.as_object().unwrap().keys().collect::<Vec<_>>(), ["error"], "{body}");
    body["error"].as_str().unwrap().to_owned()
}

#[test]
fn health_and_metadata_are_in_the_forms_of_the_protocol() {
    assert_eq!(get("/v2/health/live").success()["live"], json!(true));
    let ready = get("/v2/health/ready").success();
    assert_eq!((&ready["live"], &ready["ready"]), (&json!(true), &json!(true)));
    let server = get("/v2").success();
    assert_eq!(server["name"], json!("jetmoe"));
    assert!(server["extensions"].as_array().unwrap().contains(&json!("binary_tensor_data")));
    for path in ["/v2/models/mini/ready", "/v2/models/mini/versions/1/ready"] {
        assert_eq!(get(path).success(), json!({"name": "mini", "ready": true}));
    }
    let tensor = |name: &str, datatype: &str, shape: &[i64]| json!({"name": name, "datatype": datatype, "shape": shape});
    let tokens = [tensor("input_ids", "INT64", &[-1, -1]), tensor("attention_mask", "INT64", &[-1, -1])];
    let metadata = get("/v2/models/mini").success();
    assert_eq!(metadata, get("/v2/models/mini/versions/1").success());
    assert_eq!(metadata["name"], json!("mini"));
    assert_eq!(metadata["inputs"], json!([tokens[0], tokens[1], tensor("text_input", "BYTES", &[-1])]));
    let outputs = json!([tensor("logits", "FP32", &[-1, -1, 2048]), tensor("text_output", "BYTES", &[-1])]);
    assert_eq!(metadata["outputs"], outputs);
    let backbone = get("/v2/models/backbone").success();
    assert_eq!(backbone["outputs"], json!([tensor("last_hidden_state", "FP32", &[-1, -1, 128])]));
    let classifier = get("/v2/models/classifier").success();
    assert_eq!(classifier["inputs"], json!(tokens));
    assert_eq!(classifier["outputs"], json!([tensor("logits", "FP32", &[-1, 2])]));
}

#[test]
fn a_model_or_version_that_does_not_exist_has_status_404() {
    for path in [
        "/v2/models/other",
        "/v2/models/other/ready",
        "/v2/models/mini/versions/2",
        "/v2/models/mini/versions/2/ready",
        "/v2/other",
    ] {
        let reply = get(path);
        assert_eq!(reply.status, 404, "{path}");
        assert!(!error(&reply).is_empty());
    }
    let (request, _) = batch(&ROWS, true);
    assert_eq!(post("/v2/models/mini/versions/2/infer", &request).status, 404);
    assert_eq!(post("/v2/models/mini/versions/1/infer", &request).status, 200);
    assert_eq!(get(&path("mini")).status, 405);
}

#[test]
fn outputs_are_those_of_each_row_alone() {
    for name in ["mini", "backbone"] {
        for pads_in_front in [true, false] {
            let (request, shape) = batch(&ROWS, pads_in_front);
            let reply = post(&path(name), &request).success();
            let output = &reply["outputs"][0];
            let expected: Vec<Array3<f32>> = ROWS.iter().map(|row| alone(name, row)).collect();
            let width = expected[0].dim().2;
            assert_eq!(output["shape"], json!([shape[0], shape[1], width]));
            let found = Array3::from_shape_vec((shape[0], shape[1], width), floats(&output["data"])).unwrap();
            for (row, expected) in expected.iter().enumerate() {
                let length = ROWS[row].len();
                let begin = if pads_in_front { shape[1] - length } else { 0 };
                let tokens = found.slice(s![row, begin..begin + length, ..]);
                assert_eq!(tokens, expected.slice(s![0, .., ..]), "{name} {row}");
                // padding is 0
                let others = found.slice(s![row, .., ..]).iter().filter(|value| **value != 0.0).count();
                assert_eq!(others, expected.iter().filter(|value| **value != 0.0).count());
            }
        }
    }
}

#[test]
fn bytes_and_json_have_the_same_bits() {
    let values: Vec<i64> = ROWS[2].iter().map(|id| i64::from(*id)).collect();
    let shape = [1, values.len()];
    let nested = json!({"id": "7", "inputs": [{"name": "input_ids", "shape": shape, "datatype": "INT64", "data": [values]}]});
    let flat =
        json!({"inputs": [{"name": "input_ids", "shape": shape, "datatype": "INT64", "data": values}]});
    let in_json = post(&path("mini"), &nested).success();
    assert_eq!((&in_json["id"], &in_json["model_name"]), (&json!("7"), &json!("mini")));
    let numbers = floats(&in_json["outputs"][0]["data"]);
    assert_eq!(post(&path("mini"), &flat).success()["outputs"], in_json["outputs"]);
    assert_eq!(numbers, alone("mini", ROWS[2]).iter().copied().collect::<Vec<_>>());

    let tensors = [("input_ids", &shape[..], values.as_slice())];
    let reply = send_binary("mini", &tensors, json!({"parameters": {"binary_data_output": true}}));
    let (json, bytes) = split(&reply);
    let output = &json["outputs"][0];
    assert_eq!((&output["name"], &output["datatype"]), (&json!("logits"), &json!("FP32")));
    assert_eq!(output["parameters"], json!({"binary_data_size": bytes.len()}));
    assert_eq!((&output["data"], floats_of_bytes(bytes)), (&Value::Null, numbers.clone()));

    let outputs = json!({"outputs": [{"name": "logits", "parameters": {"binary_data": true}}]});
    assert_eq!(split(&send_binary("mini", &tensors, outputs)).1, bytes);
    let outputs = json!({"outputs": [{"name": "logits", "parameters": {"binary_data": false}}],
        "parameters": {"binary_data_output": true}});
    assert_eq!(floats(&send_binary("mini", &tensors, outputs).success()["outputs"][0]["data"]), numbers);
    let empty = json!({"outputs": []});
    assert_eq!(floats(&send_binary("mini", &tensors, empty).success()["outputs"][0]["data"]), numbers);
}

#[test]
fn a_classifier_returns_the_logits_of_its_classes() {
    let (request, _) = batch(&ROWS, true);
    let reply = post(&path("classifier"), &request).success();
    let found = floats(&reply["outputs"][0]["data"]);
    assert_eq!(reply["outputs"][0]["shape"], json!([3, 2]));
    let found = Array2::from_shape_vec((3, 2), found).unwrap();
    for (row, ids) in ROWS.iter().enumerate() {
        let session =
            model("classifier").session().unwrap().step(&TokenBatch::left_padded(&[ids], 0).unwrap());
        assert_eq!(found.row(row), session.unwrap().class_logits().unwrap().row(0), "{row}");
    }
    let (behind, _) = batch(&ROWS, false);
    assert_eq!(post(&path("classifier"), &behind).success()["outputs"], reply["outputs"]);
}

/// A request for two tokens, with changed fields of its input.
fn changed(fields: Value) -> Value {
    let mut input = json!({"name": "input_ids", "shape": [1, 2], "datatype": "INT64", "data": [1, 2]});
    for (name, value) in fields.as_object().unwrap() {
        input[name] = value.clone();
    }
    json!({"inputs": [input]})
}

#[test]
fn what_is_not_as_the_metadata_says_is_refused() {
    let with_mask = |mask: Value| {
        let mut request = changed(json!({}));
        let mask = json!({"name": "attention_mask", "shape": [1, 2], "datatype": "INT64", "data": mask});
        request["inputs"].as_array_mut().unwrap().push(mask);
        request
    };
    let with = |name: &str, value: Value| {
        let mut request = changed(json!({}));
        request[name] = value;
        request
    };
    for (request, part) in [
        (changed(json!({"datatype": "FP32"})), "FP32, expected INT64"),
        (changed(json!({"datatype": "INT65"})), "INT65"),
        (changed(json!({"name": "position_ids"})), "position_ids"),
        (changed(json!({"shape": [2]})), "[2]"),
        (changed(json!({"shape": [1, 3]})), "2 elements"),
        (changed(json!({"shape": [0, 2], "data": []})), "[0, 2]"),
        (changed(json!({"shape": [18446744073709551615_u64, 2]})), "more than fits in memory"),
        (changed(json!({"shape": [4294967296_u64, 4294967296_u64]})), "more than fits in memory"),
        (changed(json!({"shape": [1.5, 2]})), "1.5"),
        (changed(json!({"data": [[1], [2]]})), "[2, 1]"),
        (changed(json!({"data": [1, "2"]})), "string"),
        (changed(json!({"data": [1, 2.5]})), "2.5"),
        (changed(json!({"data": [1, -2]})), "-2"),
        (changed(json!({"data": [1, 2048]})), "2048"),
        (changed(json!({"data": [1, 4294967296_u64]})), "4294967296"),
        (changed(json!({"data": null})), "neither data"),
        (changed(json!({"parameters": {"binary_data_size": 16}})), "both data"),
        (changed(json!({"other": 1})), "other"),
        (with_mask(json!([1, 2])), "0 or 1"),
        (with_mask(json!([0, 0])), "no token"),
        (with("outputs", json!([{"name": "hidden"}])), "hidden"),
        (with("outputs", json!([{"name": "logits"}, {"name": "logits"}])), "twice"),
        (with("outputs", json!([{"name": "logits", "parameters": {"classification": 3}}])), "classification"),
        (with("parameters", json!({"max_tokens": 3})), "max_tokens"),
        (with("parameters", json!({"priority": 3})), "priority"),
        (with("model_name", json!("backbone")), "backbone"),
        (with("inputs", json!([])), "none"),
        (with("other", json!(1)), "other"),
    ] {
        let reply = post(&path("mini"), &request);
        assert_eq!(reply.status, 400, "{request}: {}", reply.text());
        assert!(error(&reply).contains(part), "{request}: {}", reply.text());
    }
}

#[test]
fn bytes_that_do_not_fit_are_refused() {
    let (length, body) = binary(&[("input_ids", &[1, 2], &[1, 2])], json!({}));
    let refused = |headers: &[(&str, &str)], body: &[u8], part: &str| {
        let reply = post_bytes(&path("mini"), headers, body);
        assert_eq!(reply.status, 400, "{}", reply.text());
        assert!(error(&reply).contains(part), "{}", reply.text());
    };
    refused(&[(LENGTH, "1000000")], &body, "Inference-Header-Content-Length");
    refused(&[(LENGTH, "18446744073709551616")], &body, "Inference-Header-Content-Length");
    refused(&[(LENGTH, "0")], &body, "raw tensor");
    refused(&[(LENGTH, &length)], &body[..body.len() - 1], "15 bytes are left");
    refused(&[(LENGTH, &length)], &[body.as_slice(), &[0]].concat(), "1 bytes are left");
    refused(&[], &body, "not valid");
    refused(&[(LENGTH, "5")], &body, "not valid");
    let (length, body) = binary(&[("input_ids", &[1, 3], &[1, 2])], json!({}));
    refused(&[(LENGTH, &length)], &body, "16 bytes");
    let (length, body) = binary(&[("input_ids", &[1 << 61, 8], &[])], json!({}));
    refused(&[(LENGTH, &length)], &body, "more than fits in memory");
    refused(&[], &[0xff; 64], "not valid");
    refused(&[], "[".repeat(100_000).as_bytes(), "not valid");
}

#[test]
fn too_many_tokens_are_refused_before_they_are_computed() {
    let many = vec![1; 513];
    let one =
        json!({"inputs": [{"name": "input_ids", "shape": [1, 513], "datatype": "INT64", "data": many}]});
    assert_eq!(post(&path("backbone"), &one).status, 413);
    let rows = 20_000;
    let batch = json!({"inputs": [{"name": "input_ids", "shape": [rows, 1], "datatype": "INT64", "data": vec![1; rows]}]});
    let reply = post(&path("backbone"), &batch);
    assert_eq!(reply.status, 413);
    assert!(error(&reply).contains("20000 tokens"));
    let rows = 10_000;
    let batch = json!({"inputs": [{"name": "input_ids", "shape": [rows, 1], "datatype": "INT64", "data": vec![1; rows]}]});
    let reply = post(&path("mini"), &batch);
    assert_eq!(reply.status, 413);
    assert!(error(&reply).contains("81920000"));
}

#[test]
fn a_timeout_ends_a_request() {
    let (mut request, _) = batch(&ROWS, true);
    request["parameters"] = json!({"timeout": 1});
    let reply = post(&path("mini"), &request);
    assert_eq!(reply.status, 504, "{}", reply.text());
    request["parameters"] = json!({"timeout": 600_000_000});
    assert_eq!(post(&path("mini"), &request).status, 200);
}
