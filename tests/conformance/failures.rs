//! A step that fails or is cancelled, at any moment, leaves a session as it was: the next steps compute exactly what they
//! compute in a session without the failure.

use std::path::Path;
use std::time::Instant;

use jetmoe::onnx;
use jetmoe::rt::{
    BackendError, CancellationToken, Error, GraphSession, LogitsToKeep, Model, Session, StepInputs,
    StepOutput, TokenBatch,
};
use ndarray::Array2;

use crate::fixtures::Case;
use crate::subject::{Subject, has_device};
use crate::suite::{Suite, measured, named};

pub(crate) fn add_tests(suite: &mut Suite, subject: Subject) {
    suite.add_group(subject, "failures", named![a_cancelled_step_leaves_the_session_as_it_was]);
    // An execution provider may not recover from a failed run: after one with wrong shapes, subgraphs of OpenVINO 2025.4 fail
    // with right ones too.
    if !has_device() {
        suite.add_group(subject, "failures", named![inputs_that_do_not_fit_leave_the_session_as_it_was]);
    }
    // the reference runs no graph
    if !subject.is_reference() && !has_device() {
        suite.add_group(
            subject,
            "failures",
            named![a_node_that_fails_after_some_layers_leaves_the_session_as_it_was],
        );
    }
}

/// Two and three layers.
const CASES: [&str; 2] = ["tiny", "odd"];

/// The steps of a session without failures: a prompt of three sequences, one token of each, and two tokens of each.
struct Steps {
    batches: [TokenBatch; 3],
    outputs: Vec<StepOutput>,
}

impl Steps {
    fn of(model: &Model, prompt: TokenBatch) -> Self {
        let later = TokenBatch::left_padded(&[[5, 6], [7, 8], [9, 10]], 0).unwrap();
        let batches = [prompt, TokenBatch::next_tokens(&[3, 4, 5]), later];
        let mut session = model.session().unwrap();
        let outputs = batches.iter().map(|batch| session.step(batch).unwrap()).collect();
        Steps { batches, outputs }
    }

    /// Runs the steps, each after some failures.
    fn check(&self, what: &str, model: &Model, mut fail: impl FnMut(&mut Session, &TokenBatch)) {
        let mut session = model.session().unwrap();
        for (index, (batch, expected)) in self.batches.iter().zip(&self.outputs).enumerate() {
            let (past, cache) = (session.past_length(), session.cache().unwrap());
            fail(&mut session, batch);
            assert_eq!(session.past_length(), past, "{what}");
            assert!(session.cache().unwrap() == cache, "the cache before step {index} {what}");
            assert!(session.step(batch).unwrap() == *expected, "step {index} {what}");
        }
    }
}

/// Cancels before a step, and from another thread while it computes: the moments cover the time that a step takes.
fn a_cancelled_step_leaves_the_session_as_it_was(subject: Subject) {
    const MOMENTS: u32 = 16;
    for case in CASES.map(Case::named) {
        let what = format!("of {} on {subject}", case.name);
        let model = case.export().model(subject);
        let steps = Steps::of(&model, case.golden().batch);
        let inputs = step_inputs(3, 2, 0);
        inputs.cancellation.cancel();
        let error = model.graph().start().unwrap().run(&inputs).unwrap_err();
        assert!(matches!(error, BackendError::Cancelled { .. }), "{error} {what}");
        let mut cancelled_inside = 0;
        steps.check(&what, &model, |session, batch| {
            let token = CancellationToken::new();
            token.cancel();
            session.set_cancellation(token);
            assert!(matches!(session.step(batch), Err(Error::Cancelled)), "{what}");

            let past = session.past_length();
            session.set_cancellation(CancellationToken::new());
            let start = Instant::now();
            session.step(batch).unwrap();
            let whole = start.elapsed();
            session.truncate(past).unwrap();
            for moment in 0..MOMENTS {
                let token = CancellationToken::new();
                session.set_cancellation(token.clone());
                let result = std::thread::scope(|scope| {
                    let start = Instant::now();
                    scope.spawn(move || {
                        wait_until(start + whole * moment / MOMENTS);
                        token.cancel();
                    });
                    session.step(batch)
                });
                match result {
                    // complete before the token was cancelled
                    Ok(_) => session.truncate(past).unwrap(),
                    Err(Error::Cancelled) => cancelled_inside += 1,
                    Err(error) => panic!("{error} {what}"),
                }
                assert_eq!(session.past_length(), past, "{what}");
            }
            session.set_cancellation(CancellationToken::new());
        });
        measured(&format!("{cancelled_inside} of {} steps were cancelled {what}", 3 * MOMENTS));
    }
}

