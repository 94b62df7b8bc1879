//! The server: its listener, what every request passes, and its end.

mod access;
mod connection;
mod guarded_body;
mod limits;
mod tls;

use std::any::Any;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::StatusCode;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowOrigin, Any as AnyHeader, CorsLayer};

use self::limits::Gate;
use self::tls::Acceptor;
use crate::auth::{Keys, RateLimit};
use crate::config::{Config, Cors, seconds};
use crate::engine::panic_message;
use crate::error::{ApiError, Error, without_paths};
use crate::registry::Registry;
use crate::shutdown::Shutdown;
use crate::state::AppState;
use crate::{page, routes};

/// A server that listens, and answers once it runs.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    acceptor: Option<Acceptor>,
    router: Router,
    state: AppState,
}

/// After the time for requests in progress, they may take so long to send their last event.
const LAST_EVENTS: Duration = Duration::from_secs(2);

impl Server {
    /// Opens the artifacts, reads keys and certificates, and listens. Models are loaded by [`Server::run`].
    ///
    /// # Errors
    /// An artifact, a file or an address that cannot be used.
    pub async fn bind(config: Config) -> Result<Self, Error> {
        config.validate()?;
        let registry = Registry::open(&config)?;
        let keys = config.keys_file.as_deref().map(Keys::read).transpose()?;
        let acceptor = config.tls.as_ref().map(Acceptor::new).transpose()?;
        let rate = config.limits.requests_per_minute.and_then(NonZeroU32::new).map(RateLimit::per_minute);
        let gate = Gate {
            keys: keys.map(Arc::new),
            rate: rate.map(Arc::new),
            requests: Arc::new(Semaphore::new(config.limits.requests.min(Semaphore::MAX_PERMITS))),
        };
        let cors = cors(&config.cors)?;
        let failed = |source| Error::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let state = AppState::new(config, registry, Shutdown::default());
        let router = layered(&state, gate, cors);
        Ok(Server { listener, address, acceptor, router, state })
    }

    /// The address that the server listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Ends the server: [`Shutdown::drain`] lets requests in progress take their time, [`Shutdown::end`] ends them too.
    pub fn shutdown(&self) -> &Shutdown {
        self.state.shutdown()
    }

    /// Loads the models that are to be loaded at the start, and answers requests meanwhile and afterwards, until the server is
    /// told to end. Then requests in progress have the time of [`Config::shutdown_seconds`]; those that are left end with an error.
    ///
    /// # Errors
    /// A model that cannot be loaded at the start.
    pub async fn run(self) -> Result<(), Error> {
        let mut connections = JoinSet::new();
        let result = self.accept(&mut connections).await;
        let shutdown = self.state.shutdown();
        shutdown.drain();
        let Server { listener, state, .. } = self;
        // no further connection waits for this server
        drop(listener);
        tracing::info!(connections = connections.len(), "ending");
        let in_time = timeout(seconds(state.config().shutdown_seconds), join(&mut connections)).await;
        state.shutdown().end();
        if in_time.is_err() {
            tracing::warn!(connections = connections.len(), "requests in progress are ended");
            if timeout(LAST_EVENTS, join(&mut connections)).await.is_err() {
                connections.shutdown().await;
            }
        }
        for model in state.registry().loaded().await {
            if let Ok(engine) = model.engine() {
                engine.shutdown(Instant::now()).await;
            }
        }
        tracing::info!("ended");
        result
    }

