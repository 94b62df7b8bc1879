//! Settings of `generation_config.json` against what transformers generates with them.

use std::fs;

use jetmoe::rt::{Error, GenerationConfig, GenerationOptions, Generator, Request};
use jetmoe_testing::fixtures;
use serde_json::Value;

use crate::fixtures::Case;
use crate::subject::{Subject, has_device};
use crate::suite::{Suite, named};

pub(crate) fn add_tests(suite: &mut Suite) {
    // rules and lengths are the same on every backend and device
    if !has_device() {
        suite.add_general_group(
            "settings",
            named![settings_generate_the_tokens_that_transformers_generates_with_them],
        );
    }
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| u32::try_from(id.as_u64().unwrap()).unwrap()).collect()
}

/// The cases of `tests/fixtures/generation/make_texts.py`: lengths, ends and rules in the loop, and what is rejected.
fn settings_generate_the_tokens_that_transformers_generates_with_them() {
    let file = fs::read_to_string(fixtures::folder().join("generation/texts.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_str(&file).unwrap();
    assert!(cases.len() > 70);
    let model = Case::named("jetmoe-mini").export().single_threaded_model(Subject::first());
    let generator = Generator::new(&model).unwrap();
    let mut rejected = 0;
    for case in cases {
        let settings = case["settings"].as_object().unwrap();
        let config = GenerationConfig::from_json(settings, model.config().vocab_size).unwrap();
        let options =
            GenerationOptions::from_config(&config).with_eos_token_ids(config.eos_token_ids.clone());
        let request = Request::new(ids(&case["prompt"])).with_options(options);
        if case.get("error").is_some() {
            let error = generator.run(request).unwrap_err();
            assert!(matches!(error, Error::MaxLength { .. }), "{error}: {case}");
            rejected += 1;
        } else {
            assert_eq!(generator.run(request).unwrap().token_ids, ids(&case["generated"]), "{case}");
        }
    }
    assert_eq!(rejected, 3);
}
