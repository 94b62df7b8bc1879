//! Log-probabilities: those of `Generator`, of generated tokens and of prompts.

use jetmoe_rt::{GenerationOptions, Request, ScoringOptions, ScoringRequest};
use serde_json::{Value, json};

use crate::server::{GENERATOR, SERVER};

const PROMPT: &str = "And God said, Let there be";

/// Float32, whose last bits serde_json does not keep as float64.
fn numbers<'a>(values: impl IntoIterator<Item = &'a Value>) -> Vec<f32> {
    values.into_iter().map(|value| value.as_f64().unwrap() as f32).collect()
}

#[test]
fn those_of_generated_tokens_are_the_generators() {
    let options =
        GenerationOptions::for_model(GENERATOR.model()).with_max_new_tokens(10).with_log_probabilities(3);
    let expected =
        GENERATOR.run(Request::new(PROMPT).with_options(options)).unwrap().log_probabilities.unwrap();
    let reply = SERVER.complete(json!({"prompt": PROMPT, "max_tokens": 10, "temperature": 0, "logprobs": 3}));
    let found = &reply["choices"][0]["logprobs"];
    let chosen: Vec<f32> = expected.iter().map(|scores| scores.chosen).collect();
    assert_eq!(numbers(found["token_logprobs"].as_array().unwrap()), chosen);
    for (scores, top) in expected.iter().zip(found["top_logprobs"].as_array().unwrap()) {
        let best: Vec<f32> = scores.best.iter().map(|token| token.log_probability).collect();
        let top = numbers(top.as_object().unwrap().values());
        assert_eq!(top, best, "the greedy token is one of the best");
    }
    let text = reply["choices"][0]["text"].as_str().unwrap();
    let tokens: String =
        found["tokens"].as_array().unwrap().iter().map(|token| token.as_str().unwrap()).collect();
    assert_eq!(tokens, text);
}

#[test]
fn those_of_a_prompt_sum_up_to_its_score() {
    let continuation = " light: and there was light.";
    let scoring = ScoringRequest::continuations(PROMPT, [continuation])
        .with_options(ScoringOptions::default().with_log_probabilities(1));
    let expected = GENERATOR.score(&scoring).unwrap().remove(0);
    let text = format!("{PROMPT}{continuation}");
    let reply = SERVER.complete(json!({"prompt": text, "max_tokens": 0, "echo": true, "logprobs": 1}));
    let logprobs = &reply["choices"][0]["logprobs"];
    let own = logprobs["token_logprobs"].as_array().unwrap();
    assert_eq!(own.len(), GENERATOR.encode(text.as_str()).unwrap().len());
    assert!(own[0].is_null() && logprobs["top_logprobs"][0].is_null());
    let scored = expected.tokens.len();
    let sum: f64 = own[own.len() - scored..].iter().map(|value| value.as_f64().unwrap()).sum();
    assert!(
        (sum - f64::from(expected.log_probability as f32)).abs() < 1e-3,
        "{sum} and {}",
        expected.log_probability
    );
    let with_one_token = SERVER
        .complete(json!({"prompt": text, "max_tokens": 1, "echo": true, "logprobs": 1, "temperature": 0}));
    let longer = with_one_token["choices"][0]["logprobs"]["token_logprobs"].as_array().unwrap();
    assert_eq!(longer[..own.len()], own[..], "a continuation changes nothing of the prompt");
    assert_eq!(longer.len(), own.len() + 1);
}

#[test]
fn offsets_are_where_tokens_begin() {
    let reply = SERVER
        .complete(json!({"prompt": PROMPT, "max_tokens": 6, "echo": true, "logprobs": 0, "temperature": 0}));
    let choice = &reply["choices"][0];
    let text: Vec<char> = choice["text"].as_str().unwrap().chars().collect();
    let offsets = choice["logprobs"]["text_offset"].as_array().unwrap();
    let tokens = choice["logprobs"]["tokens"].as_array().unwrap();
    // the begin-of-sequence token has no text, and the first one no space in front
    for (offset, token) in offsets.iter().zip(tokens).skip(2) {
        let (offset, token) = (offset.as_u64().unwrap() as usize, token.as_str().unwrap());
        let found: String = text[offset..].iter().take(token.chars().count()).collect();
        assert_eq!(found, token);
    }
}

#[test]
fn those_of_a_chat_have_bytes_that_join_to_the_text() {
    let reply = SERVER.chat(json!({
        "messages": [{"role": "user", "content": "Who made the heaven?"}],
        "max_completion_tokens": 8, "temperature": 0, "logprobs": true, "top_logprobs": 2
    }));
    let choice = &reply["choices"][0];
    let content = choice["logprobs"]["content"].as_array().unwrap();
    assert_eq!(content.len() as u64, reply["usage"]["completion_tokens"].as_u64().unwrap());
    let bytes: Vec<u8> = content
        .iter()
        .flat_map(|token| token["bytes"].as_array().cloned().unwrap_or_default())
        .map(|byte| byte.as_u64().unwrap() as u8)
        .collect();
    assert_eq!(String::from_utf8(bytes).unwrap(), choice["message"]["content"].as_str().unwrap());
    for token in content {
        let top = token["top_logprobs"].as_array().unwrap();
        assert_eq!((top.len(), &top[0]["logprob"]), (2, &token["logprob"]), "greedy");
    }
}
