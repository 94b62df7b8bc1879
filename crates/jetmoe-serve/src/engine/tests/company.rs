//! A job gives the same in any company, and delays the others by a chunk at most.

use std::time::Instant;

use super::*;

/// Jobs of all kinds: greedy, seeded, with rules, stop strings, limits and log-probabilities.
fn requests() -> Vec<(Vec<u32>, GenerationOptions)> {
    let tokenizer = fake::tokenizer();
    let texts = ["In the beginning", "And God said", "x", "Verily, verily, I say unto thee,"];
    let mut requests = Vec::new();
    for index in 0..36_u64 {
        let text = texts[index as usize % texts.len()].repeat(1 + index as usize % 5);
        let options = match index % 6 {
            0 => at_most(9),
            1 => multinomial(index).with_log_probabilities(2),
            2 => at_most(20).with_repetition_penalty(1.2).with_no_repeat_ngram_size(2),
            3 => multinomial(index).with_stop([" the", "e"]),
            4 => at_most(1),
            _ => multinomial(index).with_min_new_tokens(5).with_eos_token_ids(vec![300, 301, 302]),
        };
        requests.push((tokenizer.encode(&text, true).unwrap(), options));
    }
    requests
}

#[test]
fn every_job_gives_what_it_gives_alone() {
    let engine = start(&FakeModel::hashed(), options());
    let requests = requests();
    let expected: Vec<Completion> =
        requests.iter().map(|(prompt, options)| alone(&engine, prompt, options)).collect();
    let mut random = fastrand::Rng::with_seed(7);
    std::thread::scope(|scope| {
        for (index, ((prompt, options), expected)) in requests.iter().zip(&expected).enumerate() {
            let delay = Duration::from_millis(random.u64(0..30));
            let job = Job::new(prompt.clone(), options.clone()).with_priority(random.i32(-1..2));
            let engine = &engine;
            scope.spawn(move || {
                std::thread::sleep(delay);
                let mut stream = engine.submit(job).unwrap();
                if index % 5 == 4 {
                    // its client leaves, in the queue or between two tokens
                    for _ in 0..index % 3 {
                        stream.blocking_next();
                    }
                    return;
                }
                outcome(stream).assert_is(expected);
            });
        }
    });
    wait_until("rest", || engine.load() == EngineLoad::default());
}

#[test]
fn a_long_prompt_delays_the_next_token_of_others_by_a_chunk() {
    let model = FakeModel::hashed();
    let engine = start(&model, options());
    model.gate.close();
    let short = engine.submit(Job::new([5, 6], endless(12))).unwrap();
    let long: Vec<u32> = (0..40).map(|id| 100 + id).collect();
    let long = engine.submit(Job::new(long, at_most(1))).unwrap();
    wait_until("a step", || model.gate.holds());
    model.gate.open();
    outcome(short);
    outcome(long);
    let log = model.take_log();
    let prompt = log.iter().find(|(_, tokens)| tokens.contains(&100)).unwrap().0;
    let mut between = 0;
    let mut chunks = 0;
    for (session, tokens) in &log {
        if *session == prompt {
            between += tokens.len();
            chunks += 1;
        } else {
            assert!(between <= 4, "{log:?}");
            between = 0;
        }
    }
    // the two prompts may share the first chunk
    assert!((10..=11).contains(&chunks), "{log:?}");
}

#[test]
fn a_free_slot_is_filled_in_the_next_step() {
    let model = FakeModel::hashed();
    let engine = start(&model, options().with_slots(2));
    model.gate.close();
    let jobs = [(60, endless(40)), (61, endless(2)), (62, at_most(1))];
    let jobs = jobs.map(|(token, options)| engine.submit(Job::new([token], options)).unwrap());
    model.gate.open();
    jobs.into_iter().for_each(|job| drop(outcome(job)));
    let log = model.take_log();
    let place = |token: u32| log.iter().position(|(_, tokens)| tokens.contains(&token)).unwrap();
    // perhaps 60 alone, 60 and 61 twice, 60 and 62
    assert!(place(62) <= 6, "{log:?}");
}

#[test]
fn higher_priorities_start_first() {
    let model = FakeModel::hashed();
    let engine = start(&model, options().with_slots(1));
    model.gate.close();
    let first = engine.submit(Job::new([50], at_most(1))).unwrap();
    wait_until("a step", || model.gate.holds());
    let low = engine.submit(Job::new([51], at_most(1))).unwrap();
    let high = engine.submit(Job::new([52], at_most(1)).with_priority(1)).unwrap();
    assert_eq!(engine.load(), EngineLoad { queued: 2, running: 1 });
    model.gate.open();
    for stream in [first, low, high] {
        outcome(stream);
    }
    let read: Vec<u32> = model.take_log().into_iter().flat_map(|(_, tokens)| tokens).collect();
    assert_eq!(read, [50, 52, 51]);
}

#[test]
fn a_full_queue_refuses_with_advice() {
    let model = FakeModel::hashed();
    let engine = start(&model, options().with_slots(1).with_queue(1));
    model.gate.close();
    let running = engine.submit(Job::new([50], at_most(1))).unwrap();
    wait_until("a step", || model.gate.holds());
    let waiting = engine.submit(Job::new([51], at_most(1))).unwrap();
    let refusal = engine.submit(Job::new([52], at_most(1))).unwrap_err();
    let Refusal::QueueFull { queued: 1, retry_after } = refusal else { panic!("{refusal}") };
    assert!(retry_after >= Duration::from_secs(1));
    // a client that leaves frees its slot at once
    drop(waiting);
    let waiting = engine.submit(Job::new([53], at_most(1))).unwrap();
    model.gate.open();
    outcome(running);
    outcome(waiting);
}

#[test]
fn a_slow_reader_delays_no_one() {
    let engine = start(&FakeModel::hashed(), options().with_slots(2));
    let unread = engine.submit(Job::new([50], endless(200))).unwrap();
    let begin = Instant::now();
    let read = run(&engine, Job::new([51], at_most(3)));
    assert!(read.error.is_none() && begin.elapsed() < Duration::from_secs(10));
    assert_eq!(outcome(unread).token_ids().len(), 200);
}
