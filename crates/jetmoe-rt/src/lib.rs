//! Runs JetMoE artifacts: backends, key/value cache, sampling, generation, classification.
//!
//! Three types, each owning what lives as long as it does: [`Model`] holds loaded weights and is shared,
//! [`Session`] holds the cache of one batch of sequences, and [`StepOutput`] what one step computed.
//!
//! ```no_run
//! use jetmoe_rt::{Generator, LoadOptions, Model, Precision, Request};
//!
//! let model = Model::load("path/to/artifact", &LoadOptions::default().with_precision(Precision::Q4))?;
//! let generator = Generator::new(&model)?;
//! println!("{}", generator.run(Request::new("In the beginning"))?.text);
//! # Ok::<(), jetmoe_rt::Error>(())
//! ```
//!
//! [`Generator`] and [`TextClassifier`] are what most services need; [`Session`] is the layer below them. [`Error::kind`] tells
//! the caller's mistakes from failures of the model.
//!
//! Every type is `Send`. [`Model`], [`Generator`], [`TextClassifier`], [`Tokenizer`], [`Request`], [`PrefixCache`],
//! [`CancellationToken`], [`Error`] and all options and results are `Sync` as well; a [`Session`] and a [`Stream`] are used by
//! one thread at a time.
//!
//! Types that may grow are `#[non_exhaustive]`. Options are made by `default()`, or a constructor, and `with_` methods.
//!
//! A [`Backend`] loads and runs graphs; [`backends`] are those of this build, chosen by cargo features. No public type
//! names a type of an engine, so the engines can change.

mod batch;
mod classification;
mod error;
mod error_kind;
#[cfg(test)]
mod fake;
mod fallback;
mod generation;
mod graph_choice;
mod model;
mod registry;
mod session;
mod slots;

pub use batch::TokenBatch;
pub use classification::{
    Classification, ClassificationFunction, ClassificationOptions, ClassificationRequest, ClassifierInput,
    TextClassifier,
};
pub use error::{Error, Result};
pub use error_kind::ErrorKind;
pub use generation::{
    Completion, Continuation, EncodedPrompt, Event, FinishReason, GenerationOptions, GenerationStatistics,
    Generator, LogProbabilities, Multinomial, PrefixCache, Prompt, PromptLookup, Request, Sampling, Score,
    ScoringOptions, ScoringRequest, SequenceSampler, Stream, Timings, TokenEvent, TokenLogProbability,
    TokenScore, log_sum_exp,
};
pub use graph_choice::choose_graph;
pub use jetmoe_artifact::{
    Artifact, ArtifactFile, Axis, CacheUpdate, CalibrationRecord, CheckpointRecord, ElementType,
    Error as ArtifactError, GraphRecord, InputName, InputSpec, Manifest, ModelPart, ObservedValue,
    OptionalOutput, OutputName, OutputSpec, OverrideError, Precision, Profile, Scheme, Signature,
    StorageOverride, Task, TensorRecord, UnknownName, VerificationRecord, WeightFormat, WeightPlan,
};
pub use jetmoe_backend::contract::cache_bytes;
pub use jetmoe_backend::{
    Backend, BoxError, CancellationGuard, CancellationToken, CudaOptions, DeadlineGuard, Device, DropGuard,
    Error as BackendError, ExecutionProvider, FormatError, GraphSession, GraphSource, KernelsError,
    LoadOptions, LoadedGraph, LogitsToKeep, OpenVinoDevice, OpenVinoOptions, OpenVinoPrecision,
    ProviderOption, StepInputs, Support, TensorMap, TensorRtOptions, TokenShape, available_memory,
};
#[cfg(feature = "ort")]
pub use jetmoe_backend_ort::{
    LIBRARY_PATH_VARIABLE, LibraryCandidate, LibraryOrigin, LibraryStatus, OnnxRuntimeLibrary, cache_folder,
    try_device,
};
pub use jetmoe_checkpoint::{
    Activation, Architecture, ConfigProblem, Digest, Error as CheckpointError, GenerationConfig, ModelConfig,
    ProblemType, RopeParameters, RopeScaling, SettingNotApplied, WeightProblem,
};
pub use jetmoe_onnx::Error as OnnxError;
pub use jetmoe_text::{
    ChatMessage, ChatOptions, ChatTemplate, ChatText, EncodedInput, Error as TextError, TextStream, Tokenizer,
};
pub use model::Model;
/// The arrays of [`TokenBatch`] and [`StepOutput`].
pub use ndarray;
pub use registry::{BACKEND_NAMES, backend, backends, built_in_names};
pub use session::{Session, StepOutput};
pub use slots::{SavedTokens, SlotTokens, Slots, SlotsOutput};
