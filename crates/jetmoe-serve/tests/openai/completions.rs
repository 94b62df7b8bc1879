//! `POST /v1/completions`: texts are those of `Generator`, and a stream has the same ones.

use jetmoe_rt::{GenerationOptions, Multinomial, Request};
use serde_json::{Value, json};

use crate::server::{GENERATOR, SERVER, passages};

const PATH: &str = "/v1/completions";
const PROMPT: &str = "In the beginning God created";

/// The continuation of a text by the model alone.
fn alone(prompt: &str, options: GenerationOptions) -> (String, String) {
    let request = Request::new(prompt).with_options(options).with_split_special_tokens(true);
    let completion = GENERATOR.run(request).unwrap();
    (completion.text, completion.finish_reason.to_string())
}

fn text(choice: &Value) -> &str {
    choice["text"].as_str().unwrap()
}

#[test]
fn a_greedy_text_is_that_of_the_model_alone() {
    let options = GenerationOptions::for_model(GENERATOR.model()).with_max_new_tokens(24);
    let (expected, detail) = alone(PROMPT, options);
    let reply = SERVER.complete(json!({"prompt": PROMPT, "max_tokens": 24, "temperature": 0}));
    let choice = &reply["choices"][0];
    assert_eq!((text(choice), &choice["finish_detail"]), (expected.as_str(), &json!(detail)));
    assert_eq!(reply["object"], "text_completion");
    let tokens = GENERATOR.encode(PROMPT).unwrap();
    assert_eq!(reply["usage"]["prompt_tokens"], json!(tokens.len()));
    assert_eq!(reply["usage"]["completion_tokens"], 24);
    let of_ids = SERVER.complete(json!({"prompt": tokens, "max_tokens": 24, "temperature": 0}));
    assert_eq!(of_ids["choices"][0], *choice);
}

#[test]
fn a_seeded_text_is_that_of_the_model_alone_and_each_choice_has_its_own_seed() {
    let options = |seed| {
        let sampling = Multinomial::new(0.8).with_top_k(40).with_top_p(0.9);
        GenerationOptions::for_model(GENERATOR.model())
            .with_max_new_tokens(16)
            .with_sampling(sampling)
            .with_seed(seed)
    };
    let body = json!({
        "prompt": PROMPT, "max_tokens": 16, "temperature": 0.8, "top_k": 40, "top_p": 0.9, "seed": 7, "n": 3
    });
    let reply = SERVER.complete(body);
    for index in 0..3 {
        let expected = alone(PROMPT, options(7 + index)).0;
        assert_eq!(text(&reply["choices"][index as usize]), expected, "choice {index}");
    }
    assert_eq!(reply["usage"]["completion_tokens"], 48);
}

#[test]
fn a_batch_has_the_answers_of_its_prompts_alone() {
    let prompts: Vec<String> = passages(5).iter().map(|text| text.chars().take(60).collect()).collect();
    let body =
        |prompt: Value| json!({"prompt": prompt, "max_tokens": 12, "temperature": 1, "seed": 3, "n": 2});
    let reply = SERVER.complete(body(json!(prompts)));
    let choices = reply["choices"].as_array().unwrap();
    assert_eq!(choices.len(), 10);
    for (index, prompt) in prompts.iter().enumerate() {
        let alone = SERVER.complete(body(json!(prompt)));
        for choice in 0..2 {
            let found = &choices[2 * index + choice];
            assert_eq!(found["index"], json!(2 * index + choice));
            assert_eq!(found["text"], alone["choices"][choice]["text"], "{prompt}");
        }
    }
}

