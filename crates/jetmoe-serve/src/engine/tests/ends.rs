//! How jobs and engines end: deadlines, clients that leave, limits, shutdown.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use super::*;

/// Runs a future without a runtime.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    for _ in 0..4000 {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return value;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("it never came to an end");
}

#[test]
fn a_deadline_ends_a_job_in_the_queue_and_one_that_runs() {
    let model = FakeModel::hashed();
    let engine = start(&model, options().with_slots(1));
    let soon = Instant::now() + Duration::from_millis(50);
    model.gate.close();
    let runs = engine.submit(Job::new([50], endless(9)).with_deadline(soon)).unwrap();
    let waits = engine.submit(Job::new([51], endless(9)).with_deadline(soon)).unwrap();
    let [runs, waits] = [runs, waits].map(outcome);
    assert_eq!(runs.finish_reason(), Some(FinishReason::Deadline));
    assert_eq!(waits.finish_reason(), Some(FinishReason::Deadline));
    assert_eq!((runs.cached_tokens, waits.cached_tokens), (Some(0), None));
    assert!(model.take_log().is_empty(), "the step that ran was cancelled");
    model.gate.open();
    assert_eq!(run(&engine, Job::new([52], endless(3))).token_ids().len(), 3);
}

#[test]
fn a_deadline_keeps_what_was_generated() {
    let model = FakeModel::hashed();
    let engine = start(&model, options().with_slots(1));
    let all = alone(&engine, &[50, 51], &endless(40));
    model.gate.allow(5);
    let deadline = Instant::now() + Duration::from_millis(200);
    let cut = run(&engine, Job::new([50, 51], endless(40)).with_deadline(deadline));
    assert_eq!(cut.finish_reason(), Some(FinishReason::Deadline));
    assert!(cut.token_ids().len() <= 5);
    assert_eq!(cut.token_ids(), all.token_ids[..cut.token_ids().len()]);
}

#[test]
fn a_client_that_leaves_ends_its_job_within_the_step() {
    let model = FakeModel::hashed();
    let engine = start(&model, options().with_slots(1));
    model.gate.close();
    let stream = engine.submit(Job::new([50; 30], at_most(9))).unwrap();
    wait_until("a step", || model.gate.holds());
    drop(stream);
    // the gate stays closed: the step itself was cancelled
    wait_until("rest", || engine.load() == EngineLoad::default());
    assert!(model.take_log().is_empty());
    model.gate.open();
    let expected = alone(&engine, &[50; 30], &at_most(9));
    run(&engine, Job::new([50; 30], at_most(9))).assert_is(&expected);
}

#[test]
fn a_step_goes_on_while_one_of_its_jobs_is_wanted() {
    let model = FakeModel::hashed();
    let engine = start(&model, options());
    model.gate.close();
    let first = engine.submit(Job::new([40], at_most(1))).unwrap();
    wait_until("a step", || model.gate.holds());
    let leaves = engine.submit(Job::new([50, 51], at_most(9))).unwrap();
    let stays = engine.submit(Job::new([60, 61], at_most(9))).unwrap();
    model.gate.allow(1);
    outcome(first);
    // a step of both
    wait_until("a step", || model.gate.holds());
    drop(leaves);
    std::thread::sleep(Duration::from_millis(20));
    assert!(model.gate.holds());
    model.gate.open();
    outcome(stays).assert_is(&alone(&engine, &[60, 61], &at_most(9)));
}

#[test]
fn the_capacity_ends_a_continuation_and_refuses_a_longer_prompt() {
    let engine = start(&FakeModel::hashed(), options().with_capacity(8));
    assert_eq!(engine.capacity(), 8);
    let full = run(&engine, Job::new([50; 5], endless(100)));
    assert_eq!((full.token_ids().len(), full.finish_reason()), (3, Some(FinishReason::ContextFull)));
    let exact = run(&engine, Job::new([50; 8], endless(100)));
    assert_eq!((exact.token_ids().len(), exact.finish_reason()), (0, Some(FinishReason::ContextFull)));
    let refusal = engine.submit(Job::new([50; 9], endless(1))).unwrap_err();
    assert!(matches!(refusal, Refusal::Invalid(Error::TooLong { tokens: 9, limit: 8, .. })), "{refusal}");
    assert_eq!(refusal.kind(), jetmoe_rt::ErrorKind::TooLong);
}

