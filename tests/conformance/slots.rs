//! What slots promise, on every backend.

use std::ops::Range;

use jetmoe::artifact::{OutputName, Profile};
use jetmoe::rt::{CancellationToken, Error, Model, SlotTokens, Slots, SlotsOutput, TokenBatch};
use ndarray::{Array2, ArrayView1, Axis, s};

use crate::closeness::assert_logits_close;
use crate::fixtures::Case;
use crate::subject::{Subject, has_device};
use crate::suite::{Suite, named};

pub(crate) fn add_tests(suite: &mut Suite, subject: Subject) {
    suite.add_group(
        subject,
        "slots",
        named![
            a_sequence_in_a_slot_gets_what_it_gets_alone,
            a_slot_is_emptied_and_truncated_while_the_others_go_on,
            saved_tokens_continue_another_slot,
            a_refused_step_changes_no_slot,
        ],
    );
}

/// Two experts per token, and three with another width of keys.
const CASES: [&str; 2] = ["tiny", "odd"];

/// Sequences of different lengths.
const SEQUENCES: [&[u32]; 3] = [&[3, 9, 27, 4, 12, 36, 11, 33], &[5, 6], &[40, 2, 40, 7, 1]];

/// Whether one call of the graph computes all sequences of a step.
fn is_joint(subject: Subject) -> bool {
    subject.profile == Profile::Native
}

/// Calls a test with the models of a subject: of a native graph in every precision.
fn for_each_model(subject: Subject, test: impl Fn(&str, &Model, bool)) {
    let subjects = match is_joint(subject) {
        true => subject.precisions().into_iter().map(|precision| subject.with_precision(precision)).collect(),
        false => vec![subject],
    };
    for subject in subjects {
        for case in CASES.map(Case::named) {
            let model = case.export().model(subject);
            test(&format!("of {} on {subject}", case.name), &model, is_joint(subject));
        }
    }
}

/// Next-token logits of every token of a sequence by itself, `[tokens, vocab_size]`.
fn alone(model: &Model, sequence: &[u32]) -> Array2<f32> {
    let batch = TokenBatch::left_padded(&[sequence], 0).unwrap();
    let output = model.session().unwrap().step(&batch).unwrap();
    output.logits().unwrap().index_axis(Axis(0), 0).to_owned()
}

/// What is compared, and whether one call computes all sequences of a step, so that the bits are those of a sequence alone.
#[derive(Clone, Copy)]
struct Compared<'a> {
    what: &'a str,
    is_joint: bool,
}

impl Compared<'_> {
    /// Compares the logits of a part with the last ones of `tokens` tokens of a sequence alone.
    #[track_caller]
    fn check(self, output: &SlotsOutput, part: usize, alone: &Array2<f32>, tokens: Range<usize>) {
        let Compared { what, is_joint } = self;
        let found = output.logits(part).unwrap();
        let expected = alone.slice(s![tokens, ..]);
        assert_eq!(found.dim(), expected.dim(), "{what}");
        for (found, expected) in found.rows().into_iter().zip(expected.rows()) {
            // a device has kernels of its own
            if is_joint && !has_device() {
                let bits = |logits: ArrayView1<'_, f32>| logits.map(|logit| logit.to_bits());
                assert_eq!(bits(found), bits(expected), "{what}");
            } else {
                assert_logits_close(what, found, expected);
            }
        }
    }
}

fn a_sequence_in_a_slot_gets_what_it_gets_alone(subject: Subject) {
    for_each_model(subject, |what, model, is_joint| {
        let [long, short, middle] = SEQUENCES;
        let [of_long, of_short, of_middle] = SEQUENCES.map(|sequence| alone(model, sequence));
        let mut slots = model.slots(4, 16).unwrap();
        assert_eq!(slots.is_joint(), is_joint, "{what}");
        let compared = Compared { what, is_joint };

        let step = [SlotTokens::silent(2, &long[..3]), SlotTokens::last(0, &short[..1])];
        let output = slots.step(&step).unwrap();
        assert_eq!(output.logits(0).unwrap().nrows(), 0, "{what}");
        compared.check(&output, 1, &of_short, 0..1);

        // a next token, the rest of a prompt, and a prompt all of whose logits are read
        let step = [
            SlotTokens::last(0, &short[1..]),
            SlotTokens::last(2, &long[3..]),
            SlotTokens { slot: 3, token_ids: middle, logits: middle.len() },
        ];
        let output = slots.step(&step).unwrap();
        compared.check(&output, 0, &of_short, 1..2);
        compared.check(&output, 1, &of_long, 7..8);
        compared.check(&output, 2, &of_middle, 0..5);
        // outputs that have a row for each token
        let hidden = output.get(OutputName::HiddenState(0), 1).unwrap().map(|rows| rows.nrows());
        assert!([None, Some(5)].contains(&hidden), "{what}: {hidden:?}");

        assert_eq!(slots.token_ids(0), short);
        assert_eq!(slots.token_ids(1), [0; 0]);
        assert_eq!(slots.token_ids(2), long);
        assert_eq!(slots.step(&[]).unwrap().logits(0).unwrap_err().to_string(), no_part(0));
    });
}

fn no_part(sequence: usize) -> String {
    Error::NoSequence { sequence, sequences: 0 }.to_string()
}

