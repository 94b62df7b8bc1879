/// Threads that share a product: those of the runtime that calls.
pub trait Threads {
    /// How many work at once, at least 1.
    fn count(&self) -> usize;

    /// Calls `work` with every number below [`Threads::count`], and returns when all calls have. They may run at the same
    /// time, one after the other, or some of each; what they share they take from one queue, so that the first call that
    /// finds it empty has nothing to do.
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