/// Spins, as a thread that sleeps may wake up after the step.
fn wait_until(moment: Instant) {
    while Instant::now() < moment {
        std::hint::spin_loop();
    }
}

/// A session checks the inputs of a step; here a backend is given some that no session would.
fn inputs_that_do_not_fit_leave_the_session_as_it_was(subject: Subject) {
    for case in CASES.map(Case::named) {
        let what = format!("of {} on {subject}", case.name);
        let model = case.export().model(subject);
        let vocab_size = model.config().vocab_size as i64;
        let run = |session: &mut Box<dyn GraphSession>, new: usize, past: usize| {
            session.run(&step_inputs(3, new, past)).unwrap()
        };
        let mut clean = model.graph().start().unwrap();
        let steps = [(4, 0), (1, 4), (2, 5)];
        let expected = steps.map(|(new, past)| run(&mut clean, new, past));

        let mut session = model.graph().start().unwrap();
        for ((new, past), expected) in steps.into_iter().zip(&expected) {
            let cache = session.cache().unwrap();
            let right = step_inputs(3, new, past);
            let mut wrong = vec![
                StepInputs { attention_mask: Array2::ones((3, past + new + 3)), ..right.clone() },
                StepInputs { position_ids: Array2::zeros((2, new)), ..right.clone() },
                StepInputs { input_ids: Array2::from_elem((3, new), vocab_size), ..right },
            ];
            if past > 0 {
                wrong.push(step_inputs(2, new, past));
                wrong.push(step_inputs(3, new, past - 1));
            }
            for (index, wrong) in wrong.iter().enumerate() {
                assert!(session.run(wrong).is_err(), "inputs {index} after {past} tokens {what}");
                assert!(session.cache().unwrap() == cache, "inputs {index} after {past} tokens {what}");
            }
            assert!(run(&mut session, new, past) == *expected, "after {past} tokens {what}");
        }
        assert!(session.cache().unwrap() == clean.cache().unwrap(), "{what}");
    }
}

/// A step of sequences without padding.
fn step_inputs(rows: usize, new: usize, past: usize) -> StepInputs {
    let position = |token: usize| (past + token) as i64;
    StepInputs {
        input_ids: Array2::from_shape_fn((rows, new), |(row, token)| 3 + row as i64 + position(token)),
        attention_mask: Array2::ones((rows, past + new)),
        position_ids: Array2::from_shape_fn((rows, new), |(_, token)| position(token)),
        logits: LogitsToKeep::All,
        cancellation: CancellationToken::new(),
    }
}

/// A step that reads this token fails before the last layer; one that reads the other, after all layers.
const FAULTS: [i64; 2] = [42, 43];

fn a_node_that_fails_after_some_layers_leaves_the_session_as_it_was(subject: Subject) {
    for case in CASES.map(Case::named) {
        let what = format!("of {} on {subject}", case.name);
        let model = case.export_with_changed_graphs("faults", inject_faults).model(subject);
        let steps = Steps::of(&model, case.golden().batch);
        steps.check(&what, &model, |session, batch| {
            for fault in FAULTS {
                assert!(!batch.ids().iter().any(|id| i64::from(*id) == fault), "{what}");
                let mut ids = batch.ids().clone();
                // in the last sequence: those before it are complete if the sequences are computed one after the other
                *ids.last_mut().unwrap() = fault as u32;
                let batch = TokenBatch::masked(ids, batch.mask().clone()).unwrap();
                let error = session.step(&batch).unwrap_err();
                assert!(matches!(error, Error::Backend(_)), "{error} {what}");
            }
        });
    }
}

