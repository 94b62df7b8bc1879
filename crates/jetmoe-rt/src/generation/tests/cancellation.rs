//! Cancellation at any moment keeps what was generated, and session and prefix cache stay usable.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::*;

const CHUNK: usize = 3;
const LONG: [u32; 11] = [5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];

fn without_end(max_new_tokens: usize) -> GenerationOptions {
    GenerationOptions { eos_token_ids: Some(vec![]), prefill_chunk: CHUNK, ..at_most(max_new_tokens) }
}

/// A model that cancels the token when a position has seen so many tokens, and the token.
fn cancelling_at(tokens: usize) -> (FakeModel, CancellationToken) {
    let token = CancellationToken::new();
    let cancelled = token.clone();
    let mut model = FakeModel::new(move |seen| {
        if seen.len() == tokens {
            cancelled.cancel();
        }
        fake::hashed(seen, 50)
    });
    model.config.vocab_size = 50;
    (model, token)
}

/// Generates with a cache until the token is cancelled, and then again without the token.
fn cancel_and_continue(tokens: usize, stops_in_step: bool) -> (Completion, Vec<u32>) {
    let (mut model, token) = cancelling_at(tokens);
    model.stops_in_step = stops_in_step;
    let generator = generator(model);
    let cache = PrefixCache::new();
    let request = request([LONG], &without_end(4)).with_prefix_cache(&cache);
    let cancelled = generator.run(request.clone().with_cancellation(&token)).unwrap();
    let kept = cache.token_ids();
    let again = generator.run(request).unwrap();
    assert_eq!(again.token_ids, continue_without_cache(&LONG, 4));
    assert_eq!(again.statistics.reused_tokens, kept.len().min(LONG.len() - 1));
    assert_eq!(cancelled.finish_reason, FinishReason::Cancelled);
    assert_eq!(cancelled.token_ids, again.token_ids[..cancelled.token_ids.len()]);
    (cancelled, kept)
}

#[test]
fn a_prompt_is_cancelled_between_its_chunks_and_the_chunks_are_kept() {
    // in the second chunk, which the backend computes to its end
    let (cancelled, kept) = cancel_and_continue(CHUNK + 1, false);
    assert_eq!((cancelled.token_ids.len(), kept.as_slice()), (0, &LONG[..2 * CHUNK]));
    assert_eq!(cancelled.timings.first_token, None);
}

#[test]
fn a_prompt_is_cancelled_inside_a_chunk_and_the_chunks_before_it_are_kept() {
    let (cancelled, kept) = cancel_and_continue(CHUNK + 1, true);
    assert_eq!((cancelled.token_ids.len(), kept.as_slice()), (0, &LONG[..CHUNK]));
    let (cancelled, kept) = cancel_and_continue(LONG.len(), true);
    assert_eq!((cancelled.token_ids.len(), kept.as_slice()), (0, &LONG[..9]));
}

#[test]
fn a_step_is_cancelled_after_it_or_inside_it() {
    // the step that reads the second token
    for stops_in_step in [false, true] {
        let (cancelled, kept) = cancel_and_continue(LONG.len() + 2, stops_in_step);
        assert_eq!(cancelled.token_ids.len(), 2);
        assert_eq!(kept, [&LONG[..], &cancelled.token_ids[..1]].concat());
        assert!(cancelled.timings.first_token.is_some());
    }
}

