//! What attention masks and what routers choose, against what transformers does for the golden cases. The exports have no
//! optional outputs.

use std::path::Path;

use jetmoe::artifact::{ObservedValue, OutputName, Profile};
use jetmoe::observe::{
    AttentionMask, Error, RouterPart, Routing, SequenceMask, StepOptions, attention_mask, batch, compare,
    encode, routing, routing_of_windows,
};
use jetmoe::onnx;
use jetmoe::rt::{ErrorKind, LoadOptions, Model, TokenBatch};
use jetmoe_testing::fixtures;
use serde_json::Value;

use crate::fixtures::Case;
use crate::subject::Subject;
use crate::suite::{Suite, measured, named};

pub(crate) fn add_tests(suite: &mut Suite, subject: Subject) {
    if subject.is_reference() {
        suite.add_group(subject, "observations", named![the_reference_is_refused_by_name]);
        return;
    }
    for case in Case::all() {
        let mask = case.clone();
        suite.add(subject, format!("observations::mask::{}", case.name), move |subject| {
            check_mask(&mask, subject)
        });
        suite.add(subject, format!("observations::routing::{}", case.name), move |subject| {
            check_routing(&case, subject);
        });
    }
    suite.add_group(
        subject,
        "observations",
        named![
            every_precision_can_be_observed,
            an_export_with_router_logits_can_be_observed,
            a_model_that_was_loaded_without_outputs_is_refused,
            the_mask_is_the_one_that_transformers_draws,
            sequences_of_any_padding_and_steps_are_masked_as_one_step_masks_them,
            a_long_text_is_read_in_windows,
        ],
    );
    match subject.profile {
        Profile::Portable => {
            suite.add_group(subject, "observations", named![a_graph_with_another_mask_is_shown_as_it_is]);
        }
        Profile::OnnxRuntime if subject.backend.as_str() == "ort" => {
            suite.add_group(subject, "observations", named![operators_with_a_window_are_shown_as_they_mask]);
        }
        _ => {}
    }
}

const EVERYTHING: [ObservedValue; 2] = [ObservedValue::AttentionMask, ObservedValue::Routing];

