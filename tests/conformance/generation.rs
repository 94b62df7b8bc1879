//! Drafts and kept prefixes change how much is computed on a backend, and not one token.

use std::ops::ControlFlow;

use jetmoe::rt::{
    FinishReason, GeneratedText, GenerationOptions, PrefixCache, PromptLookup, Sampling, TextGenerator,
};
use jetmoe::text::ChatMessage;

use crate::fixtures::Case;
use crate::subject::Subject;
use crate::suite::{Suite, measured, named};

pub(crate) fn add_tests(suite: &mut Suite, subject: Subject) {
    suite.add_group(
        subject,
        "generation",
        named![
            drafts_change_no_token,
            drafts_end_where_the_positions_end,
            a_conversation_with_a_prefix_cache_goes_as_without,
            prompts_of_one_beginning_are_continued_as_each_alone,
            a_prompt_in_chunks_is_continued_as_in_one_piece,
        ],
    );
}

fn new_generator(subject: Subject) -> TextGenerator {
    TextGenerator::new(&Case::named("jetmoe-mini").export().single_threaded_model(subject)).unwrap()
}

/// Texts like the training text, some of them repetitive.
const PROMPTS: [&str; 8] = [
    "In the beginning",
    "And God said, Let there be light: and there was light. And God said, Let there be",
    "The stock market rallied today",
    "begat Isaac; and Isaac begat Jacob; and Jacob begat Judas; and Judas begat",
    "And the LORD spake unto Moses, saying, Speak unto the children of Israel, and say unto",
    "the house of the LORD, and the house of the king, and",
    "x",
    "Verily, verily, I say unto thee,",
];

fn greedy() -> GenerationOptions {
    GenerationOptions { max_new_tokens: 40, ..GenerationOptions::default() }
}

/// What decides how a continuation goes and ends, each in its own way.
fn ways() -> [(&'static str, GenerationOptions); 6] {
    let stop = ["the LORD", "and the", ","].map(str::to_owned).to_vec();
    let sampling =
        Sampling::Multinomial { temperature: 0.8, top_k: Some(20), top_p: Some(0.95), min_p: None };
    [
        ("greedy", greedy()),
        ("a repetition penalty", GenerationOptions { repetition_penalty: 1.2, ..greedy() }),
        ("stop strings", GenerationOptions { stop, ..greedy() }),
        ("a common end token", GenerationOptions { eos_token_ids: Some(vec![266, 269, 274]), ..greedy() }),
        ("seven tokens", GenerationOptions { max_new_tokens: 7, ..greedy() }),
        ("sampling", GenerationOptions { sampling, seed: Some(11), ..greedy() }),
    ]
}

fn assert_same(found: &GeneratedText, expected: &GeneratedText, what: &str) {
    assert_eq!(found.token_ids, expected.token_ids, "{what}");
    assert_eq!(found.text, expected.text, "{what}");
    assert_eq!(found.finish_reason, expected.finish_reason, "{what}");
}

fn drafts_change_no_token(subject: Subject) {
    let generator = new_generator(subject);
    let (mut drafted, mut accepted) = (0, 0);
    for (way, options) in ways() {
        for prompt in PROMPTS {
            let expected = generator.generate(prompt, &options).unwrap();
            for (draft_tokens, ngram_tokens) in [(1, 1), (6, 2)] {
                let lookup = PromptLookup { draft_tokens, ngram_tokens };
                let options = GenerationOptions { prompt_lookup: Some(lookup), ..options.clone() };
                let found = generator.generate(prompt, &options).unwrap();
                assert_same(&found, &expected, &format!("{prompt:?} with {way}, {lookup:?} on {subject}"));
                drafted += found.statistics.drafted_tokens;
                accepted += found.statistics.accepted_tokens;
            }
        }
    }
    measured(&format!("{subject}: {accepted} of {drafted} drafts were right"));
    assert!(accepted > 0 && accepted < drafted, "the test needs right drafts and wrong ones");
}

fn drafts_end_where_the_positions_end(subject: Subject) {
    let generator = new_generator(subject);
    let limit = generator.tokens().model().config().max_position_embeddings;
    let once = generator.encode("and the LORD said unto the king,").unwrap();
    let prompt: Vec<u32> = once.iter().copied().cycle().take(limit - 9).collect();
    let options = GenerationOptions { eos_token_ids: Some(Vec::new()), ..greedy() };
    let expected = generator.generate(&prompt, &options).unwrap();
    let options = GenerationOptions { prompt_lookup: Some(PromptLookup::default()), ..options };
    let found = generator.generate(&prompt, &options).unwrap();
    assert_same(&found, &expected, &format!("on {subject}"));
    assert_eq!((found.token_ids.len(), found.finish_reason), (9, FinishReason::ContextFull));
    assert!(found.statistics.drafted_tokens > 0);
}

fn a_conversation_with_a_prefix_cache_goes_as_without(subject: Subject) {
    let generator = new_generator(subject);
    for prompt_lookup in [None, Some(PromptLookup::default())] {
        let options = GenerationOptions { max_new_tokens: 16, prompt_lookup, ..greedy() };
        let mut cache = PrefixCache::new();
        let mut messages: Vec<ChatMessage> = Vec::new();
        for (turn, question) in ["Who made the heaven?", "And the earth?", "And the sea?"].iter().enumerate()
        {
            messages.push(ChatMessage { role: "user".to_owned(), content: (*question).to_owned() });
            let expected = generator.generate(&messages, &options).unwrap();
            let mut streamed = String::new();
            let found = generator.stream_cached(&messages, &options, &mut cache, |piece| {
                streamed.push_str(piece);
                ControlFlow::Continue(())
            });
            let found = found.unwrap();
            assert_same(&found, &expected, &format!("turn {turn} on {subject}"));
            assert_eq!(streamed, found.text);
            let reused = found.statistics.reused_tokens;
            assert_eq!(reused > 0, turn > 0, "turn {turn} reused {reused} tokens");
            messages.push(ChatMessage { role: "assistant".to_owned(), content: found.text });
        }
    }
}

fn prompts_of_one_beginning_are_continued_as_each_alone(subject: Subject) {
    let beginning = "And the LORD spake unto Moses, saying, ";
    let generator = new_generator(subject);
    let mut cache = PrefixCache::new();
    let ends = ["Speak unto", "Take the", "", "Speak unto Aaron"].map(|end| format!("{beginning}{end}"));
    for (index, prompt) in ends.iter().enumerate() {
        let expected = generator.generate(prompt, &greedy()).unwrap();
        let found =
            generator.stream_cached(prompt, &greedy(), &mut cache, |_| ControlFlow::Continue(())).unwrap();
        assert_same(&found, &expected, &format!("{prompt:?} on {subject}"));
        assert_eq!(found.statistics.reused_tokens > 4, index > 0, "{prompt:?}");
    }
}

fn a_prompt_in_chunks_is_continued_as_in_one_piece(subject: Subject) {
    let generator = new_generator(subject);
    let whole = generator.generate_batch(PROMPTS, &greedy()).unwrap();
    for prefill_chunk in [1, 5, 7] {
        let options = GenerationOptions { prefill_chunk, ..greedy() };
        let chunks = generator.generate_batch(PROMPTS, &options).unwrap();
        for ((found, expected), prompt) in chunks.iter().zip(&whole).zip(PROMPTS) {
            assert_same(found, expected, &format!("{prompt:?} in chunks of {prefill_chunk} on {subject}"));
        }
    }
}
