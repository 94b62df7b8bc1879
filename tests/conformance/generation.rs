//! Drafts and kept prefixes change how much is computed on a backend, and not one token.

use std::ops::ControlFlow;

use jetmoe::rt::{
    ChatMessage, Completion, FinishReason, GenerationOptions, Generator, Multinomial, PrefixCache, Prompt,
    PromptLookup, Request,
};

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

fn new_generator(subject: Subject) -> Generator {
    Generator::new(&Case::named("jetmoe-mini").export().single_threaded_model(subject)).unwrap()
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
    GenerationOptions::default().with_max_new_tokens(40)
}

fn run(generator: &Generator, prompt: impl Into<Prompt>, options: &GenerationOptions) -> Completion {
    generator.run(Request::new(prompt).with_options(options.clone())).unwrap()
}

/// What decides how a continuation goes and ends, each in its own way.
fn ways() -> [(&'static str, GenerationOptions); 6] {
    let sampling = Multinomial::new(0.8).with_top_k(20).with_top_p(0.95);
    [
        ("greedy", greedy()),
        ("a repetition penalty", greedy().with_repetition_penalty(1.2)),
        ("stop strings", greedy().with_stop(["the LORD", "and the", ","])),
        ("a common end token", greedy().with_eos_token_ids(vec![266, 269, 274])),
        ("seven tokens", greedy().with_max_new_tokens(7)),
        ("sampling", greedy().with_sampling(sampling).with_seed(11)),
    ]
}

fn assert_same(found: &Completion, expected: &Completion, what: &str) {
    assert_eq!(found.token_ids, expected.token_ids, "{what}");
    assert_eq!(found.text, expected.text, "{what}");
    assert_eq!(found.finish_reason, expected.finish_reason, "{what}");
}

fn drafts_change_no_token(subject: Subject) {
    let generator = new_generator(subject);
    let (mut drafted, mut accepted) = (0, 0);
    for (way, options) in ways() {
        for prompt in PROMPTS {
            let expected = run(&generator, prompt, &options);
            for (draft_tokens, ngram_tokens) in [(1, 1), (6, 2)] {
                let lookup =
                    PromptLookup::default().with_draft_tokens(draft_tokens).with_ngram_tokens(ngram_tokens);
                let options = options.clone().with_prompt_lookup(lookup);
                let found = run(&generator, prompt, &options);
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
    let limit = generator.model().config().max_position_embeddings;
    let once = generator.encode("and the LORD said unto the king,").unwrap();
    let prompt: Vec<u32> = once.iter().copied().cycle().take(limit - 9).collect();
    let options = greedy().with_eos_token_ids(Vec::new());
    let expected = run(&generator, &prompt, &options);
    let options = options.with_prompt_lookup(PromptLookup::default());
    let found = run(&generator, &prompt, &options);
    assert_same(&found, &expected, &format!("on {subject}"));
    assert_eq!((found.token_ids.len(), found.finish_reason), (9, FinishReason::ContextFull));
    assert!(found.statistics.drafted_tokens > 0);
}

fn a_conversation_with_a_prefix_cache_goes_as_without(subject: Subject) {
    let generator = new_generator(subject);
    for prompt_lookup in [None, Some(PromptLookup::default())] {
        let options = greedy().with_max_new_tokens(16).with_prompt_lookup(prompt_lookup);
        let cache = PrefixCache::new();
        let mut messages: Vec<ChatMessage> = Vec::new();
        for (turn, question) in ["Who made the heaven?", "And the earth?", "And the sea?"].iter().enumerate()
        {
            messages.push(ChatMessage::user(*question));
            let expected = run(&generator, &messages, &options);
            let mut streamed = String::new();
            let request = Request::new(&messages).with_options(options.clone()).with_prefix_cache(&cache);
            let found = generator.for_each(request, |event| {
                streamed.push_str(&event.text);
                ControlFlow::Continue(())
            });
            let found = found.unwrap().remove(0);
            assert_same(&found, &expected, &format!("turn {turn} on {subject}"));
            assert_eq!(streamed, found.text);
            let reused = found.statistics.reused_tokens;
            assert_eq!(reused > 0, turn > 0, "turn {turn} reused {reused} tokens");
            messages.push(ChatMessage::assistant(found.text));
        }
    }
}

fn prompts_of_one_beginning_are_continued_as_each_alone(subject: Subject) {
    let beginning = "And the LORD spake unto Moses, saying, ";
    let generator = new_generator(subject);
    let cache = PrefixCache::new();
    let ends = ["Speak unto", "Take the", "", "Speak unto Aaron"].map(|end| format!("{beginning}{end}"));
    for (index, prompt) in ends.iter().enumerate() {
        let request = Request::new(prompt).with_options(greedy());
        let expected = generator.run(request.clone()).unwrap();
        let found = generator.run(request.with_prefix_cache(&cache)).unwrap();
        assert_same(&found, &expected, &format!("{prompt:?} on {subject}"));
        assert_eq!(found.statistics.reused_tokens > 4, index > 0, "{prompt:?}");
    }
}

fn a_prompt_in_chunks_is_continued_as_in_one_piece(subject: Subject) {
    let generator = new_generator(subject);
    let run_batch = |options| generator.run_batch(Request::batch(PROMPTS).with_options(options)).unwrap();
    let whole = run_batch(greedy());
    for prefill_chunk in [1, 5, 7] {
        let chunks = run_batch(greedy().with_prefill_chunk(prefill_chunk));
        for ((found, expected), prompt) in chunks.iter().zip(&whole).zip(PROMPTS) {
            assert_same(found, expected, &format!("{prompt:?} in chunks of {prefill_chunk} on {subject}"));
        }
    }
}