fn a_slot_is_emptied_and_truncated_while_the_others_go_on(subject: Subject) {
    for_each_model(subject, |what, model, is_joint| {
        let compared = Compared { what, is_joint };
        let [long, short, middle] = SEQUENCES;
        let [of_long, of_short, of_middle] = SEQUENCES.map(|sequence| alone(model, sequence));
        let mut slots = model.slots(2, 16).unwrap();
        slots.step(&[SlotTokens::silent(0, &long[..4]), SlotTokens::silent(1, middle)]).unwrap();
        slots.truncate(1, 0).unwrap();
        let step = [SlotTokens::last(1, short), SlotTokens::last(0, &long[4..7])];
        let output = slots.step(&step).unwrap();
        compared.check(&output, 0, &of_short, 1..2);
        compared.check(&output, 1, &of_long, 6..7);
        // another end of the sequence, then the same one again
        slots.step(&[SlotTokens::silent(0, &[1])]).unwrap();
        slots.truncate(0, 5).unwrap();
        let output = slots.step(&[SlotTokens::last(0, &long[5..])]).unwrap();
        compared.check(&output, 0, &of_long, 7..8);
        slots.truncate(0, 0).unwrap();
        let output = slots.step(&[SlotTokens::last(0, middle)]).unwrap();
        compared.check(&output, 0, &of_middle, 4..5);
    });
}

fn saved_tokens_continue_another_slot(subject: Subject) {
    for_each_model(subject, |what, model, is_joint| {
        let [long, short, _] = SEQUENCES;
        let of_long = alone(model, long);
        let mut slots = model.slots(3, 12).unwrap();
        slots.step(&[SlotTokens::silent(2, long), SlotTokens::silent(0, short)]).unwrap();
        let saved = (slots.save(2, 0..3).unwrap(), slots.save(2, 3..8).unwrap());
        let (Some(first), Some(second)) = saved else {
            assert!(!is_joint, "{what}");
            return;
        };
        let compared = Compared { what, is_joint: true };
        assert_eq!((second.first(), second.token_ids()), (3, &long[3..]), "{what}");
        assert_eq!(5 * first.bytes(), 3 * second.bytes(), "{what}");
        assert_eq!(first.bytes(), model.slot_bytes(3), "{what}");
        slots.truncate(2, 0).unwrap();
        slots.step(&[SlotTokens::silent(2, short)]).unwrap();
        slots.restore(1, &first, 3).unwrap();
        slots.restore(1, &second, 4).unwrap();
        assert_eq!(slots.token_ids(1), &long[..7], "{what}");
        let output = slots.step(&[SlotTokens::last(1, &long[7..]), SlotTokens::last(0, short)]).unwrap();
        compared.check(&output, 0, &of_long, 7..8);

        let refused = |result: Result<(), Error>| result.unwrap_err().to_string();
        assert!(
            refused(slots.restore(1, &second, 1)).starts_with("saved is tokens from 3 on, for a slot with 8")
        );
        assert!(matches!(slots.restore(0, &first, 4), Err(Error::Truncation { tokens: 4, cached: 3 })));
        assert!(matches!(slots.restore(3, &first, 1), Err(Error::NoSequence { sequence: 3, sequences: 3 })));
        let mut small = model.slots(1, 2).unwrap();
        assert!(matches!(small.restore(0, &first, 3), Err(Error::TooLong { tokens: 3, limit: 2, .. })));
        assert_eq!(small.token_ids(0), [0; 0]);
    });
}

fn a_refused_step_changes_no_slot(subject: Subject) {
    for_each_model(subject, |what, model, is_joint| {
        let compared = Compared { what, is_joint };
        let [long, short, _] = SEQUENCES;
        let of_long = alone(model, long);
        let vocab_size = model.config().vocab_size as u32;
        let mut slots = model.slots(2, 8).unwrap();
        slots.step(&[SlotTokens::silent(0, &long[..6]), SlotTokens::silent(1, short)]).unwrap();
        let mut refused = |parts: &[SlotTokens<'_>]| -> Error {
            let error = slots.step(parts).unwrap_err();
            assert_eq!(slots.token_ids(0), &long[..6], "{what}");
            assert_eq!(slots.token_ids(1), short, "{what}");
            error
        };
        let good = SlotTokens::last(0, &long[6..]);
        let error = refused(&[good, SlotTokens::last(1, &[1, vocab_size])]);
        assert!(matches!(error, Error::TokenOutOfRange { row: 1, column: 1, .. }), "{error}");
        let error = refused(&[good, SlotTokens::last(2, &[1])]);
        assert!(matches!(error, Error::NoSequence { sequence: 2, sequences: 2 }), "{error}");
        let error = refused(&[good, SlotTokens::last(1, &[])]);
        assert!(matches!(error, Error::EmptyPrompt { index: 1 }), "{error}");
        let error = refused(&[SlotTokens::last(1, &[1]), SlotTokens::last(0, &[1; 3])]);
        assert!(matches!(error, Error::TooLong { index: 1, tokens: 9, limit: 8 }), "{error}");
        let error = refused(&[good, good]);
        assert!(error.to_string().starts_with("parts is slot 0 twice"), "{error}");
        let cancelled = CancellationToken::new();
        cancelled.cancel();
        slots.set_cancellation(&cancelled);
        assert!(matches!(slots.step(&[good]), Err(Error::Cancelled)), "{what}");
        slots.set_cancellation(&CancellationToken::new());
        let output = slots.step(&[good]).unwrap();
        compared.check(&output, 0, &of_long, 7..8);
        let full = |slots: &mut Slots| slots.step(&[SlotTokens::last(0, &[1])]).unwrap_err();
        assert!(matches!(full(&mut slots), Error::TooLong { tokens: 9, limit: 8, .. }), "{what}");
        assert!(matches!(slots.truncate(0, 9), Err(Error::Truncation { tokens: 9, cached: 8 })), "{what}");
    });
}
