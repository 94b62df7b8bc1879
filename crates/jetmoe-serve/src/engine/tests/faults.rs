//! Steps that fail and code that panics: who is affected, and who is not.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::fake::Fault;
use super::*;

/// Tokens whose steps fail and panic.
const ERROR: u32 = 700;
const PANIC: u32 = 701;

fn faulty() -> FakeModel {
    FakeModel::hashed().with_faults(|_, new| match new {
        new if new.contains(&ERROR) => Some(Fault::Error),
        new if new.contains(&PANIC) => Some(Fault::Panic),
        _ => None,
    })
}

/// Runs two sound jobs beside one whose prompt has a token, all of them in common steps.
fn run_beside(token: u32) -> (FakeModel, Engine, Arc<JobError>) {
    let model = faulty();
    let engine = start(&model, options());
    let sound = [[50_u32, 51, 52, 53, 54, 55], [60; 6]];
    let expected = sound.map(|prompt| alone(&engine, &prompt, &multinomial(3)));
    model.gate.close();
    let mut jobs: Vec<JobStream> =
        sound.iter().map(|prompt| engine.submit(Job::new(*prompt, multinomial(3))).unwrap()).collect();
    let prompt = [70, 71, 72, 73, 74, token, 75];
    jobs.push(engine.submit(Job::new(prompt, multinomial(3))).unwrap());
    model.gate.open();
    let mut outcomes: Vec<Outcome> = jobs.into_iter().map(outcome).collect();
    let failed = outcomes.pop().unwrap();
    outcomes.iter().zip(&expected).for_each(|(found, expected)| found.assert_is(expected));
    assert!(failed.events.is_empty());
    (model, engine, failed.error.unwrap())
}

#[test]
fn a_sequence_whose_step_fails_fails_its_job_alone() {
    let (_, engine, error) = run_beside(ERROR);
    assert!(matches!(*error, JobError::Model(Error::Backend(_))), "{error}");
    assert_eq!(error.kind(), jetmoe_rt::ErrorKind::Backend);
    // its slot is usable again
    for prompt in [[70, 71], [80, 81], [90, 91]] {
        run(&engine, Job::new(prompt, at_most(5))).assert_is(&alone(&engine, &prompt, &at_most(5)));
    }
}

#[test]
fn a_step_that_panics_takes_one_job_with_it() {
    let (_, engine, error) = run_beside(PANIC);
    assert!(matches!(&*error, JobError::Panic { message } if message == "told to panic"), "{error:?}");
    assert!(!error.to_string().contains("told"), "the message is for the log: {error}");
    run(&engine, Job::new([70, 71], at_most(5))).assert_is(&alone(&engine, &[70, 71], &at_most(5)));
}

#[test]
fn a_step_that_fails_once_fails_no_job() {
    for fault in [Fault::Error, Fault::Panic] {
        let failures = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&failures);
        let model = FakeModel::hashed().with_faults(move |before, _| {
            (before.len() == 9 && counter.fetch_add(1, Ordering::Relaxed) == 0).then_some(fault)
        });
        let sound = FakeModel::hashed();
        let generator = Generator::new(&sound.load()).unwrap();
        let engine = start(&model, options());
        let prompts = [[50_u32; 6], [60; 6], [70; 6]];
        let jobs = prompts.map(|prompt| engine.submit(Job::new(prompt, endless(12))).unwrap());
        for (job, prompt) in jobs.into_iter().zip(prompts) {
            let request = Request::new(prompt).with_options(endless(12));
            outcome(job).assert_is(&generator.run(request).unwrap());
        }
        assert!(failures.load(Ordering::Relaxed) > 1);
    }
}

#[test]
fn scores_are_complete_if_a_prompt_is_read_again() {
    let failed = Arc::new(AtomicUsize::new(0));
    let model = FakeModel::hashed().with_faults(move |before, _| {
        (before.len() == 8 && failed.fetch_add(1, Ordering::Relaxed) == 0).then_some(Fault::Panic)
    });
    let engine = start(&model, options());
    let prompt: Vec<u32> = (50..63).collect();
    let found = run(&engine, Job::new(prompt.clone(), at_most(3)).with_prompt_log_probabilities(1));
    assert!(found.error.is_none(), "{found:?}");
    assert_eq!(found.prompt.unwrap().tokens.len(), 12);
}

#[test]
fn logits_that_are_no_numbers_fail_their_job() {
    let model = FakeModel::new(|seen| match seen.last() {
        Some(77) => vec![f32::NAN; 2048],
        _ => fake::hashed(seen, 2048),
    });
    let engine = start(&model, options());
    let jobs = [[50, 51], [60, 77]].map(|prompt| engine.submit(Job::new(prompt, endless(3))).unwrap());
    let [sound, failed] = jobs.map(outcome);
    sound.assert_is(&alone(&engine, &[50, 51], &endless(3)));
    let error = failed.error.unwrap();
    assert!(matches!(*error, JobError::Model(Error::Logits { .. })), "{error}");
}

#[test]
fn an_engine_whose_steps_always_fail_goes_on_taking_jobs() {
    let model = FakeModel::hashed().with_faults(|_, _| Some(Fault::Panic));
    let engine = start(&model, options());
    for _ in 0..3 {
        let jobs = [(); 4].map(|()| engine.submit(Job::new([50, 51], at_most(3))).unwrap());
        for job in jobs {
            assert!(matches!(*outcome(job).error.unwrap(), JobError::Panic { .. }));
        }
    }
    wait_until("rest", || engine.load() == EngineLoad::default());
}
