//! The types that a service shares among threads: what the documentation says of them, as the compiler sees it.

use jetmoe_rt::{
    Artifact, CancellationToken, ChatMessage, Classification, ClassificationOptions, Completion, Device,
    Error, ErrorKind, Event, GenerationConfig, GenerationOptions, Generator, LoadOptions, Model, ModelConfig,
    PrefixCache, Prompt, Request, Score, ScoringOptions, ScoringRequest, SequenceSampler, Session,
    StepOutput, Stream, TextClassifier, TokenBatch, Tokenizer,
};

fn is_shared<T: Send + Sync + 'static>() {}

fn is_moved<T: Send + 'static>() {}

/// A type that loses the property does not compile here.
#[test]
fn the_types_of_a_service_cross_threads() {
    is_shared::<Model>();
    is_shared::<Artifact>();
    is_shared::<ModelConfig>();
    is_shared::<GenerationConfig>();
    is_shared::<Tokenizer>();
    is_shared::<Generator>();
    is_shared::<TextClassifier>();
    is_shared::<LoadOptions>();
    is_shared::<Device>();
    is_shared::<GenerationOptions>();
    is_shared::<ClassificationOptions>();
    is_shared::<Prompt>();
    is_shared::<ChatMessage>();
    is_shared::<Request>();
    is_shared::<PrefixCache>();
    is_shared::<CancellationToken>();
    is_shared::<Event>();
    is_shared::<Completion>();
    is_shared::<Classification>();
    is_shared::<ScoringRequest>();
    is_shared::<ScoringOptions>();
    is_shared::<Score>();
    is_shared::<TokenBatch>();
    is_shared::<StepOutput>();
    is_shared::<Error>();
    is_shared::<ErrorKind>();
    is_moved::<Session>();
    is_moved::<Stream>();
    is_moved::<SequenceSampler>();
}
