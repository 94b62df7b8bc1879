//! The two trained models on held-out text, against what transformers measured.

use std::ops::ControlFlow;

use jetmoe::conformance::{EvaluationOptions, Quality, Tolerance, evaluate};
use jetmoe::rt::{
    ChatMessage, Classification, ClassificationOptions, ClassificationRequest, FinishReason,
    GenerationOptions, Generator, Model, Request, TextClassifier,
};
use serde::Deserialize;

use crate::fixtures::Case;
use crate::subject::Subject;
use crate::suite::{Suite, measured, named};

const EXPECTED: &str = "expected.json";
const HELD_OUT: &str = "eval.jsonl";

pub(crate) fn add_tests(suite: &mut Suite, subject: Subject) {
    suite.add_group(
        subject,
        "quality",
        named![
            perplexity_is_that_of_transformers,
            texts_are_those_of_transformers,
            a_left_padded_batch_of_prompts_gets_the_same_texts,
            the_chat_template_renders_what_transformers_renders_and_is_answered_as_by_the_reference,
            classes_are_those_of_transformers_alone_and_in_batches,
        ],
    );
}

fn load_mini(subject: Subject) -> Model {
    Case::named("jetmoe-mini").export().single_threaded_model(subject)
}

/// `expected.json` of the language model.
#[derive(Deserialize)]
struct Expected {
    perplexity: f64,
    negative_log_likelihood: f64,
    predicted_tokens: usize,
    next_token_accuracy: f64,
    greedy: Vec<Continuation>,
    chat_template: Chat,
}

#[derive(Deserialize)]
struct Continuation {
    prompt: String,
    prompt_ids: Vec<u32>,
    generated_ids: Vec<u32>,
    text: String,
}

#[derive(Deserialize)]
struct Chat {
    messages: Vec<Message>,
    rendered: String,
}

#[derive(Deserialize)]
struct Message {
    role: String,
    content: String,
}

/// `expected.json` of the classifier.
#[derive(Deserialize)]
struct ExpectedOfClassifier {
    accuracy: f64,
    passages: usize,
}

impl ExpectedOfClassifier {
    /// Passages whose class was right: the JSON parser may be off in the last bit of a share.
    fn correct(&self) -> usize {
        (self.accuracy * self.passages as f64).round() as usize
    }
}

/// A line of the classifier's held-out text.
#[derive(Deserialize)]
struct Passage {
    text: String,
    label: usize,
    logits: Vec<f32>,
}

fn expected() -> Expected {
    serde_json::from_value(Case::named("jetmoe-mini").json(EXPECTED)).unwrap()
}

fn five_significant_digits(number: f64) -> String {
    format!("{number:.4e}")
}

fn evaluate_held_out(model: &Model, case: &str) -> Quality {
    let text = Case::named(case).folder.join(HELD_OUT);
    evaluate(model, None, &text, &EvaluationOptions::default(), &mut |_, _| {}).unwrap()
}

fn perplexity_is_that_of_transformers(subject: Subject) {
    let expected = expected();
    let Quality::CausalLm(found) = evaluate_held_out(&load_mini(subject), "jetmoe-mini") else {
        panic!("a language model is measured by its perplexity")
    };
    measured(&format!("{subject}: {found:?}"));
    assert_eq!(found.predicted_tokens, expected.predicted_tokens);
    assert_eq!(five_significant_digits(found.perplexity), five_significant_digits(expected.perplexity));
    assert_eq!(
        five_significant_digits(found.negative_log_likelihood),
        five_significant_digits(expected.negative_log_likelihood)
    );
    assert_eq!(
        five_significant_digits(found.next_token_accuracy),
        five_significant_digits(expected.next_token_accuracy)
    );
}

fn texts_are_those_of_transformers(subject: Subject) {
    let expected = expected().greedy;
    assert_eq!(expected.len(), 5);
    let generator = Generator::new(&load_mini(subject)).unwrap();
    for Continuation { prompt, prompt_ids, generated_ids, text } in &expected {
        let options = GenerationOptions::default().with_max_new_tokens(generated_ids.len());
        let request = Request::new(prompt).with_options(options);
        assert_eq!(generator.encode(prompt).unwrap(), *prompt_ids, "{prompt:?}");
        let generated = generator.run(request.clone()).unwrap();
        assert_eq!(generated.token_ids, *generated_ids, "{prompt:?} on {subject}");
        assert_eq!(format!("{prompt}{}", generated.text), *text, "on {subject}");
        assert_eq!(generated.prompt_tokens, prompt_ids.len());
        assert_eq!(generated.finish_reason, FinishReason::Length);

        let mut pieces = Vec::new();
        let streamed = generator.for_each(request, |event| {
            pieces.extend(Some(event.text).filter(|text| !text.is_empty()));
            ControlFlow::Continue(())
        });
        let streamed = streamed.unwrap().remove(0);
        assert_eq!(streamed.token_ids, generated.token_ids, "streamed on {subject}");
        assert_eq!(streamed.text, generated.text, "streamed on {subject}");
        assert_eq!(streamed.finish_reason, generated.finish_reason, "streamed on {subject}");
        assert_eq!(pieces.concat(), generated.text, "streamed on {subject}");
        assert!(pieces.len() > 1, "the text came in one piece on {subject}");
    }
}

