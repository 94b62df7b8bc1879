//! Generation: prompts in, tokens and text out, one step with a key/value cache per token.
//!
//! A [`Request`] holds prompts and options, a [`Generator`] checks and runs it, a [`Stream`] is the loop, and an [`Event`] or a
//! [`Completion`] the result. [`PromptLookup`] is speculative decoding with drafts from the sequence itself. [`PrefixCache`]
//! reuses the key/value cache for a prompt that begins like the previous one. A [`ScoringRequest`] asks for the
//! log-probability of given continuations, a [`Score`] holds it.

mod argmax;
mod completion;
mod filters;
mod generator;
mod interruption;
mod log_probabilities;
mod lookup;
mod options;
mod prefix;
mod request;
mod rules;
mod sampling;
mod scoring;
mod sequence;
mod sequence_sampler;
mod stream;
#[cfg(test)]
mod tests;

pub use completion::{Completion, Event, FinishReason, GenerationStatistics, Timings, TokenEvent};
pub use generator::Generator;
pub use log_probabilities::{LogProbabilities, TokenLogProbability, log_sum_exp};
pub use lookup::PromptLookup;
pub use options::{GenerationOptions, Multinomial, Sampling};
pub use prefix::PrefixCache;
pub use request::{EncodedPrompt, Prompt, Request};
pub use scoring::{Continuation, Score, ScoringOptions, ScoringRequest, TokenScore};
pub use sequence_sampler::SequenceSampler;
pub use stream::Stream;
