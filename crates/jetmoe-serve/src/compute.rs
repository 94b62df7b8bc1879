//! Computations of a model outside of its engine: embeddings, classes, tensors. One runs at a time, because a step uses all cores;
//! the others wait in the order in which they came.

pub(crate) mod encode;
mod metrics;
pub(crate) mod steps;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use jetmoe_rt::CancellationToken;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;

use self::metrics::ComputationMetrics;
use crate::engine::Refusal;
use crate::error::{ApiError, ApiResult};
use crate::shutdown::Shutdown;

/// Most bytes of the numbers of a response.
pub(crate) const OUTPUT_BYTES: usize = 64 << 20;

/// The computations of one model outside of its engine.
#[derive(Debug)]
pub(crate) struct Computations {
    turn: Arc<Semaphore>,
    metrics: ComputationMetrics,
    /// Most computations that wait.
    queue: usize,
    /// How long the last one took, in milliseconds.
    last: Arc<AtomicU64>,
}

/// When a computation ends at the latest.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ends<'a> {
    /// The deadline of its request, which includes the time in the queue.
    pub(crate) deadline: Option<Instant>,
    /// The end of the server.
    pub(crate) shutdown: &'a Shutdown,
}

impl Computations {
    /// At most `queue` computations wait.
    pub(crate) fn new(queue: usize) -> Self {
        Computations {
            turn: Arc::new(Semaphore::new(1)),
            metrics: ComputationMetrics::new(),
            queue,
            last: Arc::new(AtomicU64::new(0)),
        }
    }

    /// Registers the metrics: those whose names begin with `jetmoe_computation_`.
    pub(crate) fn register_metrics(&self, registry: &mut Registry) {
        self.metrics.register(registry);
    }

    /// Counts tokens that were read.
    pub(crate) fn count_tokens(&self, tokens: usize) {
        self.metrics.tokens.inc_by(tokens as u64);
    }

    /// Runs `work` on a thread for blocking work when its turn has come. Its token is cancelled when the returned future is
    /// dropped, as when the client leaves, and at the deadline; the next computation begins when `work` has returned.
    ///
    /// # Errors
    /// The error of `work`; status 429 if too many wait, 504 after the deadline, 503 at the end of the server, 500 after a
    /// panic.
    pub(crate) async fn run<T, F>(&self, ends: Ends<'_>, work: F) -> ApiResult<T>
    where
        T: Send + 'static,
        F: FnOnce(&CancellationToken) -> ApiResult<T> + Send + 'static,
    {
        if ends.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(deadline_exceeded());
        }
        let token = CancellationToken::new();
        let _client_leaves = token.drop_guard();
        let computed = self.wait_and_compute(token.clone(), work);
        tokio::select! {
            result = computed => result,
            () = ends.shutdown.ending() => Err(ApiError::shutting_down()),
            () = sleep_until(ends.deadline) => Err(deadline_exceeded()),
        }
    }

    async fn wait_and_compute<T, F>(&self, token: CancellationToken, work: F) -> ApiResult<T>
    where
        T: Send + 'static,
        F: FnOnce(&CancellationToken) -> ApiResult<T> + Send + 'static,
    {
        let permit = self.wait().await?;
        let (last, seconds) = (Arc::clone(&self.last), self.metrics.seconds.clone());
        let running = Counted::new(&self.metrics.running);
        let computed = spawn_blocking(move || {
            let _until_it_returns = (permit, running);
            let begin = Instant::now();
            let result = work(&token);
            let elapsed = begin.elapsed();
            seconds.observe(elapsed.as_secs_f64());
            last.store(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
            result
        });
        computed.await.unwrap_or_else(|_| {
            tracing::error!("a computation panicked");
            Err(ApiError::internal())
        })
    }

    /// Waits for a turn.
    async fn wait(&self) -> ApiResult<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(&self.turn).try_acquire_owned() {
            return Ok(permit);
        }
        let place = Counted::new(&self.metrics.waiting);
        let before = usize::try_from(place.before).unwrap_or(0);
        if before >= self.queue {
            let milliseconds = self.last.load(Ordering::Relaxed).saturating_mul(before as u64 + 1);
            let retry_after = Duration::from_millis(milliseconds);
            return Err(Refusal::QueueFull { queued: before, retry_after }.into());
        }
        // the semaphore is never closed
        Arc::clone(&self.turn).acquire_owned().await.map_err(|_| ApiError::shutting_down())
    }
}

/// One that a gauge counts until it is dropped.
struct Counted {
    gauge: Gauge,
    /// How many it counted before.
    before: i64,
}