fn a_left_padded_batch_of_prompts_gets_the_same_texts(subject: Subject) {
    let expected = expected().greedy;
    let lengths: Vec<usize> = expected.iter().map(|continuation| continuation.prompt_ids.len()).collect();
    assert!(lengths.iter().any(|length| *length != lengths[0]), "nothing would be padded");
    let prompts = expected.iter().map(|continuation| &continuation.prompt);
    let max_new_tokens = expected[0].generated_ids.len();
    let options = GenerationOptions::default().with_max_new_tokens(max_new_tokens);
    let generator = Generator::new(&load_mini(subject)).unwrap();
    let generated = generator.run_batch(Request::batch(prompts).with_options(options)).unwrap();
    assert_eq!(generated.len(), expected.len());
    for (generated, expected) in generated.iter().zip(&expected) {
        assert_eq!(generated.token_ids, expected.generated_ids, "{:?} on {subject}", expected.prompt);
        assert_eq!(format!("{}{}", expected.prompt, generated.text), expected.text, "on {subject}");
    }
}

fn the_chat_template_renders_what_transformers_renders_and_is_answered_as_by_the_reference(subject: Subject) {
    let chat = expected().chat_template;
    let messages = chat.messages.into_iter();
    let messages: Vec<ChatMessage> =
        messages.map(|message| ChatMessage::new(message.role, message.content)).collect();
    let options = GenerationOptions::default().with_max_new_tokens(24);
    let [answer, expected] = [subject, Subject::REFERENCE].map(|subject| {
        let model = load_mini(subject);
        let tokenizer = model.tokenizer().unwrap();
        let rendered = tokenizer.chat_template().unwrap().render(&messages, true).unwrap();
        assert_eq!(rendered, chat.rendered);
        let generator = Generator::new(&model).unwrap();
        // the template writes the special tokens itself
        assert_eq!(generator.encode(&messages).unwrap(), tokenizer.encode(&rendered, false).unwrap());
        generator.run(Request::new(&messages).with_options(options.clone())).unwrap()
    });
    assert_eq!(answer.token_ids, expected.token_ids);
    assert_eq!(answer.text, expected.text);
    assert_eq!(answer.finish_reason, expected.finish_reason);
    assert_eq!(answer.prompt_tokens, expected.prompt_tokens);
}

fn passages() -> Vec<Passage> {
    let file = Case::named("jetmoe-mini-classifier").folder.join(HELD_OUT);
    let text = std::fs::read_to_string(file).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn largest_difference(found: &[Classification], expected: &[Passage]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let differences = found.iter().zip(expected).flat_map(|(found, expected)| {
        assert_eq!(found.logits.len(), expected.logits.len());
        found.logits.iter().zip(&expected.logits).map(|(found, expected)| f64::from((found - expected).abs()))
    });
    differences.fold(0.0, f64::max)
}

fn classes_are_those_of_transformers_alone_and_in_batches(subject: Subject) {
    let case = Case::named("jetmoe-mini-classifier");
    let expected: ExpectedOfClassifier = serde_json::from_value(case.json(EXPECTED)).unwrap();
    let model = case.export().single_threaded_model(subject);
    let limit = Tolerance::Float32.logits_absolute();

    let Quality::SequenceClassification(found) = evaluate_held_out(&model, &case.name) else {
        panic!("a classifier is measured by its accuracy")
    };
    measured(&format!("{subject}: {found:?}"));
    assert_eq!(found.passages, expected.passages);
    assert_eq!((found.accuracy.unwrap() * found.passages as f64).round() as usize, expected.correct());
    assert!(found.max_logit_error.unwrap() <= limit, "{found:?}");

    let passages = passages();
    let texts: Vec<&str> = passages.iter().map(|passage| passage.text.as_str()).collect();
    let max_tokens = Some(EvaluationOptions::default().max_tokens);
    let options = ClassificationOptions::default().with_max_tokens(max_tokens);
    let request = ClassificationRequest::batch(texts).with_options(options);
    let batched = TextClassifier::new(&model).unwrap().classify(&request).unwrap();
    let error = largest_difference(&batched, &passages);
    measured(&format!("{subject}: {error:.1e} in batches"));
    assert!(error <= limit, "{error:.1e} in batches");
    let pairs = batched.iter().zip(&passages);
    let correct = pairs.filter(|(found, passage)| found.label_index == passage.label);
    assert_eq!(correct.count(), expected.correct(), "in batches");
}