#[test]
fn what_cannot_run_is_refused_by_name() {
    let engine = start(&FakeModel::hashed(), options());
    let refused = |job: Job| engine.submit(job).unwrap_err();
    let refusal = refused(Job::new([2048], at_most(1)));
    assert!(matches!(refusal, Refusal::Invalid(Error::TokenOutOfRange { .. })), "{refusal}");
    let refusal = refused(Job::new(Vec::new(), at_most(1)));
    assert!(matches!(refusal, Refusal::Invalid(Error::EmptyPrompt { .. })), "{refusal}");
    let refusal = refused(Job::new([5], at_most(0)));
    assert!(matches!(refusal, Refusal::Invalid(Error::Option { option: "max_new_tokens", .. })), "{refusal}");
    let refusal = refused(Job::new([5], at_most(1).with_prompt_lookup(jetmoe_rt::PromptLookup::default())));
    assert!(matches!(refusal, Refusal::Invalid(Error::Option { option: "prompt_lookup", .. })), "{refusal}");
    let refusal = refused(Job::new([5], at_most(1)).with_experts(true));
    assert!(matches!(refusal, Refusal::ExpertsNotObserved), "{refusal}");
}

#[test]
fn a_shutdown_completes_what_was_taken_and_takes_no_more() {
    let model = FakeModel::hashed();
    let engine = start(&model, options().with_slots(1));
    model.gate.close();
    let jobs = [50, 51, 52].map(|token| engine.submit(Job::new([token], endless(4))).unwrap());
    std::thread::scope(|scope| {
        let shutdown = scope.spawn(|| block_on(engine.shutdown(None::<Instant>)));
        wait_until("a closed engine", || !engine.is_open());
        let refusal = engine.submit(Job::new([53], endless(1))).unwrap_err();
        assert!(matches!(refusal, Refusal::ShuttingDown), "{refusal}");
        model.gate.open();
        for (job, token) in jobs.into_iter().zip([50, 51, 52]) {
            outcome(job).assert_is(&alone(&engine, &[token], &endless(4)));
        }
        shutdown.join().unwrap();
    });
    assert_eq!(engine.load(), EngineLoad::default());
}

#[test]
fn at_its_deadline_a_shutdown_fails_what_is_left() {
    let model = FakeModel::hashed();
    let engine = start(&model, options().with_slots(1));
    model.gate.close();
    let jobs = [50, 51].map(|token| engine.submit(Job::new([token], endless(4))).unwrap());
    wait_until("a step", || model.gate.holds());
    block_on(engine.shutdown(Instant::now() + Duration::from_millis(30)));
    for job in jobs {
        let error = outcome(job).error.unwrap();
        assert!(matches!(*error, JobError::ShuttingDown), "{error}");
        assert_eq!(error.kind(), jetmoe_rt::ErrorKind::Busy);
    }
}

#[test]
fn jobs_outlive_their_engine() {
    let model = FakeModel::hashed();
    let engine = start(&model, options().with_slots(1));
    let expected = alone(&engine, &[50], &endless(4));
    model.take_log();
    model.gate.close();
    let jobs = [(); 2].map(|()| engine.submit(Job::new([50], endless(4))).unwrap());
    drop(engine);
    model.gate.open();
    for job in jobs {
        outcome(job).assert_is(&expected);
    }
}

#[test]
fn a_client_without_a_runtime_and_one_with_read_the_same() {
    let engine = start(&FakeModel::hashed(), options());
    let mut stream = engine.submit(Job::new([50], endless(4))).unwrap();
    let mut tokens = Vec::new();
    block_on(async {
        while let Some(event) = stream.next().await {
            if let JobEvent::Token { event, .. } = event {
                tokens.extend(event.token.map(|token| token.token_id));
            }
        }
    });
    assert_eq!(tokens, alone(&engine, &[50], &endless(4)).token_ids);
    assert!(stream.blocking_next().is_none());
}

#[test]
fn slots_that_will_not_fit_are_refused_with_numbers_and_advice() {
    let model = FakeModel::hashed().load();
    // 4 layers, keys and values, 2 heads of 64 float32
    let one = 4 * 2 * 2 * 64 * 4 * 512;
    assert_eq!(model.slot_bytes(512), one);
    let options = EngineOptions::default().with_slots(10).with_prefix_memory(one);
    options.check_memory(&model, 512, Some(11 * one)).unwrap();
    options.check_memory(&model, 512, None).unwrap();
    let error = options.check_memory(&model, 512, Some(11 * one - 1)).unwrap_err().to_string();
    assert!(error.starts_with("10 slots of 512 tokens take 21 MB"), "{error}");
    assert!(error.contains("9 slots of this capacity fit, or as many slots of 511 tokens"), "{error}");
    let error = options.check_memory(&model, 512, Some(one)).unwrap_err().to_string();
    assert!(error.contains("keep less for prefixes"), "{error}");
}

#[test]
fn sizes_of_zero_are_refused() {
    let model = FakeModel::hashed();
    for options in [
        options().with_slots(0),
        options().with_capacity(0),
        options().with_prefill_chunk(0),
        options().with_queue(0),
    ] {
        let error = Engine::start(Generator::new(&model.load()).unwrap(), options).unwrap_err();
        assert!(matches!(error, StartError::Model(Error::Option { .. })), "{error}");
    }
}