#[test]
fn a_token_that_is_cancelled_before_the_start_computes_nothing() {
    let model = hashed();
    let steps = Arc::clone(&model.steps);
    let token = CancellationToken::new();
    token.cancel();
    let request = request(PROMPTS, &at_most(9)).with_cancellation(&token);
    let mut stream = generator(model).stream(request).unwrap();
    let events: Vec<Event> = stream.by_ref().map(Result::unwrap).collect();
    assert_eq!(events.iter().map(|event| event.sequence).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
    let is_bare = |event: &Event| event.token.is_none() && event.text.is_empty();
    assert!(
        events.iter().all(|event| is_bare(event) && event.finish_reason == Some(FinishReason::Cancelled))
    );
    assert_eq!(stream.finish().unwrap().len(), PROMPTS.len());
    assert_eq!(steps.load(Ordering::Relaxed), 0);
}

#[test]
fn another_thread_cancels_while_a_step_runs() {
    let (reached, is_reached) = mpsc::channel();
    let (resume, resumed) = mpsc::channel();
    let resumed = std::sync::Mutex::new(resumed);
    let mut model = FakeModel::new(move |seen| {
        if seen.len() == 4 {
            reached.send(()).unwrap();
            resumed.lock().unwrap().recv().unwrap();
        }
        fake::hashed(seen, 50)
    });
    model.config.vocab_size = 50;
    let generator = generator(model);
    let token = CancellationToken::new();
    let request = request([[5, 6]], &without_end(9)).with_cancellation(&token);
    let running = std::thread::spawn(move || generator.run(request));
    is_reached.recv().unwrap();
    token.cancel();
    resume.send(()).unwrap();
    let completion = running.join().unwrap().unwrap();
    assert_eq!(completion.finish_reason, FinishReason::Cancelled);
    assert_eq!(completion.token_ids, continue_without_cache(&[5, 6], 2));
}

#[test]
fn text_that_was_held_back_for_a_stop_string_comes_out() {
    let tokenizer = fake::tokenizer();
    let prompt_ids = tokenizer.encode("In the beginning", true).unwrap();
    let all = tokenizer.encode("In the beginning of the reign of king", true).unwrap();
    let script = all[prompt_ids.len()..].to_vec();
    let generator = Generator::new(&FakeModel::scripted(prompt_ids.len(), script).load()).unwrap();
    let token = CancellationToken::new();
    let options = GenerationOptions { stop: vec![" of the end".to_owned()], ..GenerationOptions::default() };
    let request = request(["In the beginning"], &options).with_cancellation(&token);
    for by_token in [false, true] {
        let mut stream = generator.stream(request.clone()).unwrap();
        let events = stream.by_ref();
        for _ in 0..2 {
            assert_eq!(events.next().unwrap().unwrap().text, "", "held back");
        }
        if by_token {
            token.cancel();
            let last = events.next().unwrap().unwrap();
            let reason = Some(FinishReason::Cancelled);
            assert_eq!((last.token, last.text.as_str(), last.finish_reason), (None, " of the", reason));
            assert!(stream.next().is_none());
        }
        let completion = stream.finish().unwrap().remove(0);
        assert_eq!((completion.text.as_str(), completion.token_ids.len()), (" of the", 2));
        assert_eq!(completion.finish_reason, FinishReason::Cancelled);
    }
}

/// A model whose steps take until the session's token is cancelled, once a position has seen so many tokens.
fn slow_after(tokens: usize) -> FakeModel {
    let mut model = FakeModel::new(move |seen| {
        if seen.len() >= tokens {
            std::thread::sleep(Duration::from_millis(20));
        }
        fake::hashed(seen, 50)
    });
    model.config.vocab_size = 50;
    model.stops_in_step = true;
    model
}

#[test]
fn a_deadline_ends_a_generation_and_keeps_what_was_generated() {
    let generator = generator(slow_after(LONG.len() + 3));
    let request = request([LONG], &without_end(100_000));
    let deadline = Instant::now() + Duration::from_millis(100);
    let completion = generator.run(request.with_deadline(deadline)).unwrap();
    assert!(Instant::now() >= deadline);
    assert_eq!(completion.finish_reason, FinishReason::Deadline);
    assert_eq!(completion.token_ids, continue_without_cache(&LONG, completion.token_ids.len()));
}

#[test]
fn a_deadline_stops_a_step_and_does_not_cancel_the_token_of_the_request() {
    let generator = generator(slow_after(2));
    let token = CancellationToken::new();
    let deadline = Instant::now() + Duration::from_millis(30);
    // one chunk of eleven tokens takes 200 milliseconds, and its result is dropped
    let options = GenerationOptions { prefill_chunk: 512, ..without_end(5) };
    let request = request([LONG], &options).with_cancellation(&token).with_deadline(deadline);
    let completion = generator.run(request).unwrap();
    assert_eq!((completion.token_ids.len(), completion.finish_reason), (0, FinishReason::Deadline));
    assert!(!token.is_cancelled());
}

#[test]
fn a_deadline_that_has_passed_computes_nothing_and_one_far_away_changes_nothing() {
    let model = hashed();
    let steps = Arc::clone(&model.steps);
    let generator = generator(model);
    let request = request([LONG], &without_end(4));
    let completion = generator.run(request.clone().with_deadline(Instant::now())).unwrap();
    assert_eq!((completion.token_ids.len(), completion.finish_reason), (0, FinishReason::Deadline));
    assert_eq!(steps.load(Ordering::Relaxed), 0);
    let far = Instant::now() + Duration::from_secs(100_000);
    let completion = generator.run(request.clone().with_deadline(far)).unwrap();
    assert_eq!((completion.token_ids.len(), completion.finish_reason), (4, FinishReason::Length));
    let token = CancellationToken::new();
    let request = request.with_deadline(far).with_cancellation(&token);
    let mut stream = generator.stream(request).unwrap();
    stream.next().unwrap().unwrap();
    token.cancel();
    let last = stream.next().unwrap().unwrap();
    assert_eq!((last.token, last.finish_reason), (None, Some(FinishReason::Cancelled)));
}
