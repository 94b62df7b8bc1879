//! `POST /classify` and `POST /rerank`.

use jetmoe_rt::{
    Classification, ClassificationOptions, ClassificationRequest, ClassifierInput, TextClassifier,
};
use serde_json::{Value, json};

use crate::server::{assert_refused, assert_refused_with, floats, model, passages, post};

/// What the model itself computes.
fn classify(name: &str, inputs: Vec<ClassifierInput>) -> Vec<Classification> {
    let options = ClassificationOptions::default().with_batch_size(1).with_split_special_tokens(true);
    let request = ClassificationRequest::batch(inputs).with_options(options);
    TextClassifier::new(&model(name)).unwrap().classify(&request).unwrap()
}

/// Every class by its score, the highest first.
fn predictions(labels: &[String], scores: &[f32]) -> Vec<(String, f32)> {
    let mut predictions: Vec<(String, f32)> = labels.iter().cloned().zip(scores.iter().copied()).collect();
    predictions.sort_by(|left, right| right.1.total_cmp(&left.1));
    predictions
}

fn read(classes: &Value) -> Vec<(String, f32)> {
    let class = |class: &Value| {
        assert_eq!(class.as_object().unwrap().len(), 2);
        (class["label"].as_str().unwrap().to_owned(), class["score"].as_f64().unwrap() as f32)
    };
    classes.as_array().unwrap().iter().map(class).collect()
}

#[test]
fn classes_are_those_of_the_model_in_any_company() {
    for name in ["classifier", "classifier-portable"] {
        let labels = model(name).config().labels.clone();
        let mut texts: Vec<String> = passages(12);
        texts[1].truncate(20);
        let expected = classify(name, texts.iter().map(Into::into).collect());
        let batch: Vec<[&String; 1]> = texts.iter().map(|text| [text]).collect();
        let reply = post("/classify", &json!({"model": name, "inputs": batch})).success();
        for (found, expected) in reply.as_array().unwrap().iter().zip(&expected) {
            assert_eq!(read(found), predictions(&labels, &expected.scores));
        }
        let alone = post("/classify", &json!({"model": name, "inputs": texts[3]})).success();
        assert_eq!(read(&alone), predictions(&labels, &expected[3].scores));
        let raw = json!({"model": name, "inputs": texts[3], "raw_scores": true});
        assert_eq!(read(&post("/classify", &raw).success()), predictions(&labels, &expected[3].logits));
    }
}

#[test]
fn a_pair_is_one_input() {
    let pair = ("Who made the heaven?", "In the beginning God created the heaven");
    let expected = classify("classifier", vec![pair.into()]).remove(0);
    let labels = model("classifier").config().labels.clone();
    let reply = post("/classify", &json!({"model": "classifier", "inputs": [pair.0, pair.1]})).success();
    assert_eq!(read(&reply), predictions(&labels, &expected.scores));
    let reply =
        post("/classify", &json!({"model": "classifier", "inputs": [[pair.0, pair.1], ["Amen"]]})).success();
    assert_eq!(read(&reply[0]), predictions(&labels, &expected.scores));
    assert_eq!(reply.as_array().unwrap().len(), 2);
}

#[test]
fn a_list_of_texts_is_answered_in_its_own_form() {
    let texts = passages(2);
    let expected = classify("classifier", texts.iter().map(Into::into).collect());
    let reply = post("/classify", &json!({"model": "classifier", "input": texts})).success();
    assert_eq!((&reply["object"], &reply["model"]), (&json!("list"), &json!("classifier")));
    let tokens: usize = expected.iter().map(|class| class.tokens).sum();
    assert_eq!(reply["usage"], json!({"prompt_tokens": tokens, "total_tokens": tokens}));
    for (index, expected) in expected.iter().enumerate() {
        let found = &reply["data"][index];
        assert_eq!(floats(&found["probs"]), expected.scores);
        let (label, classes) = (&found["label"], &found["num_classes"]);
        assert_eq!((label, classes, &found["index"]), (&json!(expected.label), &json!(2), &json!(index)));
    }
}

#[test]
fn a_control_token_in_a_text_is_text() {
    let expected = classify("classifier", vec!["In the</s>".into()]).remove(0);
    let tokenizer = model("classifier");
    let split = tokenizer.tokenizer().unwrap().encode_split("In the</s>", true).unwrap();
    assert_eq!(expected.tokens, split.len());
    let reply = post("/classify", &json!({"model": "classifier", "input": "In the</s>"})).success();
    assert_eq!(
        (floats(&reply["data"][0]["probs"]), &reply["usage"]["prompt_tokens"]),
        (expected.scores, &json!(split.len()))
    );
}

#[test]
fn a_text_that_is_too_long_is_refused_or_truncated() {
    let text = "And the LORD spake unto Moses, saying, ".repeat(80);
    let body = json!({"model": "classifier", "inputs": text});
    assert_refused_with("/classify", &body, (413, "inputs"));
    let limit = model("classifier").config().max_position_embeddings;
    let reply = post("/classify", &json!({"model": "classifier", "input": text, "truncate": true})).success();
    assert_eq!(reply["usage"]["prompt_tokens"], json!(limit));
}

