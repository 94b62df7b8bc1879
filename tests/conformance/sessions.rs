//! What a session promises, on every backend.

use jetmoe::artifact::{OutputName, Profile};
use jetmoe::rt::TensorMap;
use jetmoe::rt::{
    Error, GenerationOptions, Generator, LoadOptions, Model, Request, Session, StepOutput, TokenBatch,
};
use ndarray::{Array2, ArrayD, Slice, concatenate, s};

use crate::closeness::{assert_all_close, assert_logits_close, sequence_of, token_axis};
use crate::fixtures::Case;
use crate::subject::{Subject, has_device};
use crate::suite::{Suite, named};

pub(crate) fn add_tests(suite: &mut Suite, subject: Subject) {
    // of the CPU: other devices keep the cache by themselves, or on the host
    if subject.backend.to_string() == "ort" && !has_device() {
        suite.add_group(
            subject,
            "cache",
            named![a_cache_that_graphs_copy_gives_the_same_results_and_never_comes_to_the_host],
        );
    }
    // other profiles multiply with operators of the runtime, which choose a loop by the number of rows
    if subject.profile == Profile::Native && !has_device() {
        suite.add_group(subject, "sessions", named![a_native_sequence_has_the_same_bits_in_any_company]);
    }
    suite.add_group(
        subject,
        "sessions",
        named![
            a_prompt_read_in_two_pieces_gives_the_results_of_one,
            a_prompt_in_chunks_gives_the_last_scores_and_the_cache_of_the_whole,
            a_truncated_session_goes_on_as_if_the_rest_had_never_been_read,
            a_sequence_of_a_padded_batch_gives_what_it_gives_alone,
            padding_gives_finite_numbers,
            a_failed_step_leaves_the_session_as_it_was,
            a_sequence_may_fill_all_positions_and_not_one_more,
            sessions_of_one_model_do_not_disturb_each_other,
            a_model_is_shared_by_threads,
            a_classifier_remembers_nothing,
            a_cleared_sequence_is_replaced_by_another_while_the_others_go_on,
            only_a_sequence_of_the_batch_can_be_cleared,
        ],
    );
}

/// Two experts per token, and three with another width of keys.
const CASES: [&str; 2] = ["tiny", "odd"];

/// A loaded model that all tests of a subject share, with the case's batch: three sequences, two of them padded.
struct Loaded {
    what: String,
    model: Model,
    batch: TokenBatch,
}

fn load_cases(subject: Subject) -> [Loaded; 2] {
    CASES.map(Case::named).map(|case| Loaded {
        what: format!("of {} on {subject}", case.name),
        model: case.export().model(subject),
        batch: case.golden().batch,
    })
}

/// Every output of a step, and the cache after it.
fn everything(session: &Session, output: &StepOutput) -> TensorMap {
    let mut tensors = output.tensors().clone();
    tensors.extend(session.cache().unwrap());
    tensors
}

/// Some columns of a batch.
fn piece(batch: &TokenBatch, columns: std::ops::Range<usize>) -> TokenBatch {
    let columns = s![.., columns];
    TokenBatch::masked(batch.ids().slice(columns).to_owned(), batch.mask().slice(columns).to_owned()).unwrap()
}

/// The tokens of one sequence of a batch, without its padding.
fn sequence(batch: &TokenBatch, row: usize) -> Vec<u32> {
    let tokens = batch.ids().row(row).into_iter().zip(batch.mask().row(row));
    tokens.filter(|(_, counts)| **counts).map(|(id, _)| *id).collect()
}

fn a_prompt_read_in_two_pieces_gives_the_results_of_one(subject: Subject) {
    for Loaded { what, model, batch } in &load_cases(subject) {
        let mut session = model.session().unwrap();
        let output = session.step(batch).unwrap();
        let whole = everything(&session, &output);
        let tokens = batch.sequence_length();
        for first in [1, tokens / 2, tokens - 1] {
            let mut session = model.session().unwrap();
            let left = session.step(&piece(batch, 0..first)).unwrap();
            assert_eq!(session.past_length(), first);
            let right = session.step(&piece(batch, first..tokens)).unwrap();
            let mut pieces = session.cache().unwrap();
            for (name, left) in left.tensors() {
                let right = right.get(*name).unwrap();
                let both = concatenate(token_axis(*name), &[left.view(), right.view()]).unwrap();
                pieces.insert(*name, both);
            }
            for row in 0..batch.batch_size() {
                let found = sequence_of(&pieces, batch, row);
                let what = format!("{what}, sequence {row} in pieces of {first} and {}", tokens - first);
                assert_all_close(&what, &found, &sequence_of(&whole, batch, row));
            }
        }
    }
}

