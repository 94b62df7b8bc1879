//! Serves JetMoE artifacts over HTTP: OpenAI's API and the Open Inference Protocol, with continuous batching.
//!
//! Data flows one way: a route turns a request into [`Job`]s, an [`Engine`] runs the jobs of one model in the slots of shared
//! steps, and the route turns the events of a [`JobStream`] into the response.

mod engine;

pub use engine::{
    Constraint, ConstraintKind, Engine, EngineLoad, EngineOptions, Job, JobError, JobEvent, JobStream, PromptScores,
    Refusal, StartError, TokenExperts,
};
