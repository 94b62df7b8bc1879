//! The threads that share the work of a step.

use std::sync::Arc;

use jetmoe_kernels::Threads;
use rayon::ThreadPool;
use tract_linalg::multithread::{Executor, current_tract_executor};

/// The threads of the current step; `None` if the calling thread computes alone.
fn current_pool() -> Option<Arc<ThreadPool>> {
    match current_tract_executor() {
        Executor::MultiThread(pool) => Some(pool),
        Executor::SingleThread | Executor::RayonGlobal => None,
    }
}

/// Runs rayon's work on the threads of the current step.
pub(crate) fn on_step_threads<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    match current_pool() {
        Some(pool) => pool.install(work),
        None => work(),
    }
}

/// The threads of the current step, for the kernels.
pub(crate) struct StepThreads(Option<Arc<ThreadPool>>);

impl StepThreads {
    pub(crate) fn current() -> Self {
        StepThreads(current_pool())
    }
}

impl Threads for StepThreads {
    fn count(&self) -> usize {
        self.0.as_ref().map_or(1, |pool| pool.current_num_threads())
    }

    fn run(&self, work: &(dyn Fn(usize) + Sync)) {
        match &self.0 {
            Some(pool) => drop(pool.broadcast(|context| work(context.index()))),
            None => work(0),
        }
    }
}
