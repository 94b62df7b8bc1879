//! Text and chat prompts in, streamed text out.

use jetmoe_checkpoint::names::{TOKENIZER, TOKENIZER_CONFIG};
use jetmoe_text::{ChatMessage, ChatOptions, Tokenizer};

use super::*;
use crate::ErrorKind;

const PROMPT: &str = "In the beginning";
const CONTINUATION: &str = " of the reign of king Hezekiah";

/// A generator that continues `prompt` with a text, and the tokens of both.
fn scripted(prompt: &str, continuation: &str) -> (Generator, Vec<u32>, Vec<u32>) {
    let tokenizer = fake::tokenizer();
    let prompt_ids = tokenizer.encode(prompt, true).unwrap();
    let all = tokenizer.encode(&format!("{prompt}{continuation}"), true).unwrap();
    assert_eq!(prompt_ids, all[..prompt_ids.len()]);
    let new = all[prompt_ids.len()..].to_vec();
    let model = FakeModel::scripted(prompt_ids.len(), new.clone()).load();
    (Generator::new(&model).unwrap(), prompt_ids, new)
}

fn run(generator: &Generator, prompt: impl Into<Prompt>, options: &GenerationOptions) -> Result<Completion> {
    generator.run(request([prompt], options))
}

/// The texts of the events that are not empty, and the completion.
fn stream(generator: &Generator, options: &GenerationOptions) -> (Vec<String>, Completion) {
    let mut pieces = Vec::new();
    let completions = generator.for_each(request([PROMPT], options), |event| {
        pieces.extend(Some(event.text).filter(|text| !text.is_empty()));
        ControlFlow::Continue(())
    });
    (pieces, completions.unwrap().remove(0))
}

fn stop_at(stop: &[&str]) -> GenerationOptions {
    GenerationOptions { stop: stop.iter().map(ToString::to_string).collect(), ..GenerationOptions::default() }
}

#[test]
fn the_text_is_the_continuation_with_its_leading_space_and_without_the_eos_token() {
    let (generator, prompt_ids, mut new) = scripted(PROMPT, CONTINUATION);
    let result = run(&generator, PROMPT, &GenerationOptions::default()).unwrap();
    new.push(2);
    let statistics = GenerationStatistics::default();
    assert_eq!(outcome(&result), (CONTINUATION, new.as_slice(), FinishReason::Eos, statistics));
    assert_eq!(result.prompt_tokens, prompt_ids.len());
}

#[test]
fn an_eos_token_that_is_a_word_is_not_in_the_text() {
    let (generator, _, new) = scripted(PROMPT, CONTINUATION);
    let options = GenerationOptions { eos_token_ids: Some(vec![new[2]]), ..GenerationOptions::default() };
    let result = run(&generator, PROMPT, &options).unwrap();
    assert_eq!(result.token_ids, new[..3]);
    assert_eq!(result.text, " of the");
}

#[test]
fn streamed_pieces_put_together_are_the_text() {
    let (generator, ..) = scripted(PROMPT, " costs 5€ 🙂, saith he");
    let (pieces, result) = stream(&generator, &GenerationOptions::default());
    assert_eq!(result.text, " costs 5€ 🙂, saith he");
    assert_eq!(pieces.concat(), result.text);
    assert!(pieces.len() > 5, "{pieces:?}");
}

#[test]
fn a_stop_string_over_several_tokens_is_cut_off_and_ends_the_generation() {
    let (generator, _, new) = scripted(PROMPT, CONTINUATION);
    let (pieces, result) = stream(&generator, &stop_at(&["zzz", "ign of k"]));
    assert_eq!(result.text, " of the re");
    assert_eq!(pieces.concat(), result.text);
    assert_eq!(result.finish_reason, FinishReason::StopString);
    assert!(result.token_ids.len() < new.len());
    assert_eq!(result.token_ids, new[..result.token_ids.len()]);
}

#[test]
fn text_held_back_for_a_stop_string_comes_out_at_the_end() {
    let (generator, ..) = scripted(PROMPT, CONTINUATION);
    let result = run(&generator, PROMPT, &stop_at(&["Hezekiah begat"])).unwrap();
    assert_eq!(result.text, CONTINUATION);
    assert_eq!(result.finish_reason, FinishReason::Eos);
}

#[test]
fn a_stop_string_that_the_last_token_completes_is_the_reason() {
    let (generator, _, new) = scripted(PROMPT, "£");
    let options = GenerationOptions { max_new_tokens: new.len(), ..stop_at(&["£"]) };
    let result = run(&generator, PROMPT, &options).unwrap();
    assert_eq!((result.text.as_str(), result.finish_reason), ("", FinishReason::StopString));
}