impl Counted {
    fn new(gauge: &Gauge) -> Self {
        Counted { before: gauge.inc(), gauge: gauge.clone() }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}

/// Never without a deadline.
async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

fn deadline_exceeded() -> ApiError {
    ApiError::deadline_exceeded("the time of the request has passed")
        .with_advice("send less in one request, or repeat it when the server is less busy")
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    use axum::http::StatusCode;
    use tokio::task::yield_now;

    use super::{Computations, Ends};
    use crate::error::ApiError;
    use crate::shutdown::Shutdown;

    /// Starts a computation that runs until the sender is dropped.
    async fn occupy(computations: &'static Computations, shutdown: &'static Shutdown) -> mpsc::Sender<()> {
        let (sender, receiver) = mpsc::channel::<()>();
        let (began, begin) = tokio::sync::oneshot::channel();
        tokio::spawn(computations.run(Ends { deadline: None, shutdown }, move |_| {
            began.send(()).unwrap();
            // ends when the sender is dropped
            receiver.recv().unwrap_err();
            Ok(())
        }));
        begin.await.unwrap();
        sender
    }

    fn leaked(queue: usize) -> (&'static Computations, &'static Shutdown) {
        (Box::leak(Box::new(Computations::new(queue))), Box::leak(Box::default()))
    }

    #[tokio::test]
    async fn computations_take_turns_in_their_order() {
        let (computations, shutdown) = leaked(8);
        let running = occupy(computations, shutdown).await;
        let (sender, receiver) = mpsc::channel();
        let mut tasks = Vec::new();
        for index in 0..4 {
            let sender = sender.clone();
            tasks.push(tokio::spawn(computations.run(Ends { deadline: None, shutdown }, move |_| {
                sender.send(index).unwrap();
                Ok(index)
            })));
            yield_now().await;
        }
        drop(running);
        for (index, task) in tasks.into_iter().enumerate() {
            assert_eq!(task.await.unwrap(), Ok(index));
        }
        assert_eq!(receiver.try_iter().collect::<Vec<_>>(), [0, 1, 2, 3]);
    }

    #[tokio::test]
    async fn a_full_queue_refuses_at_once() {
        let (computations, shutdown) = leaked(0);
        let running = occupy(computations, shutdown).await;
        let error = computations.run(Ends { deadline: None, shutdown }, |_| Ok(())).await.unwrap_err();
        assert_eq!(error.status(), StatusCode::TOO_MANY_REQUESTS);
        drop(running);
    }

    #[tokio::test]
    async fn a_client_that_leaves_cancels_its_computation() {
        let (computations, shutdown) = leaked(1);
        let (cancelled, was_cancelled) = mpsc::channel();
        let (began, begin) = tokio::sync::oneshot::channel();
        let task = tokio::spawn(computations.run(Ends { deadline: None, shutdown }, move |token| {
            let _guard = token.on_cancel(move || cancelled.send(()).unwrap());
            began.send(()).unwrap();
            while !token.is_cancelled() {
                std::thread::yield_now();
            }
            Err::<(), _>(ApiError::internal())
        }));
        begin.await.unwrap();
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        was_cancelled.recv().unwrap();
        // its turn is over
        assert_eq!(computations.run(Ends { deadline: None, shutdown }, |_| Ok(1)).await, Ok(1));
    }

    #[tokio::test]
    async fn a_deadline_and_the_end_of_the_server_end_the_wait() {
        let (computations, shutdown) = leaked(2);
        let running = occupy(computations, shutdown).await;
        let deadline = Some(Instant::now() + Duration::from_millis(1));
        let error = computations.run(Ends { deadline, shutdown }, |_| Ok(())).await.unwrap_err();
        assert_eq!((error.status(), error.code()), (StatusCode::GATEWAY_TIMEOUT, "deadline_exceeded"));
        shutdown.end();
        let error = computations.run(Ends { deadline: None, shutdown }, |_| Ok(())).await.unwrap_err();
        assert_eq!(error.code(), "shutting_down");
        drop(running);
    }

    #[tokio::test]
    async fn a_panic_fails_its_own_request_only() {
        let (computations, shutdown) = leaked(1);
        let ends = Ends { deadline: None, shutdown };
        let error =
            computations.run(ends, |_| -> Result<(), ApiError> { panic!("a bug") }).await.unwrap_err();
        assert_eq!(error.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(computations.run(ends, |_| Ok(2)).await, Ok(2));
    }
}