/// The scores of a sequence's last token, under the name they have.
fn last_logits(output: &StepOutput, row: usize) -> TensorMap {
    TensorMap::from([(OutputName::Logits, output.last_logits(row).unwrap().to_owned().into_dyn())])
}

fn a_prompt_in_chunks_gives_the_last_scores_and_the_cache_of_the_whole(subject: Subject) {
    for Loaded { what, model, batch } in &load_cases(subject) {
        let tokens = batch.sequence_length();
        let mut whole = model.session().unwrap();
        let expected = whole.step(batch).unwrap();
        let expected_cache = whole.cache().unwrap();
        let shortest = (0..batch.batch_size()).map(|row| sequence(batch, row).len()).min().unwrap();
        assert!(tokens - shortest > 3, "the test needs chunks in which a sequence has padding only");
        for chunk in [1, 3, tokens - 1, tokens, tokens + 1] {
            let mut session = model.session().unwrap();
            let output = session.prefill(batch, chunk).unwrap();
            assert_eq!(session.past_length(), tokens);
            let cache = session.cache().unwrap();
            for row in 0..batch.batch_size() {
                let what = format!("{what}, sequence {row} in chunks of {chunk}");
                assert_all_close(&what, &last_logits(&output, row), &last_logits(&expected, row));
                let (found, expected) =
                    (sequence_of(&cache, batch, row), sequence_of(&expected_cache, batch, row));
                assert_all_close(&what, &found, &expected);

                let alone = TokenBatch::left_padded(&[sequence(batch, row)], 0).unwrap();
                let alone = model.session().unwrap().prefill(&alone, chunk).unwrap();
                assert_all_close(
                    &format!("{what} alone"),
                    &last_logits(&alone, 0),
                    &last_logits(&output, row),
                );
            }
        }
    }
}

/// The first columns of a cache.
fn first_tokens(cache: &TensorMap, tokens: usize) -> TensorMap {
    let first = |(name, tensor): (&OutputName, &ArrayD<f32>)| {
        (*name, tensor.slice_axis(token_axis(*name), Slice::from(..tokens)).to_owned())
    };
    cache.iter().map(first).collect()
}

fn a_truncated_session_goes_on_as_if_the_rest_had_never_been_read(subject: Subject) {
    for Loaded { what, model, batch } in &load_cases(subject) {
        let tokens = batch.sequence_length();
        let mut session = model.session().unwrap();
        session.step(batch).unwrap();
        let whole = session.cache().unwrap();
        // what is dropped is read again from other tokens, and dropped again
        let others = TokenBatch::next_tokens(&vec![17; batch.batch_size()]);
        for kept in [tokens, tokens - 1, tokens / 2, 1, 0] {
            session.truncate(kept).unwrap();
            assert_eq!(session.past_length(), kept);
            let expected = if kept == 0 { TensorMap::new() } else { first_tokens(&whole, kept) };
            assert!(session.cache().unwrap() == expected, "{kept} tokens kept {what}");
            if kept == tokens {
                continue;
            }
            session.step(&others).unwrap();
            session.truncate(kept).unwrap();
            let rest = piece(batch, kept..tokens);
            let output = session.step(&rest).unwrap();
            let cache = session.cache().unwrap();

            let mut fresh = model.session().unwrap();
            if kept > 0 {
                fresh.step(&piece(batch, 0..kept)).unwrap();
            }
            let expected = fresh.step(&rest).unwrap();
            let expected_cache = fresh.cache().unwrap();
            for row in 0..batch.batch_size() {
                let what = format!("{what}, sequence {row}, {kept} tokens kept");
                assert_all_close(&what, &last_logits(&output, row), &last_logits(&expected, row));
                let (found, expected) =
                    (sequence_of(&cache, batch, row), sequence_of(&expected_cache, batch, row));
                assert_all_close(&what, &found, &expected);
            }
        }
        let error = session.truncate(tokens + 1).unwrap_err();
        assert!(matches!(error, Error::Truncation { .. }), "{error} {what}");
        session.truncate(0).unwrap();
        session.step(&TokenBatch::next_tokens(&[3])).unwrap();
    }
}

