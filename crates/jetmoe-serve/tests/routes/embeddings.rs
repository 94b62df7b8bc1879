//! `POST /v1/embeddings`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jetmoe_rt::TokenBatch;
use jetmoe_rt::ndarray::Array2;
use serde_json::{Value, json};

use crate::server::{assert_refused, assert_refused_with, floats, floats_of_bytes, model, passages, post};

const PATH: &str = "/v1/embeddings";

/// The hidden states of a text, `[tokens, hidden_size]`.
fn hidden_states(name: &str, text: &str) -> Array2<f32> {
    let model = model(name);
    let ids = model.tokenizer().unwrap().encode(text, true).unwrap();
    let output = model.session().unwrap().step(&TokenBatch::left_padded(&[ids], 0).unwrap()).unwrap();
    output.last_hidden_state().unwrap().index_axis_move(jetmoe_rt::ndarray::Axis(0), 0).to_owned()
}

/// In float64 and rounded, as documented.
fn mean(rows: &Array2<f32>) -> Vec<f32> {
    let sum = |column: usize| rows.column(column).iter().fold(0.0, |sum, value| sum + f64::from(*value));
    (0..rows.ncols()).map(|column| (sum(column) / rows.nrows() as f64) as f32).collect()
}

fn normalized(vector: &[f32]) -> Vec<f32> {
    let norm = vector.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
    vector.iter().map(|value| (f64::from(*value) / norm) as f32).collect()
}

#[test]
fn an_embedding_is_the_normalized_mean_of_the_hidden_states() {
    let text = "In the beginning God created the heaven and the earth.";
    let states = hidden_states("backbone", text);
    let reply = post(PATH, &json!({"model": "backbone", "input": text})).success();
    let embedding = floats(&reply["data"][0]["embedding"]);
    assert_eq!(embedding, normalized(&mean(&states)));
    let tokens = states.nrows();
    assert_eq!(reply["usage"], json!({"prompt_tokens": tokens, "total_tokens": tokens}));
    let (object, model) = (&reply["object"], &reply["model"]);
    assert_eq!((object, model), (&json!("list"), &json!("backbone")));
    let plain = json!({"model": "backbone", "input": [text], "normalize": false});
    assert_eq!(floats(&post(PATH, &plain).success()["data"][0]["embedding"]), mean(&states));
}

#[test]
fn pooling_is_what_a_request_says() {
    let text = "And God said, Let there be light";
    let states = hidden_states("backbone", text);
    let ask = |pooling: &str| {
        let body = json!({"model": "backbone", "input": text, "pooling": pooling, "normalize": false});
        post(PATH, &body).success()["data"][0]["embedding"].clone()
    };
    assert_eq!(floats(&ask("last")), states.row(states.nrows() - 1).to_vec());
    let rows: Vec<Vec<f32>> = ask("none").as_array().unwrap().iter().map(floats).collect();
    assert_eq!(rows, states.rows().into_iter().map(|row| row.to_vec()).collect::<Vec<_>>());
    assert_eq!(floats(&ask("mean")), mean(&states));
}

#[test]
fn base64_holds_the_bytes_of_the_numbers() {
    let body = |format: &str, pooling: &str| json!({"model": "backbone", "input": "Blessed are the meek", "encoding_format": format, "pooling": pooling});
    let numbers = floats(&post(PATH, &body("float", "mean")).success()["data"][0]["embedding"]);
    let decode = |pooling: &str| {
        let reply = post(PATH, &body("base64", pooling)).success();
        STANDARD.decode(reply["data"][0]["embedding"].as_str().unwrap()).unwrap()
    };
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    assert_eq!(decode("mean"), bytes);
    let rows = post(PATH, &body("float", "none")).success()["data"][0]["embedding"].clone();
    let rows: Vec<f32> = rows.as_array().unwrap().iter().flat_map(floats).collect();
    assert_eq!(floats_of_bytes(&decode("none")), rows);
}

