use super::*;
use crate::Sampling;
use crate::fake::{self, FakeModel};

const PROMPT: &str = "In the beginning";
const CONTINUATION: &str = " of the reign of king Hezekiah";

/// A generator that continues `prompt` with a text, and the tokens of both.
fn scripted(prompt: &str, continuation: &str) -> (TextGenerator, Vec<u32>, Vec<u32>) {
    let tokenizer = fake::tokenizer();
    let prompt_ids = tokenizer.encode(prompt, true).unwrap();
    let all = tokenizer.encode(&format!("{prompt}{continuation}"), true).unwrap();
    assert_eq!(prompt_ids, all[..prompt_ids.len()]);
    let new = all[prompt_ids.len()..].to_vec();
    let model = FakeModel::scripted(prompt_ids.len(), new.clone()).load();
    (TextGenerator::new(&model).unwrap(), prompt_ids, new)
}

fn stop_at(stop: &[&str]) -> GenerationOptions {
    GenerationOptions { stop: stop.iter().map(ToString::to_string).collect(), ..GenerationOptions::default() }
}

fn user(content: &str) -> ChatMessage {
    ChatMessage { role: "user".to_owned(), content: content.to_owned() }
}

#[test]
fn the_text_is_the_continuation_with_its_leading_space_and_without_the_eos_token() {
    let (generator, prompt_ids, mut new) = scripted(PROMPT, CONTINUATION);
    let result = generator.generate(PROMPT, &GenerationOptions::default()).unwrap();
    new.push(2);
    assert_eq!(
        result,
        GeneratedText {
            text: CONTINUATION.to_owned(),
            token_ids: new,
            finish_reason: FinishReason::Eos,
            prompt_tokens: prompt_ids.len(),
            statistics: GenerationStatistics::default(),
        }
    );
}

#[test]
fn an_eos_token_that_is_a_word_is_not_in_the_text() {
    let (generator, _, new) = scripted(PROMPT, CONTINUATION);
    let options = GenerationOptions { eos_token_ids: Some(vec![new[2]]), ..GenerationOptions::default() };
    let result = generator.generate(PROMPT, &options).unwrap();
    assert_eq!(result.token_ids, new[..3]);
    assert_eq!(result.text, " of the");
}