fn a_sequence_of_a_padded_batch_gives_what_it_gives_alone(subject: Subject) {
    for Loaded { what, model, batch } in &load_cases(subject) {
        let mut together = model.session().unwrap();
        let prompts = together.step(batch).unwrap();
        let prompts = everything(&together, &prompts);
        let nexts = together.step(&TokenBatch::next_tokens(&[7, 8, 9])).unwrap();
        for (row, next) in [7, 8, 9].into_iter().enumerate() {
            let mut alone = model.session().unwrap();
            let prompt = alone.step(&TokenBatch::left_padded(&[sequence(batch, row)], 0).unwrap()).unwrap();
            let prompt = everything(&alone, &prompt);
            let what = format!("{what}, sequence {row}");
            assert_all_close(&what, &sequence_of(&prompts, batch, row), &prompt);
            let step = alone.step(&TokenBatch::next_tokens(&[next])).unwrap();
            let new = TokenBatch::next_tokens(&[7, 8, 9]);
            assert_all_close(&what, &sequence_of(nexts.tensors(), &new, row), step.tensors());
        }
    }
}

fn a_native_sequence_has_the_same_bits_in_any_company(subject: Subject) {
    for subject in subject.precisions().into_iter().map(|precision| subject.with_precision(precision)) {
        for case in CASES.map(Case::named) {
            let what = format!("of {} on {subject}", case.name);
            let options = subject.load_options().with_batch_invariant(true);
            let (model, batch) = (case.export().load_with(subject, &options), &case.golden().batch);
            let next = [7, 8, 9];
            let bits = |output: &StepOutput, row: usize| -> Vec<u32> {
                output.last_logits(row).unwrap().iter().map(|logit| logit.to_bits()).collect()
            };
            let mut together = model.session().unwrap();
            let prompts = together.step(batch).unwrap();
            let nexts = together.step(&TokenBatch::next_tokens(&next)).unwrap();
            for chunk in [1, 2, usize::MAX] {
                let mut in_chunks = model.session().unwrap();
                let last = in_chunks.prefill(batch, chunk).unwrap();
                for (row, next) in next.into_iter().enumerate() {
                    let what = format!("{what}, sequence {row}, chunks of {chunk}");
                    assert_eq!(bits(&last, row), bits(&prompts, row), "{what}");
                    let mut alone = model.session().unwrap();
                    let tokens = TokenBatch::left_padded(&[sequence(batch, row)], 0).unwrap();
                    assert_eq!(
                        bits(&alone.prefill(&tokens, chunk).unwrap(), 0),
                        bits(&prompts, row),
                        "{what}"
                    );
                    let step = alone.step(&TokenBatch::next_tokens(&[next])).unwrap();
                    assert_eq!(bits(&step, 0), bits(&nexts, row), "{what}, next token");
                }
            }
        }
    }
}

fn padding_gives_finite_numbers(subject: Subject) {
    for Loaded { what, model, batch } in &load_cases(subject) {
        let mut session = model.session().unwrap();
        let output = session.step(batch).unwrap();
        for (name, tensor) in everything(&session, &output) {
            assert!(tensor.iter().all(|value| value.is_finite()), "{name} {what}");
        }
    }
}

fn a_failed_step_leaves_the_session_as_it_was(subject: Subject) {
    for Loaded { what, model, batch } in &load_cases(subject) {
        let rows = batch.batch_size();
        let vocab_size = model.config().vocab_size as u32;
        let limit = model.config().max_position_embeddings;
        let ones = |tokens| {
            TokenBatch::masked(Array2::from_elem((rows, tokens), 5), Array2::from_elem((rows, tokens), true))
        };
        let (next, later) = (TokenBatch::next_tokens(&[3, 4, 5]), ones(2).unwrap());

        let mut clean = model.session().unwrap();
        let expected = [batch, &next, &later].map(|step| clean.step(step).unwrap());

        let mut session = model.session().unwrap();
        let fail = |session: &mut Session| {
            let past = session.past_length();
            let error = session.step(&TokenBatch::next_tokens(&[3, vocab_size, 5])).unwrap_err();
            assert!(matches!(error, Error::TokenOutOfRange { row: 1, column: 0, .. }), "{error} {what}");
            let error = session.step(&ones(limit + 1).unwrap()).unwrap_err();
            assert!(matches!(error, Error::TooLong { .. }), "{error} {what}");
            if past > 0 {
                let error = session.step(&TokenBatch::next_tokens(&[3, 4])).unwrap_err();
                assert!(matches!(error, Error::Shape { .. }), "{error} {what}");
            }
            assert_eq!(session.past_length(), past, "{what}");
        };
        for (step, expected) in [batch, &next, &later].into_iter().zip(&expected) {
            fail(&mut session);
            assert!(session.step(step).unwrap() == *expected, "{what}");
        }
        fail(&mut session);
        assert!(session.cache().unwrap() == clean.cache().unwrap(), "cache {what}");
    }
}