#[test]
fn a_stream_has_the_parts_of_the_answer() {
    let body = json!({
        "prompt": PROMPT, "max_tokens": 20, "temperature": 1, "seed": 11, "n": 2, "logprobs": 2, "echo": true, "experts": true
    });
    let whole = SERVER.complete(body.clone());
    let mut streamed = body;
    streamed["stream_options"] = json!({"include_usage": true});
    let mut chunks = SERVER.chunks(PATH, streamed);
    let last = chunks.pop().unwrap();
    assert_eq!((&last["choices"], &last["usage"]), (&json!([]), &whole["usage"]));
    assert!(chunks.len() > 20 && chunks.iter().all(|chunk| chunk["usage"].is_null()));
    for index in 0..2 {
        let expected = &whole["choices"][index];
        let parts: Vec<&Value> = chunks
            .iter()
            .map(|chunk| &chunk["choices"][0])
            .filter(|choice| choice["index"] == json!(index))
            .collect();
        assert_eq!(parts.iter().map(|part| text(part)).collect::<String>(), text(expected));
        let joined = |of: &dyn Fn(&Value) -> Value| -> Vec<Value> {
            parts.iter().flat_map(|part| of(part).as_array().cloned().unwrap_or_default()).collect()
        };
        for list in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
            assert_eq!(
                json!(joined(&|part| part["logprobs"][list].clone())),
                expected["logprobs"][list],
                "{list}"
            );
        }
        assert_eq!(json!(joined(&|part| part["experts"].clone())), expected["experts"]);
        assert_eq!(parts.last().unwrap()["finish_reason"], expected["finish_reason"]);
    }
}

#[test]
fn experts_are_reported_for_every_token() {
    let reply =
        SERVER.complete(json!({"prompt": PROMPT, "max_tokens": 5, "temperature": 0, "experts": true}));
    let experts = reply["choices"][0]["experts"].as_array().unwrap();
    let config = GENERATOR.model().config();
    assert_eq!(experts.len(), 5);
    for token in experts {
        let layers = token.as_array().unwrap();
        assert_eq!(layers.len(), config.num_hidden_layers);
        for list in layers.iter().flat_map(|layer| layer.as_array().unwrap()) {
            let ids: Vec<u64> = list.as_array().unwrap().iter().map(|id| id.as_u64().unwrap()).collect();
            assert_eq!(ids.len(), config.num_experts_per_token);
            assert!(ids.iter().all(|id| *id < config.num_local_experts as u64));
        }
    }
}

#[test]
fn an_echoed_text_begins_with_the_prompt() {
    for prompt in [json!(PROMPT), json!(GENERATOR.encode(PROMPT).unwrap())] {
        let body = json!({"prompt": prompt, "max_tokens": 8, "temperature": 0});
        let plain = SERVER.complete(body.clone());
        let mut echoed = body;
        echoed["echo"] = json!(true);
        let echoed = SERVER.complete(echoed);
        assert_eq!(text(&echoed["choices"][0]), format!("{PROMPT}{}", text(&plain["choices"][0])));
    }
    let body = json!({"prompt": "a</s> b", "max_tokens": 0, "echo": true});
    let reply = SERVER.complete(body);
    let choice = &reply["choices"][0];
    assert_eq!((text(choice), &choice["finish_reason"]), ("a</s> b", &json!("length")));
    assert_eq!(reply["usage"]["completion_tokens"], 0);
}

#[test]
fn a_stop_text_ends_the_answer_and_is_not_part_of_it() {
    let whole = SERVER.complete(json!({"prompt": PROMPT, "max_tokens": 24, "temperature": 0}));
    let whole = text(&whole["choices"][0]).to_owned();
    let word = whole.split_whitespace().nth(4).unwrap().to_owned();
    let reply = SERVER.complete(json!({
        "prompt": PROMPT, "max_tokens": 24, "temperature": 0, "stop": ["no such text", word]
    }));
    let choice = &reply["choices"][0];
    assert_eq!(text(choice), &whole[..whole.find(&word).unwrap()]);
    assert_eq!((&choice["finish_reason"], &choice["finish_detail"]), (&json!("stop"), &json!("stop-string")));
}

#[test]
fn tokens_are_excluded_and_preferred_by_their_ids() {
    let body = json!({"prompt": PROMPT, "max_tokens": 1, "temperature": 0, "logprobs": 0});
    let first = SERVER.complete(body.clone())["choices"][0]["logprobs"]["tokens"][0].clone();
    let vocabulary = 3..GENERATOR.model().config().vocab_size as u32;
    let tokenizer = GENERATOR.model().tokenizer().unwrap();
    let named =
        |id: &u32| tokenizer.token(*id).is_some_and(|token| json!(token.replace('\u{2581}', " ")) == first);
    let id = vocabulary.into_iter().find(named).unwrap();
    let mut excluded = body.clone();
    excluded["logit_bias"] = json!({id.to_string(): -100});
    assert_ne!(SERVER.complete(excluded)["choices"][0]["logprobs"]["tokens"][0], first);
    let mut preferred = body;
    preferred["logit_bias"] = json!({"500": 100});
    let other = tokenizer.token(500).unwrap().replace('\u{2581}', " ");
    assert_eq!(SERVER.complete(preferred)["choices"][0]["logprobs"]["tokens"][0], json!(other));
}

