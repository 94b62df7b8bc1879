//! The queue: jobs that wait for a slot, by priority and then by arrival.

use std::cmp::Reverse;
use std::collections::BTreeMap;

/// The place of a job in the queue: smaller ones are first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct QueueKey {
    priority: Reverse<i32>,
    arrival: u64,
}

/// A queue of limited length.
#[derive(Debug)]
pub(super) struct Queue<T> {
    jobs: BTreeMap<QueueKey, T>,
    capacity: usize,
    arrivals: u64,
}

/// The queue is full.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full {
    /// Jobs in the queue.
    pub(super) queued: usize,
}

impl<T> Queue<T> {
    pub(super) fn new(capacity: usize) -> Self {
        Queue { jobs: BTreeMap::new(), capacity, arrivals: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Adds a job behind those of its priority.
    pub(super) fn push(&mut self, priority: i32, job: T) -> Result<QueueKey, Full> {
        if self.jobs.len() >= self.capacity {
            return Err(Full { queued: self.jobs.len() });
        }
        let key = QueueKey { priority: Reverse(priority), arrival: self.arrivals };
        self.arrivals += 1;
        self.jobs.insert(key, job);
        Ok(key)
    }

    /// Takes the first job.
    pub(super) fn pop(&mut self) -> Option<T> {
        self.jobs.pop_first().map(|(_, job)| job)
    }

    /// Takes a job out, wherever it is; `None` if it has left already.
    pub(super) fn remove(&mut self, key: QueueKey) -> Option<T> {
        self.jobs.remove(&key)
    }

    /// Takes the jobs with a property, in their order.
    pub(super) fn take_all(&mut self, mut has: impl FnMut(&T) -> bool) -> Vec<T> {
        let keys: Vec<QueueKey> = self.jobs.iter().filter(|(_, job)| has(job)).map(|(key, _)| *key).collect();
        keys.into_iter().filter_map(|key| self.jobs.remove(&key)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn higher_priorities_are_first_and_equal_ones_in_the_order_of_arrival() {
        let mut queue = Queue::new(10);
        for (priority, job) in
            [(0, "a"), (5, "b"), (0, "c"), (-1, "d"), (5, "e"), (i32::MIN, "f"), (i32::MAX, "g")]
        {
            queue.push(priority, job).unwrap();
        }
        let order: Vec<&str> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(order, ["g", "b", "e", "a", "c", "d", "f"]);
    }

    #[test]
    fn a_full_queue_takes_a_job_once_another_has_left() {
        let mut queue = Queue::new(2);
        let first = queue.push(0, 1).unwrap();
        queue.push(0, 2).unwrap();
        assert_eq!(queue.push(9, 3), Err(Full { queued: 2 }));
        assert_eq!(queue.remove(first), Some(1));
        assert_eq!(queue.remove(first), None);
        queue.push(9, 3).unwrap();
        assert_eq!(queue.take_all(|job| *job >= 2), [3, 2]);
        assert_eq!(queue.len(), 0);
    }
}