/// What else is in a request changes no bit.
#[test]
fn an_embedding_is_the_same_alone_and_in_any_company() {
    for name in ["backbone", "backbone-portable"] {
        let texts: Vec<String> = passages(9)
            .iter()
            .enumerate()
            .map(|(index, text)| text.chars().take(30 + 90 * index).collect())
            .collect();
        let reply = post(PATH, &json!({"model": name, "input": texts})).success();
        let data = reply["data"].as_array().unwrap();
        assert_eq!(data.len(), texts.len());
        for (index, text) in texts.iter().enumerate() {
            assert_eq!(data[index]["index"], json!(index));
            let alone = post(PATH, &json!({"model": name, "input": text})).success();
            assert_eq!(data[index]["embedding"], alone["data"][0]["embedding"], "{name} {index}");
        }
    }
}

#[test]
fn texts_and_token_ids_give_the_same_embedding() {
    let model = model("backbone");
    let texts = ["Moses", "And the LORD said unto Moses"];
    let ids: Vec<Vec<u32>> =
        texts.iter().map(|text| model.tokenizer().unwrap().encode(text, true).unwrap()).collect();
    let ask =
        |input: Value| post(PATH, &json!({"model": "backbone", "input": input})).success()["data"].clone();
    let expected = ask(json!(texts));
    assert_eq!(ask(json!(ids)), expected);
    assert_eq!(ask(json!([texts[0], ids[1]])), expected);
    assert_eq!(ask(json!(ids[0]))[0]["embedding"], expected[0]["embedding"]);
}

#[test]
fn a_control_token_in_a_text_is_text() {
    let tokenizer = model("backbone");
    let split = tokenizer.tokenizer().unwrap().encode_split("In</s> the", true).unwrap();
    let ask =
        |input: Value| post(PATH, &json!({"model": "backbone", "input": input})).success()["data"].clone();
    assert_eq!(ask(json!("In</s> the")), ask(json!(split)));
}

/// Texts longer than a chunk of steps.
#[test]
fn a_long_text_is_embedded_as_a_whole() {
    let limit = model("backbone").config().max_position_embeddings;
    let ids: Vec<u32> = (0..limit as u32).map(|index| 3 + index * 7 % 2000).collect();
    let reply = post(PATH, &json!({"model": "backbone", "input": ids, "normalize": false})).success();
    let model = model("backbone");
    let output = model.session().unwrap().step(&TokenBatch::left_padded(&[&ids], 0).unwrap()).unwrap();
    let states =
        output.last_hidden_state().unwrap().index_axis_move(jetmoe_rt::ndarray::Axis(0), 0).to_owned();
    assert_eq!(floats(&reply["data"][0]["embedding"]), mean(&states));
    let too_long = [ids.as_slice(), &[5]].concat();
    assert_refused_with(PATH, &json!({"model": "backbone", "input": too_long}), (413, "input"));
}

#[test]
fn what_cannot_be_embedded_is_refused_by_name() {
    for (input, param) in [
        (json!(""), "input"),
        (json!([]), "input"),
        (json!([[]]), "input"),
        (json!(["a", ""]), "input"),
        (json!([2048]), "input"),
        (json!([1, "a"]), "input"),
        (json!(1.5), "input"),
        (json!(vec!["a"; 2049]), "input"),
    ] {
        assert_refused(PATH, &json!({"model": "backbone", "input": input}), param);
    }
    for (field, value) in [
        ("dimensions", json!(64)),
        ("encoding_format", json!("int8")),
        ("pooling", json!("max")),
        ("normalize", json!(1)),
        ("truncate", json!(true)),
    ] {
        let mut body = json!({"model": "backbone", "input": "a"});
        body[field] = value;
        assert_refused(PATH, &body, field);
    }
    assert_refused(PATH, &json!({"model": "backbone"}), "input");
    assert_refused(PATH, &json!({"model": "mini", "input": "a"}), "model");
    assert_refused_with(PATH, &json!({"model": "other", "input": "a"}), (404, "model"));
    let all = json!({"model": "backbone", "input": "a", "dimensions": 128, "user": "x"});
    assert_eq!(post(PATH, &all).status, 200);
}