#[test]
fn further_end_tokens_and_fewest_tokens_are_followed() {
    let greedy = json!({"prompt": PROMPT, "max_tokens": 6, "temperature": 0});
    let ids = {
        let options = GenerationOptions::for_model(GENERATOR.model()).with_max_new_tokens(6);
        GENERATOR.run(Request::new(PROMPT).with_options(options)).unwrap().token_ids
    };
    let mut ended = greedy.clone();
    ended["stop_token_ids"] = json!([ids[2]]);
    let reply = SERVER.complete(ended.clone());
    let first = ids.iter().position(|id| *id == ids[2]).unwrap();
    assert_eq!(reply["usage"]["completion_tokens"], json!(first + 1));
    assert_eq!(reply["choices"][0]["finish_detail"], "end-token");
    ended["min_tokens"] = json!(6);
    assert_eq!(SERVER.complete(ended)["usage"]["completion_tokens"], 6);
}

#[test]
fn the_best_choices_are_those_with_the_highest_mean() {
    let body = json!({"prompt": PROMPT, "max_tokens": 6, "temperature": 1, "seed": 5, "n": 6, "logprobs": 0});
    let all = SERVER.complete(body.clone());
    let mean = |choice: &Value| {
        let numbers: Vec<f64> = choice["logprobs"]["token_logprobs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| it.as_f64().unwrap())
            .collect();
        numbers.iter().sum::<f64>() / numbers.len() as f64
    };
    let mut expected: Vec<Value> = all["choices"].as_array().unwrap().clone();
    expected.sort_by(|left, right| mean(right).total_cmp(&mean(left)));
    let mut best = body;
    (best["n"], best["best_of"]) = (json!(2), json!(6));
    let best = SERVER.complete(best);
    for index in 0..2 {
        assert_eq!(best["choices"][index]["text"], expected[index]["text"]);
        assert_eq!(best["choices"][index]["index"], json!(index));
    }
    assert_eq!(best["usage"]["completion_tokens"], all["usage"]["completion_tokens"]);
}

#[test]
fn a_constrained_text_follows_its_constraint() {
    let body = |constraint: Value| json!({"prompt": PROMPT, "max_tokens": 64, "temperature": 1, "seed": 1, "structured_outputs": constraint});
    let of = |constraint: Value| text(&SERVER.complete(body(constraint))["choices"][0]).to_owned();
    assert!(["yes", "no"].contains(&of(json!({"choice": ["yes", "no"]})).as_str()));
    let digits = of(json!({"regex": "[0-9]{4}"}));
    assert!(digits.len() == 4 && digits.bytes().all(|byte| byte.is_ascii_digit()), "{digits:?}");
    let schema = json!({"type": "object", "properties": {"a": {"enum": [1, 2]}}, "required": ["a"], "additionalProperties": false});
    let value: Value = serde_json::from_str(&of(json!({"json": schema}))).unwrap();
    assert!([json!({"a": 1}), json!({"a": 2})].contains(&value), "{value}");
}

#[test]
fn repeated_prompts_reuse_what_was_read() {
    let prompt = passages(1)[0].chars().take(300).collect::<String>();
    let body = json!({"prompt": prompt, "max_tokens": 4, "temperature": 0});
    let first = SERVER.complete(body.clone());
    let second = SERVER.complete(body);
    assert_eq!(second["choices"][0]["text"], first["choices"][0]["text"]);
    let cached = second["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
    assert!((1..second["usage"]["prompt_tokens"].as_u64().unwrap()).contains(&cached), "{cached}");
}

#[test]
fn chunks_can_have_random_characters() {
    let body = json!({"prompt": PROMPT, "max_tokens": 4, "temperature": 0, "stream_options": {"include_obfuscation": true}});
    for chunk in SERVER.chunks(PATH, body) {
        assert!((1..=16).contains(&chunk["obfuscation"].as_str().unwrap().len()), "{chunk}");
    }
}
