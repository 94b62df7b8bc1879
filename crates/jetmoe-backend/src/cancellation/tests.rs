use std::sync::atomic::AtomicUsize;

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