#[test]
fn bytes_that_are_cut_short_become_replacement_characters() {
    let (generator, ..) = scripted(PROMPT, "€");
    let options = GenerationOptions { max_new_tokens: 2, ..GenerationOptions::default() };
    assert_eq!(run(&generator, PROMPT, &options).unwrap().text, "\u{FFFD}\u{FFFD}");
}

#[test]
fn breaking_off_keeps_the_text_that_was_handed_out() {
    let (generator, ..) = scripted(PROMPT, CONTINUATION);
    let mut streamed = String::new();
    let result = generator.for_each(request([PROMPT], &GenerationOptions::default()), |event| {
        streamed.push_str(&event.text);
        if streamed.contains("the") { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let result = result.unwrap().remove(0);
    assert_eq!(result.finish_reason, FinishReason::Cancelled);
    assert_eq!(result.text, " of the");
    assert_eq!(streamed, result.text);
}

#[test]
fn a_stop_string_ends_one_sequence_of_a_batch_and_not_the_others() {
    let (generator, ..) = scripted(PROMPT, CONTINUATION);
    // the second prompt has as many tokens as the first and one more, so its script begins at the second token
    let longer = generator.encode(PROMPT).unwrap().into_iter().chain([300]).collect::<Vec<u32>>();
    let prompts = [Prompt::from(PROMPT), Prompt::from(longer)];
    let results = run_batch(&generator, prompts, &stop_at(&[" of the"])).unwrap();
    assert_eq!((results[0].text.as_str(), results[0].finish_reason), ("", FinishReason::StopString));
    assert_eq!(results[1].text, " the reign of king Hezekiah");
    assert_eq!(results[1].finish_reason, FinishReason::Eos);
}

#[test]
fn a_batch_of_texts_gives_what_each_text_gives_alone() {
    let model = FakeModel::new(|seen| fake::hashed(seen, 2048)).load();
    let generator = Generator::new(&model).unwrap();
    let texts = ["Moses", "And the LORD said unto Moses", "The sons of"];
    let options = GenerationOptions { max_new_tokens: 20, ..GenerationOptions::default() };
    let together = run_batch(&generator, texts.iter(), &options).unwrap();
    for (text, result) in texts.iter().zip(&together) {
        assert_eq!(outcome(result), outcome(&run(&generator, text, &options).unwrap()));
    }
}

#[test]
fn a_conversation_is_rendered_and_encoded_without_another_begin_token() {
    let (generator, ..) = scripted(PROMPT, CONTINUATION);
    let rendered = "<|user|>\nWho made the heaven?</s>\n<|assistant|>\n";
    let expected = fake::tokenizer().encode(rendered, false).unwrap();
    let messages = [ChatMessage::user("Who made the heaven?")];
    assert_eq!(generator.encode(messages).unwrap(), expected);
    assert!(!expected.contains(&1), "no <s>");
}

#[test]
fn an_encoded_prompt_is_continued_as_the_conversation_that_it_renders() {
    let model = FakeModel::new(|seen| fake::hashed(seen, 2048)).load();
    let generator = Generator::new(&model).unwrap();
    let messages = [ChatMessage::user("Who made the heaven?"), ChatMessage::assistant("God")];
    let chat_options = ChatOptions::default().with_add_generation_prompt(false);
    let encoded = generator.encode_with(&messages, &chat_options).unwrap();
    let rendered = "<|user|>\nWho made the heaven?</s>\n<|assistant|>\nGod</s>\n";
    assert_eq!(encoded.text.as_deref(), Some(rendered));
    assert_eq!(encoded.token_ids, fake::tokenizer().encode(rendered, false).unwrap());
    let options = GenerationOptions::default().with_max_new_tokens(8);
    let conversation = Request::new(&messages).with_chat_options(chat_options).with_options(options.clone());
    assert_eq!(
        outcome(&generator.run(Request::new(&encoded).with_options(options)).unwrap()),
        outcome(&generator.run(conversation).unwrap())
    );
    let of_ids = generator.encode_with([5_u32, 6], &ChatOptions::default()).unwrap();
    assert_eq!((of_ids.text, of_ids.token_ids), (None, vec![5, 6]));
}

#[test]
fn token_ids_are_taken_as_they_are() {
    let (generator, prompt_ids, _) = scripted(PROMPT, CONTINUATION);
    let options = GenerationOptions::default();
    let [ids, text] = [Prompt::from(prompt_ids), Prompt::from(PROMPT)];
    let [ids, text] = [ids, text].map(|prompt| run(&generator, prompt, &options).unwrap());
    assert_eq!(outcome(&ids), outcome(&text));
}

#[test]
fn an_empty_prompt_of_any_kind_is_refused_by_number() {
    let (generator, ..) = scripted(PROMPT, CONTINUATION);
    let options = GenerationOptions::default();
    for prompt in [Prompt::Text(String::new()), Prompt::Chat(Vec::new()), Prompt::Tokens(Vec::new())] {
        let error = run_batch(&generator, [Prompt::from("a"), prompt.clone()], &options).unwrap_err();
        assert!(matches!(error, Error::EmptyPrompt { index: 1 }), "{error}");
        assert!(matches!(generator.check(&Request::new(prompt)), Err(Error::EmptyPrompt { index: 0 })));
    }
}

#[test]
fn a_prompt_longer_than_the_positions_is_refused_with_both_numbers() {
    let (generator, ..) = scripted(PROMPT, CONTINUATION);
    let error = generator.check(&Request::new("word ".repeat(600))).unwrap_err();
    assert!(matches!(error, Error::TooLong { index: 0, tokens: 600.., limit: 512 }), "{error}");
}

/// A text of so many bytes is refused, and one byte less is encoded: here to too many tokens.
#[test]
fn a_text_with_too_many_bytes_is_refused_without_being_encoded() {
    let model = FakeModel::scripted(1, vec![]).load();
    assert_eq!(model.max_text_bytes(), 1 << 20, "64 for each of 512 positions would be less");
    let model = model.with_max_text_bytes(600);
    let generator = Generator::new(&model).unwrap();
    let text = |bytes: usize| "a b ".repeat(bytes / 4);
    let conversation = |bytes: usize| Prompt::from([ChatMessage::user(text(bytes))]);
    for (prompt, bytes) in [(Prompt::from(text(604)), 604), (conversation(600), 628)] {
        let error = generator.check(&Request::new(prompt)).unwrap_err();
        let Error::TextTooLong { index: 0, bytes: found, limit: 600, positions: 512 } = error else {
            panic!("{error}");
        };
        assert_eq!(found, bytes);
        assert_eq!(error.kind(), ErrorKind::TooLong);
    }
    assert!(matches!(generator.check(&Request::new(text(600))), Ok(()) | Err(Error::TooLong { .. })));
    let scoring = ScoringRequest::continuations(text(400), [text(204)]);
    let error = generator.check_scoring(&scoring).unwrap_err();
    assert!(matches!(error, Error::TextTooLong { bytes: 604, .. }), "{error}");
    assert!(generator.check_scoring(&ScoringRequest::continuations(text(40), [text(20)])).is_ok());
}

#[test]
fn a_special_token_is_text_in_a_message_and_a_token_in_a_prompt() {
    let (generator, ..) = scripted(PROMPT, CONTINUATION);
    let ends = |ids: &[u32]| ids.iter().filter(|id| **id == EOS).count();
    let messages = [ChatMessage::user("a</s>b")];
    assert_eq!(ends(&generator.encode(&messages).unwrap()), 1);
    let unsplit = ChatOptions::default().with_split_special_tokens(false);
    assert_eq!(ends(&generator.encode_with(&messages, &unsplit).unwrap().token_ids), 2);
    assert_eq!(ends(&generator.encode("a</s>b").unwrap()), 1);
    let request = Request::new("a</s>b");
    let ids = |request: &Request| generator.encode_request(request).unwrap().prompts.remove(0);
    assert_eq!(ends(&ids(&request)), 1);
    assert_eq!(ends(&ids(&request.with_split_special_tokens(true))), 0);
}

/// The prompt of the next turn begins with the tokens of this one, so a prefix cache is used.
#[test]
fn the_tokens_of_a_turn_are_the_beginning_of_those_of_the_next() {
    let (generator, ..) = scripted(PROMPT, CONTINUATION);
    let mut messages = vec![ChatMessage::user("a</s>b")];
    let first = generator.encode(&messages).unwrap();
    messages.extend([ChatMessage::assistant("c"), ChatMessage::user("d")]);
    let second = generator.encode(&messages).unwrap();
    // the last token may become another one with the text behind it
    let shared = first.len() - 1;
    assert_eq!(second[..shared], first[..shared]);
}

#[test]
fn invalid_options_are_rejected() {
    let (generator, ..) = scripted(PROMPT, CONTINUATION);
    let options = GenerationOptions::default().with_sampling(Multinomial::new(0.0));
    let error = generator.check(&request([PROMPT], &options)).unwrap_err();
    assert!(matches!(error, Error::Option { option: "temperature", .. }), "{error}");
    let error = generator.check(&request([PROMPT], &stop_at(&[""]))).unwrap_err();
    assert!(matches!(error, Error::Option { option: "stop", .. }), "{error}");
}

#[test]
fn a_model_without_a_chat_template_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let [from, to] =
        [fake::fixture("jetmoe-mini").as_path(), folder.path()].map(|folder| folder.join(TOKENIZER));
    std::fs::copy(from, to).unwrap();
    let mut model = FakeModel::scripted(1, vec![]);
    model.tokenizer = Tokenizer::open(folder.path()).unwrap();
    let generator = Generator::new(&model.load()).unwrap();
    let error = generator.check(&Request::new([ChatMessage::user("?")])).unwrap_err();
    assert!(error.to_string().contains("chat_template.jinja"), "{error}");
}

#[test]
fn a_model_without_a_tokenizer_takes_token_ids_and_returns_no_text() {
    let mut model = FakeModel::scripted(1, vec![9, 8]);
    model.tokenizer = None;
    let generator = Generator::new(&model.load()).unwrap();
    let result = run(&generator, [5], &GenerationOptions::default()).unwrap();
    assert_eq!((result.text.as_str(), result.token_ids), ("", vec![9, 8, EOS]));
    let error = generator.check(&Request::new("a text")).unwrap_err();
    assert!(matches!(error, Error::NoTokenizer), "{error}");
    let error = generator.check(&request([[5]], &stop_at(&["x"]))).unwrap_err();
    assert!(matches!(error, Error::Option { option: "stop", .. }), "{error}");
}

#[test]
fn a_stop_string_may_be_a_special_token() {
    let (_, prompt_ids, new) = scripted(PROMPT, CONTINUATION);
    let bos = fake::tokenizer().token_id("<s>").unwrap();
    let script = [&new[..2], &[bos], &new[2..]].concat();
    let generator = Generator::new(&FakeModel::scripted(prompt_ids.len(), script).load()).unwrap();
    let result = run(&generator, PROMPT, &stop_at(&["<s>"])).unwrap();
    assert_eq!((result.text.as_str(), result.finish_reason), (" of the", FinishReason::StopString));
    assert_eq!(result.token_ids, [&new[..2], &[bos]].concat());
    // without the stop string it is not in the text
    let result = run(&generator, PROMPT, &GenerationOptions::default()).unwrap();
    assert_eq!((result.text.as_str(), result.finish_reason), (CONTINUATION, FinishReason::Eos));
}

#[test]
fn a_stop_string_may_end_with_the_eos_token() {
    let (generator, _, _) = scripted(PROMPT, CONTINUATION);
    let result = run(&generator, PROMPT, &stop_at(&["iah</s>"])).unwrap();
    assert_eq!(result.finish_reason, FinishReason::StopString);
    assert_eq!(result.text, CONTINUATION.strip_suffix("iah").unwrap());
}

#[test]
fn a_conversation_is_rendered_with_the_options_of_its_request() {
    let folder = tempfile::tempdir().unwrap();
    let [from, to] =
        [fake::fixture("jetmoe-mini").as_path(), folder.path()].map(|folder| folder.join(TOKENIZER));
    std::fs::copy(from, to).unwrap();
    let config = r#"{ "chat_template": [{ "name": "short", "template": "{{ greeting }} {{ messages[0].content }}" }] }"#;
    std::fs::write(folder.path().join(TOKENIZER_CONFIG), config).unwrap();
    let mut model = FakeModel::scripted(1, vec![]);
    model.tokenizer = Tokenizer::open(folder.path()).unwrap();
    let generator = Generator::new(&model.load()).unwrap();
    let request = Request::new([ChatMessage::user("Jacob")]);
    let error = generator.check(&request).unwrap_err();
    assert!(error.to_string().contains("the model has: short"), "{error}");
    let options = jetmoe_text::ChatOptions::default()
        .with_template("short".to_owned())
        .with_variable("greeting", "Hear, O");
    let answer = generator.run(request.with_chat_options(options)).unwrap();
    assert_eq!(answer.prompt_tokens, fake::tokenizer().encode("Hear, O Jacob", false).unwrap().len());
}
