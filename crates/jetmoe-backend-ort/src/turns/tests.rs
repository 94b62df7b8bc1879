use super::*;

/// Waits until so many threads have a ticket.
fn wait_for_tickets<T>(turns: &Turns<T>, count: usize) {
    while turns.queue.lock().waiting.len() < count {
        std::thread::yield_now();
    }
}

#[test]
fn turns_are_taken_in_the_order_of_the_requests() {
    let turns = Turns::new(Vec::new());
    std::thread::scope(|scope| {
        let mut first = turns.wait_for_ever();
        for number in 0..8 {
            let turns = &turns;
            scope.spawn(move || turns.wait_for_ever().push(number));
            wait_for_tickets(turns, 2 + number);
        }
        first.push(100);
    });
    assert_eq!(*turns.wait_for_ever(), [100, 0, 1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn a_thread_that_asks_again_lets_those_before_it_go_first() {
    let turns = Turns::new(0);
    std::thread::scope(|scope| {
        let first = turns.wait_for_ever();
        let other = scope.spawn(|| *turns.wait_for_ever() += 1);
        wait_for_tickets(&turns, 2);
        drop(first);
        assert_eq!(*turns.wait_for_ever(), 1);
        other.join().unwrap();
    });
}

#[test]
fn a_cancelled_thread_stops_waiting_and_those_behind_it_go_on() {
    let turns = Turns::new(());
    let cancelled = CancellationToken::new();
    std::thread::scope(|scope| {
        let first = turns.wait_for_ever();
        let gives_up = scope.spawn(|| turns.wait(&cancelled).is_none());
        wait_for_tickets(&turns, 2);
        let last = scope.spawn(|| turns.wait(&CancellationToken::new()).is_some());
        wait_for_tickets(&turns, 3);
        cancelled.cancel();
        // while the first still has its turn
        assert!(gives_up.join().unwrap());
        drop(first);
        assert!(last.join().unwrap());
    });
    assert!(turns.queue.lock().waiting.is_empty());
}

#[test]
fn a_turn_that_panics_ends() {
    let turns = Turns::new(0);
    let panics = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _turn = turns.wait_for_ever();
        panic!("in a turn");
    }));
    assert!(panics.is_err());
    assert_eq!(*turns.wait_for_ever(), 0);
}