/// Adds nodes that fail for the tokens [`FAULTS`], and change nothing for the others.
fn inject_faults(content: &mut Vec<u8>) {
    let mut model = onnx::decode(Path::new("model.onnx"), content).unwrap();
    let graph = model.graph.as_mut().unwrap();
    let layers = graph.output.iter().filter(|output| is_cache(output.name())).count() / 2;
    inject_fault(graph, &format!("layers.{}/input_layernorm/", layers - 1), FAULTS[0]);
    inject_fault(graph, "norm/", FAULTS[1]);
    *content = model.to_bytes();
}

fn is_cache(output: &str) -> bool {
    output.starts_with("present.")
}

/// Puts a node between the residual stream and the norm that reads it: adds 0 to each row, by an index that is out of range
/// for one token. The index depends on the residual stream, so that it is not computed before.
fn inject_fault(graph: &mut onnx::Graph, norm: &str, fault: i64) {
    let is_norm = |node: &onnx::Node| node.output.iter().any(|output| output.starts_with(norm));
    let first = graph.node.iter().position(is_norm).unwrap();
    let stream = graph.node[first].input[0].clone(); // [rows, hidden]
    let value = |name: &str| format!("fault.{fault}/{name}");
    for node in graph.node.iter_mut().filter(|node| is_norm(node)) {
        node.input.iter_mut().filter(|input| **input == stream).for_each(|input| *input = value("sum"));
    }
    graph.initializer.extend([
        int64_tensor(value("all"), &[-1], &[1]),
        int64_tensor(value("axis"), &[1], &[1]),
        int64_tensor(value("token"), &[fault], &[]),
        float_tensor(value("infinite"), f32::INFINITY, &[]),
        float_tensor(value("table"), 0.0, &[1]),
    ]);
    let node = |op: &str, inputs: &[&str], output: &str, attribute: Option<(&str, i64)>| onnx::Node {
        input: inputs.iter().map(|input| (*input).to_owned()).collect(),
        output: vec![value(output)],
        name: Some(value(output)),
        op_type: Some(op.to_owned()),
        attribute: attribute
            .map(|(name, i)| onnx::Attribute {
                name: Some(name.to_owned()),
                i: Some(i),
                r#type: Some(onnx::AttributeType::Int as i32),
                ..onnx::Attribute::default()
            })
            .into_iter()
            .collect(),
        ..onnx::Node::default()
    };
    let (int64, v) = (Some(("to", onnx::DataType::Int64 as i64)), |name: &str| value(name));
    let nodes = [
        node("Reshape", &["input_ids", &v("all")], "ids", None), // [rows]
        node("Equal", &[&v("ids"), &v("token")], "is_fault", None), // [rows]
        node("Cast", &[&v("is_fault")], "fault_index", int64),   // [rows]
        node("ReduceMean", &[&stream, &v("axis")], "mean", Some(("keepdims", 0))), // [rows]
        node("Equal", &[&v("mean"), &v("infinite")], "is_infinite", None), // [rows]
        node("Cast", &[&v("is_infinite")], "stream_index", int64), // [rows]
        node("Add", &[&v("fault_index"), &v("stream_index")], "index", None), // [rows]
        node("Gather", &[&v("table"), &v("index")], "zeros", Some(("axis", 0))), // [rows]
        node("Unsqueeze", &[&v("zeros"), &v("axis")], "column", None), // [rows, 1]
        node("Add", &[&stream, &v("column")], "sum", None),      // [rows, hidden]
    ];
    graph.node.splice(first..first, nodes);
}

fn int64_tensor(name: String, values: &[i64], dims: &[i64]) -> onnx::Tensor {
    let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    tensor(name, onnx::DataType::Int64, bytes, dims)
}

fn float_tensor(name: String, value: f32, dims: &[i64]) -> onnx::Tensor {
    tensor(name, onnx::DataType::Float, value.to_le_bytes().to_vec(), dims)
}

fn tensor(name: String, data_type: onnx::DataType, bytes: Vec<u8>, dims: &[i64]) -> onnx::Tensor {
    onnx::Tensor {
        dims: dims.to_vec(),
        data_type: Some(data_type as i32),
        name: Some(name),
        raw_data: Some(bytes),
        ..onnx::Tensor::default()
    }
}