#[test]
fn streamed_pieces_put_together_are_the_text() {
    let (generator, ..) = scripted(PROMPT, " costs 5€ 🙂, saith he");
    let mut pieces = Vec::new();
    let result = generator
        .stream(PROMPT, &GenerationOptions::default(), |piece| {
            pieces.push(piece.to_owned());
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(result.text, " costs 5€ 🙂, saith he");
    assert_eq!(pieces.concat(), result.text);
    assert!(pieces.len() > 5 && pieces.iter().all(|piece| !piece.is_empty()), "{pieces:?}");
}

#[test]
fn a_stop_string_over_several_tokens_is_cut_off_and_ends_the_generation() {
    let (generator, _, new) = scripted(PROMPT, CONTINUATION);
    let mut streamed = String::new();
    let result = generator
        .stream(PROMPT, &stop_at(&["zzz", "ign of k"]), |piece| {
            streamed.push_str(piece);
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(result.text, " of the re");
    assert_eq!(streamed, result.text);
    assert_eq!(result.finish_reason, FinishReason::StopString);
    assert!(result.token_ids.len() < new.len());
    assert_eq!(result.token_ids, new[..result.token_ids.len()]);
}

#[test]
fn text_held_back_for_a_stop_string_comes_out_at_the_end() {
    let (generator, ..) = scripted(PROMPT, CONTINUATION);
    let result = generator.generate(PROMPT, &stop_at(&["Hezekiah begat"])).unwrap();
    assert_eq!(result.text, CONTINUATION);
    assert_eq!(result.finish_reason, FinishReason::Eos);
}

#[test]
fn a_stop_string_that_the_last_token_completes_is_the_reason() {
    let (generator, _, new) = scripted(PROMPT, "£");
    let options = GenerationOptions { max_new_tokens: new.len(), ..stop_at(&["£"]) };
    let result = generator.generate(PROMPT, &options).unwrap();
    assert_eq!((result.text.as_str(), result.finish_reason), ("", FinishReason::StopString));
}

#[test]
fn bytes_that_are_cut_short_become_replacement_characters() {
    let (generator, ..) = scripted(PROMPT, "€");
    let options = GenerationOptions { max_new_tokens: 2, ..GenerationOptions::default() };
    assert_eq!(generator.generate(PROMPT, &options).unwrap().text, "\u{FFFD}\u{FFFD}");
}

#[test]
fn breaking_off_keeps_the_text_that_was_handed_out() {
    let (generator, ..) = scripted(PROMPT, CONTINUATION);
    let mut streamed = String::new();
    let result = generator
        .stream(PROMPT, &GenerationOptions::default(), |piece| {
            streamed.push_str(piece);
            if streamed.contains("the") { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
    assert_eq!(result.finish_reason, FinishReason::Cancelled);
    assert_eq!(result.text, " of the");
    assert_eq!(streamed, result.text);
}

#[test]
fn a_stop_string_ends_one_sequence_of_a_batch_and_not_the_others() {
    let (generator, ..) = scripted(PROMPT, CONTINUATION);
    // the second prompt has as many tokens as the first and one more, so its script begins at the second token
    let longer = generator.encode(PROMPT).unwrap().into_iter().chain([300]).collect::<Vec<u32>>();
    let prompts = [Prompt::Text(PROMPT), Prompt::Tokens(&longer)];
    let results = generator.generate_batch(prompts, &stop_at(&[" of the"])).unwrap();
    assert_eq!((results[0].text.as_str(), results[0].finish_reason), ("", FinishReason::StopString));
    assert_eq!(results[1].text, " the reign of king Hezekiah");
    assert_eq!(results[1].finish_reason, FinishReason::Eos);
}

#[test]
fn a_batch_of_texts_gives_what_each_text_gives_alone() {
    let model = FakeModel::new(|seen| fake::hashed(seen, 2048)).load();
    let generator = TextGenerator::new(&model).unwrap();
    let texts = ["Moses", "And the LORD said unto Moses", "The sons of"];
    let options = GenerationOptions { max_new_tokens: 20, ..GenerationOptions::default() };
    let together = generator.generate_batch(texts.iter(), &options).unwrap();
    for (text, result) in texts.iter().zip(together) {
        assert_eq!(result, generator.generate(*text, &options).unwrap());
    }
    assert_eq!(generator.generate_batch::<&str>([], &options).unwrap(), []);
}

#[test]
fn a_conversation_is_rendered_and_encoded_without_another_begin_token() {
    let (generator, ..) = scripted(PROMPT, CONTINUATION);
    let rendered = "<|user|>\nWho made the heaven?</s>\n<|assistant|>\n";
    let expected = fake::tokenizer().encode(rendered, false).unwrap();
    let messages = [user("Who made the heaven?")];
    assert_eq!(generator.encode(&messages[..]).unwrap(), expected);
    assert!(!expected.contains(&1), "no <s>");
}

#[test]
fn token_ids_are_taken_as_they_are() {
    let (generator, prompt_ids, _) = scripted(PROMPT, CONTINUATION);
    let options = GenerationOptions::default();
    assert_eq!(
        generator.generate(&prompt_ids, &options).unwrap(),
        generator.generate(PROMPT, &options).unwrap()
    );
}

#[test]
fn an_empty_prompt_of_any_kind_is_refused_by_number() {
    let (generator, ..) = scripted(PROMPT, CONTINUATION);
    let options = GenerationOptions::default();
    for prompt in [Prompt::Text(""), Prompt::Chat(&[]), Prompt::Tokens(&[])] {
        let error = generator.generate_batch([Prompt::Text("a"), prompt], &options).unwrap_err();
        assert!(matches!(error, Error::EmptyPrompt { index: 1 }), "{error}");
        assert!(matches!(generator.generate(prompt, &options), Err(Error::EmptyPrompt { index: 0 })));
    }
}

#[test]
fn a_prompt_longer_than_the_positions_is_refused_with_both_numbers() {
    let (generator, ..) = scripted(PROMPT, CONTINUATION);
    let error = generator.generate(&"word ".repeat(600), &GenerationOptions::default()).unwrap_err();
    assert!(matches!(error, Error::TooLong { tokens: 600.., limit: 512 }), "{error}");
}

#[test]
fn invalid_options_are_rejected() {
    let (generator, ..) = scripted(PROMPT, CONTINUATION);
    let sampling = Sampling::Multinomial { temperature: 0.0, top_k: None, top_p: None, min_p: None };
    let options = GenerationOptions { sampling, ..GenerationOptions::default() };
    assert!(matches!(generator.generate(PROMPT, &options), Err(Error::Option { option: "temperature", .. })));
    assert!(matches!(generator.generate(PROMPT, &stop_at(&[""])), Err(Error::Option { option: "stop", .. })));
}

#[test]
fn a_model_without_a_chat_template_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(fake::fixture("jetmoe-mini").join("tokenizer.json"), folder.path().join("tokenizer.json"))
        .unwrap();
    let mut model = FakeModel::scripted(1, vec![]);
    model.tokenizer = Tokenizer::open(folder.path()).unwrap();
    let generator = TextGenerator::new(&model.load()).unwrap();
    let error = generator.generate(&[user("?")][..], &GenerationOptions::default()).unwrap_err();
    assert!(error.to_string().contains("chat_template.jinja"), "{error}");
}

#[test]
fn a_model_without_a_tokenizer_or_of_another_task_makes_no_text() {
    let mut model = FakeModel::scripted(1, vec![]);
    model.tokenizer = None;
    assert!(matches!(TextGenerator::new(&model.load()), Err(Error::NoTokenizer)));
    let classifier = FakeModel::classifier(|_| vec![0.0, 0.0]).load();
    assert!(matches!(TextGenerator::new(&classifier), Err(Error::WrongTask { .. })));
}
