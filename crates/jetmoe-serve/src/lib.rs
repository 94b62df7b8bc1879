//! Serves JetMoE artifacts over HTTP: OpenAI's API and the Open Inference Protocol, with continuous batching.
//!
//! Data flows one way: a route turns a request into [`Job`]s, an [`Engine`] runs the jobs of one model in the slots of shared
//! steps, and the route turns the events of a [`JobStream`] into the response.

mod auth;
mod blocking;
mod compute;
pub mod config;
mod engine;
mod error;
mod generation;
pub mod json;
mod metrics;
mod page;
mod registry;
mod routes;
mod server;
mod shutdown;
mod state;

pub use auth::{Keys, KeysError};
pub use engine::{
    Constraint, ConstraintKind, Engine, EngineLoad, EngineOptions, Job, JobError, JobEvent, JobStream,
    PromptScores, Refusal, StartError, TokenExperts,
};
pub use error::{ApiError, ApiResult, Error, ErrorBody, ErrorDetail};
pub use registry::{Lease, LoadedModel, ModelSummary, Registry, RegistryError};
pub use server::{Server, drain_on_termination, run_blocking};
pub use shutdown::Shutdown;
pub use state::AppState;