    /// Accepts connections until the server is told to end.
    async fn accept(&self, connections: &mut JoinSet<()>) -> Result<(), Error> {
        let limits = &self.state.config().limits;
        let shutdown = self.state.shutdown();
        let places = Arc::new(Semaphore::new(limits.connections.min(Semaphore::MAX_PERMITS)));
        let mut preload = pin!(self.state.registry().preload());
        let mut is_preloading = true;
        loop {
            let next = async {
                let place = Arc::clone(&places).acquire_owned().await;
                (place, self.listener.accept().await)
            };
            tokio::select! {
                () = shutdown.draining() => return Ok(()),
                loaded = preload.as_mut(), if is_preloading => {
                    loaded?;
                    is_preloading = false;
                    self.state.set_ready();
                    tracing::info!(address = %self.address, "ready");
                }
                (place, accepted) = next => match accepted {
                    Ok((stream, peer)) => {
                        let (router, acceptor) = (self.router.clone(), self.acceptor.clone());
                        let (limits, shutdown) = (limits.clone(), shutdown.clone());
                        connections.spawn(async move {
                            let _place = place;
                            connection::serve(stream, peer, router, acceptor, limits, shutdown).await;
                        });
                    }
                    Err(error) => {
                        // such as too many open files: it passes when a connection ends
                        tracing::warn!(%error, "a connection could not be accepted");
                        sleep(Duration::from_millis(100)).await;
                    }
                },
                Some(_ended) = connections.join_next() => {}
            }
        }
    }
}

async fn join(connections: &mut JoinSet<()>) {
    while connections.join_next().await.is_some() {}
}

/// The routes, and what every request passes on its way to them.
fn layered(state: &AppState, gate: Gate, cors: Option<CorsLayer>) -> Router {
    let router = routes::router()
        .merge(page::router())
        .fallback(|| async {
            ApiError::new(StatusCode::NOT_FOUND, "no_such_route", "there is no such route")
        })
        .method_not_allowed_fallback(|| async {
            ApiError::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "the route has no such method",
            )
        });
    let metrics = state.clone();
    let router = router
        .layer(from_fn_with_state((state.clone(), gate), limits::admit))
        .layer(CatchPanicLayer::custom(move |panic| panicked(&metrics, &panic)))
        .layer(from_fn(routes::protocol_errors));
    let router = match cors {
        Some(cors) => router.layer(cors),
        None => router,
    };
    router.layer(from_fn_with_state(state.clone(), access::observe)).with_state(state.clone())
}

/// The response to a request whose handler panicked.
fn panicked(state: &AppState, panic: &Box<dyn Any + Send>) -> Response {
    state.metrics().panicked();
    tracing::error!(panic = %without_paths(&panic_message(panic.as_ref())), "a handler panicked");
    ApiError::internal().into_response()
}

fn cors(cors: &Cors) -> Result<Option<CorsLayer>, Error> {
    if cors.origins.is_empty() {
        return Ok(None);
    }
    let layer = CorsLayer::new().allow_methods(AnyHeader).allow_headers(AnyHeader);
    if cors.origins.iter().any(|origin| origin == "*") {
        return Ok(Some(layer.allow_origin(AnyHeader)));
    }
    let parse = |origin: &String| origin.parse().map_err(|_| Error::Origin(origin.clone()));
    let origins = cors.origins.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
    Ok(Some(layer.allow_origin(AllowOrigin::list(origins))))
}

/// Starts a runtime, and serves until the server is told to end: by SIGTERM, or by what `started` is given when the server listens.
///
/// # Errors
/// As [`Server::bind`] and [`Server::run`], or a system that has no threads or signals for it.
pub fn run_blocking(config: Config, started: impl FnOnce(Shutdown)) -> Result<(), Error> {
    // requests are few bytes; the models have the cores
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.map_err(Error::System)?.block_on(async {
        let server = Server::bind(config).await?;
        drain_on_termination(server.shutdown().clone()).map_err(Error::System)?;
        started(server.shutdown().clone());
        tracing::info!(address = %server.local_addr(), "listening");
        server.run().await
    })
}

/// From now on SIGTERM ends the server, with time for requests in progress. Only on Unix; elsewhere it does nothing.
///
/// # Errors
/// The system does not take the handler.
pub fn drain_on_termination(shutdown: Shutdown) -> io::Result<()> {
    #[cfg(unix)]
    {
        let mut terminations = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::spawn(async move {
            while terminations.recv().await.is_some() {
                // a second one does not wait
                if shutdown.is_draining() {
                    shutdown.end();
                }
                shutdown.drain();
            }
        });
    }
    #[cfg(not(unix))]
    drop(shutdown);
    Ok(())
}