fn a_sequence_may_fill_all_positions_and_not_one_more(subject: Subject) {
    for Loaded { what, model, .. } in &load_cases(subject) {
        let limit = model.config().max_position_embeddings;
        let mut session = model.session().unwrap();
        session.step(&TokenBatch::left_padded(&[vec![5; limit - 1]], 0).unwrap()).unwrap();
        session.step(&TokenBatch::next_tokens(&[6])).unwrap();
        let error = session.step(&TokenBatch::next_tokens(&[7])).unwrap_err();
        let is_too_long = matches!(error, Error::TooLong { tokens, limit: found, .. } if (tokens, found) == (limit + 1, limit));
        assert!(is_too_long, "{error} {what}");
        assert_eq!(session.past_length(), limit, "{what}");
    }
}

fn sessions_of_one_model_do_not_disturb_each_other(subject: Subject) {
    for Loaded { what, model, batch } in &load_cases(subject) {
        let others = TokenBatch::left_padded(&[vec![9, 8, 7, 6]], 0).unwrap();
        let steps = |session: &mut Session, prompt: &TokenBatch| {
            let next = TokenBatch::next_tokens(&vec![11; prompt.batch_size()]);
            [session.step(prompt).unwrap(), session.step(&next).unwrap(), session.step(&next).unwrap()]
        };
        let expected = steps(&mut model.session().unwrap(), batch);
        let expected_of_others = steps(&mut model.session().unwrap(), &others);

        let (mut left, mut right) = (model.session().unwrap(), model.session().unwrap());
        for index in 0..3 {
            let (of_left, of_right) = match index {
                0 => (batch.clone(), others.clone()),
                _ => (TokenBatch::next_tokens(&vec![11; batch.batch_size()]), TokenBatch::next_tokens(&[11])),
            };
            assert!(left.step(&of_left).unwrap() == expected[index], "step {index} {what}");
            assert!(right.step(&of_right).unwrap() == expected_of_others[index], "step {index} {what}");
        }
    }
}

fn a_model_is_shared_by_threads(subject: Subject) {
    for Loaded { what, model, batch } in &load_cases(subject) {
        let prompts: Vec<Vec<u32>> = (0..batch.batch_size()).map(|row| sequence(batch, row)).collect();
        let options = GenerationOptions::default().with_max_new_tokens(6);
        let generate = |row: usize| {
            let generator = Generator::new(model).unwrap();
            let logits = model.session().unwrap().step(batch).unwrap();
            let request = Request::new(&prompts[row]).with_options(options.clone());
            (generator.run(request).unwrap().token_ids, logits)
        };
        let expected: Vec<_> = (0..prompts.len()).map(generate).collect();
        std::thread::scope(|scope| {
            for thread in 0..6 {
                let (generate, expected) = (&generate, &expected);
                scope.spawn(move || {
                    let row = thread % expected.len();
                    for _ in 0..3 {
                        assert!(generate(row) == expected[row], "thread {thread} {what}");
                    }
                });
            }
        });
    }
}

