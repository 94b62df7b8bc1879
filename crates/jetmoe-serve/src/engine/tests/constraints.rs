//! Constrained decoding: what comes out matches, and the probabilities stay the model's.

use serde_json::{Value, json};

use super::*;

/// A model that wants anything but the constrained text.
fn wild() -> Engine {
    start(&FakeModel::hashed(), options())
}

fn prompt() -> Vec<u32> {
    fake::tokenizer().encode("In the beginning", true).unwrap()
}

#[track_caller]
fn constrained(engine: &Engine, kind: &ConstraintKind, options: GenerationOptions) -> Outcome {
    let constraint = engine.constraint(kind).unwrap();
    let found = run(engine, Job::new(prompt(), options).with_constraint(constraint));
    assert!(found.error.is_none(), "{found:?}");
    found
}

#[test]
fn a_choice_is_made_by_the_model_among_the_texts() {
    let engine = wild();
    let texts = ["yes", "no (never)", "a|b", "\u{4f60}\u{597d}"].map(str::to_owned);
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..24 {
        let found = constrained(&engine, &ConstraintKind::Choices(texts.to_vec()), multinomial(seed));
        assert!(texts.contains(&found.text()), "{}", found.text());
        assert_eq!(found.finish_reason(), Some(FinishReason::Eos));
        seen.insert(found.text());
    }
    assert!(seen.len() > 1, "{seen:?}");
}

#[test]
fn a_regular_expression_matches_the_whole_text() {
    let engine = wild();
    for seed in 0..6 {
        let kind = ConstraintKind::Regex("[0-9]{4}-[0-9]{2}(-[a-f]+)?".to_owned());
        let found = constrained(&engine, &kind, multinomial(seed).with_max_new_tokens(12));
        let text = found.text();
        let is_date = text.len() >= 7
            && text.bytes().enumerate().all(|(at, byte)| match at {
                4 | 7 => byte == b'-',
                0..7 => byte.is_ascii_digit(),
                _ => (b'a'..=b'f').contains(&byte),
            });
        assert!(is_date, "{text:?}");
    }
}

#[test]
fn json_by_a_schema_is_valid() {
    let engine = wild();
    let schema = json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 8},
            "age": {"type": "integer", "minimum": 0, "maximum": 150},
            "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 3},
        },
        "required": ["name", "age", "tags"],
        "additionalProperties": false,
    });
    for seed in 0..6 {
        let options = multinomial(seed).with_max_new_tokens(300);
        let found = constrained(&engine, &ConstraintKind::JsonSchema(schema.clone()), options);
        assert_eq!(found.finish_reason(), Some(FinishReason::Eos), "{}", found.text());
        let value: Value = serde_json::from_str(&found.text()).unwrap();
        assert!(value["name"].as_str().unwrap().chars().count() <= 8);
        assert!(value["age"].as_u64().unwrap() <= 150);
        assert!(
            value["tags"].as_array().unwrap().iter().all(|tag| ["a", "b"].contains(&tag.as_str().unwrap()))
        );
        assert_eq!(value.as_object().unwrap().len(), 3);
    }
}

#[test]
fn a_json_object_and_a_grammar_begin_as_they_must() {
    let engine = wild();
    let found = constrained(&engine, &ConstraintKind::JsonObject, at_most(12));
    assert!(found.text().starts_with('{'), "{}", found.text());
    let grammar = "start: greeting \" \" name\ngreeting: \"hello\" | \"bye\"\nname: /[a-z]{2,5}/";
    let found = constrained(&engine, &ConstraintKind::Lark(grammar.to_owned()), at_most(30));
    let text = found.text();
    let name = text.strip_prefix("hello ").or_else(|| text.strip_prefix("bye ")).unwrap();
    assert!((2..=5).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_lowercase()), "{text}");
}

#[test]
fn log_probabilities_are_those_of_the_model() {
    let engine = wild();
    let kind = ConstraintKind::Regex("[0-9]{3}".to_owned());
    let found = constrained(&engine, &kind, at_most(9).with_log_probabilities(1));
    let first = found.events[0].token.as_ref().unwrap();
    let free = alone(&engine, &prompt(), &at_most(1).with_log_probabilities(1));
    let free = &free.log_probabilities.unwrap()[0];
    let bound = first.log_probabilities.as_ref().unwrap();
    assert_eq!(bound.best, free.best);
    assert!(bound.chosen < bound.best[0].log_probability);
}

#[test]
fn a_constraint_that_allows_only_the_end_ends_the_job() {
    let engine = wild();
    let found = constrained(&engine, &ConstraintKind::Choices(vec![String::new()]), at_most(9));
    assert_eq!((found.text().as_str(), found.finish_reason()), ("", Some(FinishReason::Eos)));
    // fewest tokens are not reached, and there is nothing else to generate
    let options = at_most(40).with_min_new_tokens(20);
    let found = constrained(&engine, &ConstraintKind::Choices(vec!["yes".to_owned()]), options);
    assert_eq!((found.text().as_str(), found.finish_reason()), ("yes", Some(FinishReason::Eos)));
}

#[test]
fn jobs_with_one_constraint_go_their_own_ways() {
    let engine = wild();
    let constraint = engine.constraint(&ConstraintKind::Regex("[a-z]{3}[0-9]{3}".to_owned())).unwrap();
    let job = |seed| Job::new(prompt(), multinomial(seed)).with_constraint(constraint.clone());
    let together: Vec<JobStream> = (0..6).map(|seed| engine.submit(job(seed)).unwrap()).collect();
    let together: Vec<String> = together.into_iter().map(|stream| outcome(stream).text()).collect();
    let single: Vec<String> = (0..6).map(|seed| run(&engine, job(seed)).text()).collect();
    assert_eq!(together, single);
}

#[test]
fn what_cannot_be_followed_is_refused_by_name() {
    let engine = wild();
    let refused = |kind: ConstraintKind| engine.constraint(&kind).unwrap_err().to_string();
    let error = refused(ConstraintKind::Regex("[a-".to_owned()));
    assert!(error.starts_with("the regular expression is not usable"), "{error}");
    let error = refused(ConstraintKind::JsonSchema(json!({"type": "strange"})));
    assert!(error.starts_with("the JSON schema is not usable") && error.contains("strange"), "{error}");
    let error = refused(ConstraintKind::JsonSchema(json!({"type": "array", "uniqueItems": true})));
    assert!(error.contains("uniqueItems"), "{error}");
    let error = refused(ConstraintKind::Lark("start: missing".to_owned()));
    assert!(error.contains("missing"), "{error}");
    let error = refused(ConstraintKind::Choices(Vec::new()));
    assert!(error.contains("at least one"), "{error}");
    let constraint = engine.constraint(&ConstraintKind::JsonObject).unwrap();
    let job = Job::new(prompt(), endless(3)).with_constraint(constraint);
    let refusal = engine.submit(job).unwrap_err();
    assert!(matches!(refusal, Refusal::Constraint { kind: "JSON object", .. }), "{refusal}");
}