/// What `make_observations.py` recorded.
fn recorded() -> Value {
    let file = fixtures::folder().join("observations/observations.json");
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

fn observed(options: LoadOptions) -> LoadOptions {
    options.with_observed(EVERYTHING)
}

fn load(case: &Case, subject: Subject) -> Model {
    case.export_without_optional_outputs().load_with(subject, &observed(subject.load_options()))
}

fn steps(value: &Value) -> Option<StepOptions> {
    let chunks: Vec<usize> =
        value["chunks"].as_array()?.iter().map(|size| size.as_u64().unwrap() as usize).collect();
    let [cached, chunk, 1] = chunks[..] else { panic!("chunks are {chunks:?}") };
    Some(StepOptions::default().with_cached(cached).with_chunk(chunk))
}

/// The rows of a mask as the fixtures have them; `None` for padding.
fn rows(mask: &SequenceMask) -> Vec<Option<String>> {
    let row = |visible: &Vec<bool>| visible.iter().map(|visible| if *visible { '1' } else { '0' }).collect();
    let tokens = mask.tokens.iter().zip(&mask.visible);
    tokens.map(|(token, visible)| (!token.is_padding()).then(|| row(visible))).collect()
}

fn check_mask(case: &Case, subject: Subject) {
    let model = load(case, subject);
    let expected = &recorded()["cases"][&case.name];
    let tokens = case.golden().batch;
    let whole = attention_mask(&model, &tokens, &StepOptions::default()).unwrap();
    assert_eq!(whole.sequences.len(), tokens.batch_size());
    let mut compared = 0;
    for (sequence, mask) in whole.sequences.iter().enumerate() {
        for (query, row) in rows(mask).iter().enumerate() {
            let Some(row) = row else { continue };
            assert_eq!(
                row,
                expected["mask"][sequence][query].as_str().unwrap(),
                "sequence {sequence}, query {query}"
            );
            compared += 1;
        }
    }
    assert_eq!(compared, tokens.mask().iter().filter(|counts| **counts).count());

    let Some(options) = steps(expected) else { return };
    let in_steps = attention_mask(&model, &tokens, &options).unwrap();
    let mut compared_steps = 0;
    for (sequence, mask) in in_steps.sequences.iter().enumerate() {
        assert_eq!(rows(mask), rows(&whole.sequences[sequence]), "sequence {sequence} in steps");
        for (step, expected) in expected["steps"].as_array().unwrap().iter().enumerate() {
            let of_step = mask.tokens.iter().zip(rows(mask)).filter(|(token, _)| token.step == step);
            for ((_, row), expected) in of_step.zip(expected[sequence].as_array().unwrap()) {
                let expected = expected.as_str().unwrap();
                let Some(row) = row else { continue };
                let (before, after) = row.split_at(expected.len());
                assert_eq!(before, expected, "sequence {sequence}, step {step}");
                assert!(
                    !after.contains('1'),
                    "sequence {sequence}, step {step} attends to tokens of later steps"
                );
                compared_steps += 1;
            }
        }
    }
    assert_eq!(compared_steps, compared);
}

fn check_routing(case: &Case, subject: Subject) {
    let model = load(case, subject);
    let expected = &recorded()["cases"][&case.name];
    let tokens = case.golden().batch;
    let whole = routing(&model, &tokens, &StepOptions::default()).unwrap();
    let export = case.export_without_optional_outputs();
    check_against_logits(case, subject, &whole);
    if export.is_exact(subject) {
        check_against_transformers(&whole, expected);
    }
    let Some(options) = steps(expected) else { return };
    let in_steps = compare(whole, routing(&model, &tokens, &options).unwrap()).unwrap();
    assert!(in_steps.same_tokens);
    let changed: Vec<_> = in_steps.routers.iter().flat_map(|router| &router.changed).collect();
    assert!(
        changed.iter().all(|choice| choice.margin.is_some_and(|margin| margin < 1e-4)),
        "in steps: {changed:?}"
    );
}

/// Everything that is computed, against what transformers computes for the same weights.
fn check_against_transformers(found: &Routing, expected: &Value) {
    let number = |value: &Value| value.as_f64().unwrap();
    let close = |what: &str, found: f64, expected: f64| {
        assert!((found - expected).abs() <= 2e-4, "{what} is {found}, expected {expected}");
    };
    let routers = expected["routers"].as_array().unwrap();
    assert_eq!(found.routers.len(), routers.len());
    for (index, (router, expected)) in found.routers.iter().zip(routers).enumerate() {
        let part = if index % 2 == 0 { RouterPart::Attention } else { RouterPart::Mlp };
        assert_eq!((router.layer, router.part), (index / 2, part));
        let what = format!("layer {}, {part:?}", router.layer);
        let tokens: Vec<_> = router.tokens.iter().flatten().flatten().collect();
        let experts =
            serde_json::to_value(tokens.iter().map(|token| &token.experts).collect::<Vec<_>>()).unwrap();
        assert_eq!(experts, expected["experts"], "experts of {what}");
        for (token, gates) in tokens.iter().zip(expected["gates"].as_array().unwrap()) {
            for (gate, expected) in token.gates.iter().zip(gates.as_array().unwrap()) {
                close(&format!("a gate of {what}"), f64::from(*gate), number(expected));
            }
        }
        let load: Vec<usize> = router.load.iter().map(|load| load.tokens).collect();
        assert_eq!(serde_json::to_value(load).unwrap(), expected["load"], "load of {what}");
        close(&format!("mean entropy of {what}"), router.mean_entropy, number(&expected["mean_entropy"]));
        match router.smallest_margin {
            None => assert!(expected["smallest_margin"].is_null(), "{what} has no margin"),
            Some(margin) => {
                close(
                    &format!("smallest margin of {what}"),
                    f64::from(margin),
                    number(&expected["smallest_margin"]),
                );
            }
        }
    }
    let (loss, expected) = (found.balance_loss, &expected["balance_loss"]);
    close("balance loss", loss.all, number(&expected["all"]));
    close("balance loss of attention", loss.attention, number(&expected["attention"]));
    close("balance loss of the MLPs", loss.mlp, number(&expected["mlp"]));
    if let Some(expected) = expected["transformers"].as_f64() {
        close("balance loss with attention twice", loss.transformers, expected);
    }
}

/// Logits and choices, against the router logits of the golden file or, for other weights, of the reference.
fn check_against_logits(case: &Case, subject: Subject, found: &Routing) {
    let export = case.export_without_optional_outputs();
    let expectation = export.expectation(subject, case.golden());
    let (mut worst, mut decided) = (0.0_f32, 0);
    for router in &found.routers {
        let name = match router.part {
            RouterPart::Attention => OutputName::AttentionRouterLogits(router.layer),
            RouterPart::Mlp => OutputName::MlpRouterLogits(router.layer),
        };
        let logits = &expectation.tensors[&name]; // [batch, tokens, experts]
        for (sequence, tokens) in router.tokens.iter().enumerate() {
            for (column, token) in tokens.iter().enumerate() {
                let Some(token) = token else { continue };
                let expected: Vec<f32> =
                    (0..found.experts).map(|expert| logits[[sequence, column, expert]]).collect();
                let errors =
                    token.logits.iter().zip(&expected).map(|(found, expected)| (found - expected).abs());
                worst = errors.fold(worst, f32::max);
                let mut order: Vec<usize> = (0..found.experts).collect();
                order.sort_by(|left, right| expected[*right].total_cmp(&expected[*left]));
                let gaps = order
                    .windows(2)
                    .take(found.experts_per_token)
                    .map(|two| expected[two[0]] - expected[two[1]]);
                if gaps.fold(f32::INFINITY, f32::min) > 1e-3 {
                    decided += 1;
                    assert_eq!(
                        token.experts,
                        order[..found.experts_per_token],
                        "{name}, sequence {sequence}, {column}"
                    );
                }
            }
        }
    }
    measured(&format!("{subject}, {}: router logits off by {worst:.1e}, {decided} choices", case.name));
    assert!(worst < 2e-3, "router logits are off by {worst:e}");
    let tokens = case.golden().batch.mask().iter().filter(|counts| **counts).count();
    assert!(decided * 10 > tokens * found.routers.len() * 9, "only {decided} choices are not close");
}

fn every_precision_can_be_observed(subject: Subject) {
    let case = Case::named("tiny");
    let tokens = case.golden().batch;
    let expected = &recorded()["cases"]["tiny"]["mask"];
    for precision in subject.precisions() {
        let model = load(&case, subject.with_precision(precision));
        let mask = attention_mask(&model, &tokens, &StepOptions::default().with_cached(5)).unwrap();
        assert_eq!(mask.model.precision, precision);
        for (sequence, mask) in mask.sequences.iter().enumerate() {
            for (query, row) in
                rows(mask).into_iter().enumerate().filter_map(|(query, row)| Some((query, row?)))
            {
                assert_eq!(
                    row,
                    expected[sequence][query].as_str().unwrap(),
                    "{precision}, {sequence}, {query}"
                );
            }
        }
        let routed = routing(&model, &tokens, &StepOptions::default()).unwrap();
        for token in routed.routers.iter().flat_map(|router| router.tokens.iter().flatten().flatten()) {
            let sum: f32 = token.gates.iter().sum();
            assert!((sum - 1.0).abs() < 2e-3, "{precision}: gates {:?}", token.gates);
            assert!(
                token.margin.is_some_and(|margin| margin >= 0.0),
                "{precision}: margin {:?}",
                token.margin
            );
        }
    }
}

fn an_export_with_router_logits_can_be_observed(subject: Subject) {
    let case = Case::named("tiny");
    let model = case.export().load_with(subject, &observed(subject.load_options()));
    let routed = routing(&model, &case.golden().batch, &StepOptions::default()).unwrap();
    check_against_logits(&case, subject, &routed);
}

fn a_model_that_was_loaded_without_outputs_is_refused(subject: Subject) {
    let case = Case::named("tiny");
    assert_refused(&case.export().model(subject), &case.golden().batch);
}

fn the_reference_is_refused_by_name(subject: Subject) {
    let case = Case::named("tiny");
    let error = assert_refused(&case.export().load(subject), &case.golden().batch);
    assert!(
        error.to_string().starts_with("reference (Candle) does not return the attention-mask"),
        "{error}"
    );
}

fn assert_refused(model: &Model, tokens: &TokenBatch) -> Error {
    let error = routing(model, tokens, &StepOptions::default()).unwrap_err();
    assert!(matches!(error, Error::NotObserved { value: ObservedValue::Routing, .. }), "{error}");
    let error = attention_mask(model, tokens, &StepOptions::default()).unwrap_err();
    assert!(matches!(error, Error::NotObserved { value: ObservedValue::AttentionMask, .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    error
}

fn the_mask_is_the_one_that_transformers_draws(subject: Subject) {
    let expected = &recorded()["visualizer"];
    let model = load(&Case::named(expected["model"].as_str().unwrap()), subject);
    let ids = encode(&model, expected["text"].as_str().unwrap()).unwrap();
    assert_eq!(serde_json::to_value(&ids).unwrap(), expected["token_ids"]);
    let mask = attention_mask(&model, &batch(&model, &[ids]).unwrap(), &StepOptions::default()).unwrap();
    let [sequence] = &mask.sequences[..] else { panic!("{} sequences", mask.sequences.len()) };
    let words = expected["words"].as_array().unwrap();
    // its matrix is that of the first tokens, and its words are those after the special one
    let texts: Vec<_> = sequence.tokens[1..].iter().map(|token| token.text.as_deref().unwrap()).collect();
    assert_eq!(texts, words.iter().map(|word| word.as_str().unwrap()).collect::<Vec<_>>());
    for (query, marks) in expected["marks"].as_array().unwrap().iter().enumerate() {
        for (key, mark) in marks.as_str().unwrap().chars().enumerate() {
            assert_eq!(sequence.visible[query][key], mark == '1', "query {query}, key {key}");
        }
    }
    assert_eq!(expected["marks"].as_array().unwrap().len(), words.len());
}

fn sequences_of_any_padding_and_steps_are_masked_as_one_step_masks_them(subject: Subject) {
    let model = load(&Case::named("odd"), subject);
    let limit = model.config().vocab_size as u32;
    let sequences: Vec<Vec<u32>> =
        [1_usize, 9, 30].iter().map(|length| (0..*length as u32).map(|id| id % limit).collect()).collect();
    let tokens = batch(&model, &sequences).unwrap();
    let whole = attention_mask(&model, &tokens, &StepOptions::default()).unwrap();
    for (cached, chunk) in [(0, 1), (0, 7), (1, 29), (8, 8), (21, 3), (29, 1)] {
        let options = StepOptions::default().with_cached(cached).with_chunk(chunk);
        let in_steps = attention_mask(&model, &tokens, &options).unwrap();
        for (found, expected) in in_steps.sequences.iter().zip(&whole.sequences) {
            assert_eq!(rows(found), rows(expected), "{cached} cached, chunks of {chunk}");
        }
        let first = in_steps.sequences[2].tokens.iter().filter(|token| token.step == 0).count();
        assert_eq!(first, if cached > 0 { cached } else { chunk });
    }
    // a sequence attends to all of its own tokens so far, and to no padding
    for (length, mask) in [1, 9, 30].into_iter().zip(&whole.sequences) {
        let counts: Vec<usize> =
            mask.visible.iter().map(|keys| keys.iter().filter(|visible| **visible).count()).collect();
        let expected: Vec<usize> =
            (0..30).map(|query| (query + 1 + length as usize).saturating_sub(30)).collect();
        assert_eq!(counts, expected);
    }
    for options in [StepOptions::default().with_cached(30), StepOptions::default().with_chunk(0)] {
        let error = attention_mask(&model, &tokens, &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    }
}

fn a_long_text_is_read_in_windows(subject: Subject) {
    let model = load(&Case::named("tiny"), subject);
    let positions = model.config().max_position_embeddings;
    let ids: Vec<u32> = (0..2 * positions as u32 + 5).map(|id| 3 + id % 100).collect();
    let windows =
        routing_of_windows(&model, &ids, usize::MAX, &StepOptions::default().with_chunk(50)).unwrap();
    let lengths: Vec<usize> = windows.sequences.iter().map(Vec::len).collect();
    assert_eq!(lengths, [positions, positions, 5]);
    let last = batch(&model, &[ids[2 * positions..].to_vec()]).unwrap();
    let alone = routing(&model, &last, &StepOptions::default()).unwrap();
    for (windows, alone) in windows.routers.iter().zip(&alone.routers) {
        let experts = |tokens: &[Option<jetmoe::observe::TokenRouting>]| -> Vec<Vec<usize>> {
            tokens.iter().flatten().map(|token| token.experts.clone()).collect()
        };
        assert_eq!(experts(&windows.tokens[2]), experts(&alone.tokens[0]));
        let assignments: usize = windows.load.iter().map(|load| load.tokens).sum();
        assert_eq!(assignments, ids.len() * 2);
    }
}

/// A changed graph of the case `tiny`, with the masks that it has.
fn masks_of_changed(subject: Subject, what: &str, change: fn(&mut Vec<u8>)) -> (TokenBatch, AttentionMask) {
    let case = Case::named("tiny");
    let options = observed(subject.load_options().with_trust_graph(true));
    let model = case.export_with_changed_graphs(what, change).load_with(subject, &options);
    let tokens = case.golden().batch;
    let mask = attention_mask(&model, &tokens, &StepOptions::default()).unwrap();
    (tokens, mask)
}

fn change_nodes(content: &mut Vec<u8>, change: impl Fn(&mut onnx::Node)) {
    let mut model = onnx::decode(Path::new("model.onnx"), content).unwrap();
    model.graph.as_mut().unwrap().node.iter_mut().for_each(change);
    *content = model.to_bytes();
}

/// Every token attends to itself and to the tokens after it.
fn swap_queries_and_keys(content: &mut Vec<u8>) {
    change_nodes(content, |node| {
        if node.name() == "mask/LessOrEqual" {
            node.input.reverse();
        }
    });
}

/// Every token attends to three tokens, itself included.
fn add_window(content: &mut Vec<u8>) {
    change_nodes(content, |node| {
        if node.op_type() == "GroupQueryAttention" {
            node.attribute.push(onnx::Attribute {
                name: Some("local_window_size".to_owned()),
                i: Some(3),
                r#type: Some(onnx::AttributeType::Int as i32),
                ..onnx::Attribute::default()
            });
        }
    });
}

/// Compares a mask with the tokens that each one must attend to, by their positions.
fn assert_visible(tokens: &TokenBatch, mask: &AttentionMask, is_visible: impl Fn(usize, usize) -> bool) {
    assert_eq!(mask.sequences.len(), tokens.batch_size());
    for (sequence, mask) in mask.sequences.iter().enumerate() {
        for (query, visible) in mask.tokens.iter().zip(&mask.visible) {
            let Some(query) = query.position else { continue };
            let expected: Vec<bool> = mask
                .tokens
                .iter()
                .map(|key| key.position.is_some_and(|key| is_visible(query, key)))
                .collect();
            assert_eq!(visible, &expected, "sequence {sequence}, position {query}");
        }
    }
}

fn a_graph_with_another_mask_is_shown_as_it_is(subject: Subject) {
    let (tokens, mask) = masks_of_changed(subject, "queries and keys swapped", swap_queries_and_keys);
    assert_visible(&tokens, &mask, |query, key| query <= key);
}

fn operators_with_a_window_are_shown_as_they_mask(subject: Subject) {
    let (tokens, mask) = masks_of_changed(subject, "a window", add_window);
    assert_visible(&tokens, &mask, |query, key| key <= query && query < key + 3);
}