fn a_classifier_remembers_nothing(subject: Subject) {
    let case = Case::named("classifier");
    let (model, batch) = (case.export().load(subject), case.golden().batch);
    let expected = model.session().unwrap().step(&batch).unwrap();
    let mut session = model.session().unwrap();
    for other in [TokenBatch::left_padded(&[[5, 6, 7]], 0).unwrap(), batch.clone()] {
        session.step(&other).unwrap();
        assert_eq!(session.past_length(), 0);
        assert!(session.cache().unwrap().is_empty());
    }
    assert!(session.step(&batch).unwrap() == expected, "{subject}");
    let alone = model.session().unwrap().step(&piece_of_row(&batch, 1)).unwrap();
    let of_batch = sequence_of(expected.tensors(), &batch, 1);
    assert_all_close(&format!("on {subject}"), &of_batch, alone.tensors());
    assert!(alone.get(OutputName::Logits).is_some());
}

fn piece_of_row(batch: &TokenBatch, row: usize) -> TokenBatch {
    TokenBatch::left_padded(&[sequence(batch, row)], 0).unwrap()
}

/// What a service does when one of several conversations ends.
fn a_cleared_sequence_is_replaced_by_another_while_the_others_go_on(subject: Subject) {
    for Loaded { what, model, batch } in &load_cases(subject) {
        let mut session = model.session().unwrap();
        session.step(batch).unwrap();
        session.clear_sequence(1).unwrap();
        // the prompt of the newcomer; the others wait
        let newcomer = [7_u32, 3, 9, 4];
        let (rows, columns) = (batch.batch_size(), newcomer.len());
        let ids = Array2::from_shape_fn((rows, columns), |(_, column)| newcomer[column]);
        let mask = Array2::from_shape_fn((rows, columns), |(row, _)| row == 1);
        let read = session.step(&TokenBatch::masked(ids, mask).unwrap()).unwrap();
        let next = session.step(&TokenBatch::next_tokens(&vec![5; rows])).unwrap();

        let mut alone = model.session().unwrap();
        let expected = alone.step(&TokenBatch::left_padded(&[newcomer], 0).unwrap()).unwrap();
        let first = (read.last_logits(1).unwrap(), expected.last_logits(0).unwrap());
        assert_logits_close(&format!("{what}, the prompt"), first.0, first.1);
        for row in 0..rows {
            let mut alone = model.session().unwrap();
            let prompt = if row == 1 { newcomer.to_vec() } else { sequence(batch, row) };
            alone.step(&TokenBatch::left_padded(&[prompt], 0).unwrap()).unwrap();
            let expected = alone.step(&TokenBatch::next_tokens(&[5])).unwrap();
            let found = next.last_logits(row).unwrap();
            assert_logits_close(&format!("{what}, sequence {row}"), found, expected.last_logits(0).unwrap());
        }
    }
}

fn only_a_sequence_of_the_batch_can_be_cleared(subject: Subject) {
    for Loaded { what, model, batch } in &load_cases(subject) {
        let mut session = model.session().unwrap();
        assert!(matches!(session.clear_sequence(0), Err(Error::NoSequence { sequences: 0, .. })), "{what}");
        session.step(batch).unwrap();
        assert!(matches!(session.clear_sequence(9), Err(Error::NoSequence { sequence: 9, .. })), "{what}");
    }
}

/// What happens to a cache on a GPU: it stays where it is, also when sequences are dropped and others take their place.
fn a_cache_that_graphs_copy_gives_the_same_results_and_never_comes_to_the_host(subject: Subject) {
    for case in ["tiny", "odd"] {
        let export = Case::named(case).export();
        let batch = Case::named(case).golden().batch;
        let run = |options: &LoadOptions| {
            let model = export.load_with(subject, options);
            let mut session = model.session().unwrap();
            let next = TokenBatch::next_tokens(&vec![5; batch.batch_size()]);
            let mut outputs = vec![session.step(&batch).unwrap(), session.step(&next).unwrap()];
            session.clear_sequence(0).unwrap();
            outputs.push(session.step(&next).unwrap());
            session.truncate(session.past_length() - 2).unwrap();
            outputs.push(session.step(&batch).unwrap());
            let on_host = model.graph().cache_bytes_on_host();
            let cache = session.cache().unwrap();
            assert_ne!(model.graph().cache_bytes_on_host(), Some(0), "the copy of the cache is for the host");
            (outputs, cache, on_host)
        };
        let (expected, expected_cache, _) = run(&subject.load_options().with_cache_by_graphs(false));
        let (found, found_cache, on_host) = run(&subject.load_options().with_cache_by_graphs(true));
        assert!(found == expected && found_cache == expected_cache, "{case}");
        assert_eq!(on_host, Some(0), "{case}");
    }
}
