use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use super::*;

fn counter() -> (Arc<AtomicUsize>, impl Fn() + Clone + Send + 'static) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    (calls, move || {
        counted.fetch_add(1, Ordering::SeqCst);
    })
}

#[test]
fn a_token_is_cancelled_for_all_of_its_clones() {
    let token = CancellationToken::new();
    let clone = token.clone();
    assert!(!clone.is_cancelled());
    token.cancel();
    assert!(token.is_cancelled() && clone.is_cancelled());
    assert!(!CancellationToken::new().is_cancelled());
}

#[test]
fn a_callback_is_called_once() {
    let token = CancellationToken::new();
    let (calls, count) = counter();
    let guard = token.on_cancel(count);
    assert_eq!(calls.load(Ordering::SeqCst), 0);
    token.cancel();
    token.cancel();
    drop(guard);
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[test]
fn a_callback_of_a_cancelled_token_is_called_at_once() {
    let token = CancellationToken::new();
    token.cancel();
    let (calls, count) = counter();
    drop(token.on_cancel(count));
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[test]
fn a_dropped_guard_deregisters_its_callback_and_no_other() {
    let token = CancellationToken::new();
    let ((first_calls, first), (second_calls, second)) = (counter(), counter());
    let first = token.on_cancel(first);
    let second = token.on_cancel(second);
    drop(first);
    token.cancel();
    drop(second);
    assert_eq!((first_calls.load(Ordering::SeqCst), second_calls.load(Ordering::SeqCst)), (0, 1));
}

#[test]
fn a_callback_may_use_its_token() {
    let token = CancellationToken::new();
    let (calls, count) = counter();
    let inner = token.clone();
    let guard = token.on_cancel(move || {
        inner.cancel();
        drop(inner.on_cancel(count));
    });
    token.cancel();
    drop(guard);
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

#[test]
fn a_guard_that_a_callback_owns_is_dropped_without_a_deadlock() {
    let token = CancellationToken::new();
    let (calls, count) = counter();
    let owned = token.on_cancel(count);
    drop(token.on_cancel(move || drop(owned)));
    token.cancel();
    assert_eq!(calls.load(Ordering::SeqCst), 0);
}

#[test]
fn cancelling_and_deregistering_at_the_same_time_call_each_callback_at_most_once() {
    for _ in 0..500 {
        let token = CancellationToken::new();
        let (calls, count) = counter();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                let (token, count) = (token.clone(), count.clone());
                scope.spawn(move || drop(token.on_cancel(count)));
            }
            let token = token.clone();
            scope.spawn(move || token.cancel());
        });
        assert!(calls.load(Ordering::SeqCst) <= 2);
        assert!(token.is_cancelled());
        assert!(token.state.lock().registered.is_empty());
    }
}

#[test]
fn a_drop_guard_cancels_when_it_is_dropped() {
    let token = CancellationToken::new();
    let guard = token.drop_guard();
    assert!(!token.is_cancelled());
    drop(guard);
    assert!(token.is_cancelled());
}

/// Waits until a token is cancelled.
fn wait_for(token: &CancellationToken) {
    let (send, receive) = std::sync::mpsc::channel();
    let _guard = token.on_cancel(move || send.send(()).unwrap());
    receive.recv().unwrap();
}

#[test]
fn deadlines_cancel_their_tokens_and_no_others() {
    let now = Instant::now();
    let never = CancellationToken::new();
    let _never = never.cancel_at(now + Duration::from_secs(100_000)).unwrap();
    let tokens: Vec<_> =
        [40, 20, 30].map(|ms| (CancellationToken::new(), now + Duration::from_millis(ms))).into();
    let guards: Vec<_> = tokens.iter().map(|(token, time)| token.cancel_at(*time).unwrap()).collect();
    for (token, time) in &tokens {
        wait_for(token);
        assert!(Instant::now() >= *time);
    }
    assert!(!never.is_cancelled());
    drop(guards);
}

#[test]
fn a_deadline_that_has_passed_cancels_at_once() {
    let token = CancellationToken::new();
    let _guard = token.cancel_at(Instant::now()).unwrap();
    assert!(token.is_cancelled());
}

#[test]
fn a_callback_that_panics_does_not_end_the_other_deadlines() {
    let token = CancellationToken::new();
    let _callback = token.on_cancel(|| panic!("told to panic"));
    let _guard = token.cancel_at(Instant::now() + Duration::from_millis(1)).unwrap();
    let other = CancellationToken::new();
    let _other = other.cancel_at(Instant::now() + Duration::from_millis(10)).unwrap();
    wait_for(&other);
    assert!(token.is_cancelled());
}