#[test]
fn what_cannot_be_classified_is_refused_by_name() {
    for (inputs, param) in [
        (json!(""), "inputs"),
        (json!([]), "inputs"),
        (json!(["a", "b", "c"]), "inputs"),
        (json!([["a"], ["a", "b", "c"]]), "inputs"),
        (json!(1), "inputs"),
    ] {
        assert_refused("/classify", &json!({"model": "classifier", "inputs": inputs}), param);
    }
    assert_refused("/classify", &json!({"model": "classifier"}), "inputs");
    assert_refused("/classify", &json!({"model": "classifier", "inputs": "a", "input": "a"}), "input");
    assert_refused("/classify", &json!({"model": "mini", "inputs": "a"}), "model");
    assert_refused("/classify", &json!({"inputs": "a"}), "model");
    for (field, value) in
        [("truncation_direction", json!("left")), ("raw_score", json!(true)), ("truncate", json!("yes"))]
    {
        let mut body = json!({"model": "classifier", "inputs": "a"});
        body[field] = value;
        assert_refused("/classify", &body, field);
    }
}

/// The probability of the second class of a query with each text.
fn relevances(query: &str, texts: &[String]) -> Vec<Classification> {
    classify("classifier", texts.iter().map(|text| (query, text).into()).collect())
}

fn order(scores: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|left, right| scores[*right].total_cmp(&scores[*left]));
    order
}

#[test]
fn texts_are_ranked_by_the_second_of_two_classes() {
    let (query, texts) = ("Jesus said unto him", passages(6));
    let scores: Vec<f32> = relevances(query, &texts).iter().map(|class| class.scores[1]).collect();
    let body = json!({"model": "classifier", "query": query, "documents": texts, "top_n": 4, "return_documents": true});
    let reply = post("/rerank", &body).success();
    let results = reply["results"].as_array().unwrap();
    let expected: Vec<usize> = order(&scores).into_iter().take(4).collect();
    assert_eq!(results.len(), 4);
    for (result, index) in results.iter().zip(expected) {
        let score = result["relevance_score"].as_f64().unwrap() as f32;
        assert_eq!((&result["index"], score), (&json!(index), scores[index]));
        assert_eq!(result["document"], json!({"text": texts[index]}));
    }
    assert_eq!(reply["model"], json!("classifier"));
    let objects: Vec<Value> = texts.iter().map(|text| json!({"text": text})).collect();
    let reply =
        post("/rerank", &json!({"model": "classifier", "query": query, "documents": objects})).success();
    assert_eq!(reply["results"].as_array().unwrap().len(), 6);
    assert_eq!(reply["results"][0].as_object().unwrap().len(), 2);
}

#[test]
fn the_form_of_texts_has_scores_and_logarithms_of_odds() {
    let (query, texts) = ("Jesus said unto him", passages(4));
    let classes = relevances(query, &texts);
    let ask = |body: &Value| {
        let ranks = post("/rerank", body).success();
        let rank =
            |rank: &Value| (rank["index"].as_u64().unwrap() as usize, rank["score"].as_f64().unwrap() as f32);
        ranks.as_array().unwrap().iter().map(rank).collect::<Vec<_>>()
    };
    let body = json!({"model": "classifier", "query": query, "texts": texts, "return_text": true});
    let scores: Vec<f32> = classes.iter().map(|class| class.scores[1]).collect();
    let expected: Vec<(usize, f32)> =
        order(&scores).into_iter().map(|index| (index, scores[index])).collect();
    assert_eq!(ask(&body), expected);
    let first = &post("/rerank", &body).success()[0];
    assert_eq!(first["text"], json!(texts[expected[0].0]));
    let body = json!({"model": "classifier", "query": query, "texts": texts, "raw_scores": true, "label": "Old Testament"});
    for (index, score) in ask(&body) {
        let logits = &classes[index].logits;
        assert_eq!(score, (f64::from(logits[0]) - f64::from(logits[1])) as f32);
    }
}

#[test]
fn what_cannot_be_ranked_is_refused_by_name() {
    let with = |fields: Value| {
        let mut body = json!({"model": "classifier", "query": "a", "documents": ["b"]});
        for (name, value) in fields.as_object().unwrap() {
            body[name] = value.clone();
        }
        body
    };
    for (fields, param) in [
        (json!({"documents": []}), "documents"),
        (json!({"documents": null}), "documents"),
        (json!({"documents": [1]}), "documents[0]"),
        (json!({"documents": [{"text": "a", "title": "b"}]}), "documents[0]"),
        (json!({"texts": ["b"]}), "texts"),
        (json!({"return_text": true}), "return_text"),
        (json!({"top_n": 0}), "top_n"),
        (json!({"top_n": -1}), "top_n"),
        (json!({"label": "other"}), "label"),
        (json!({"query": 1}), "query"),
        (json!({"truncation_direction": "left"}), "truncation_direction"),
        (json!({"max_chunks_per_doc": 1}), "max_chunks_per_doc"),
        (json!({"model": "backbone"}), "model"),
    ] {
        assert_refused("/rerank", &with(fields), param);
    }
    assert_eq!(post("/rerank", &with(json!({}))).status, 200);
    let empty = json!({"model": "classifier", "query": "", "documents": [""]});
    assert_refused("/rerank", &empty, "documents");
}
