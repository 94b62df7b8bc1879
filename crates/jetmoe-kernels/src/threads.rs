//! The interface to the threads of the runtime that calls the kernels.

/// A pool of threads that share the work of a product.
pub trait Threads {
    /// Number of threads, at least 1.
    fn count(&self) -> usize;

    /// Calls `work` with every number below [`Threads::count`] and returns when all calls have returned.
    ///
    /// The calls may run concurrently, sequentially, or partly each: they take tasks from one shared queue, so a call that
    /// finds it empty returns at once.
    fn run(&self, work: &(dyn Fn(usize) + Sync));
}

/// The calling thread alone.
#[derive(Debug, Clone, Copy, Default)]
pub struct CallingThread;

impl Threads for CallingThread {
    fn count(&self) -> usize {
        1
    }

    fn run(&self, work: &(dyn Fn(usize) + Sync)) {
        work(0);
    }
}

/// This number of threads, which are started for each product: for programs without a thread pool.
#[derive(Debug, Clone, Copy)]
pub struct ScopedThreads(pub usize);

impl Threads for ScopedThreads {
    fn count(&self) -> usize {
        self.0
    }

    fn run(&self, work: &(dyn Fn(usize) + Sync)) {
        std::thread::scope(|scope| {
            for index in 0..self.0 {
                scope.spawn(move || work(index));
            }
        });
    }
}
