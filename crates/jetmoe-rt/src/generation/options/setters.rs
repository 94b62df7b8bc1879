//! The `with_` methods.

use super::{GenerationOptions, PromptLookup, Sampling};

macro_rules! setters {
    ($($name:ident($field:ident: $type:ty);)*) => {$(
        #[doc = concat!("Sets [`GenerationOptions::", stringify!($field), "`].")]
        #[must_use]
        pub fn $name(mut self, $field: $type) -> Self {
            self.$field = $field.into();
            self
        }
    )*};
}

impl GenerationOptions {
    /// Sets [`GenerationOptions::max_new_tokens`] in place of [`GenerationOptions::max_length`].
    #[must_use]
    pub fn with_max_new_tokens(mut self, max_new_tokens: usize) -> Self {
        self.max_new_tokens = max_new_tokens;
        self.max_length = None;
        self
    }

    /// Sets [`GenerationOptions::min_new_tokens`] in place of [`GenerationOptions::min_length`].
    #[must_use]
    pub fn with_min_new_tokens(mut self, min_new_tokens: usize) -> Self {
        self.min_new_tokens = min_new_tokens;
        self.min_length = 0;
        self
    }

    /// Sets [`GenerationOptions::stop`].
    #[must_use]
    pub fn with_stop(mut self, stop: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.stop = stop.into_iter().map(Into::into).collect();
        self
    }

    setters! {
        with_max_length(max_length: impl Into<Option<usize>>);
        with_min_length(min_length: usize);
        with_sampling(sampling: impl Into<Sampling>);
        with_repetition_penalty(repetition_penalty: f32);
        with_presence_penalty(presence_penalty: f32);
        with_frequency_penalty(frequency_penalty: f32);
        with_encoder_repetition_penalty(encoder_repetition_penalty: f32);
        with_no_repeat_ngram_size(no_repeat_ngram_size: usize);
        with_encoder_no_repeat_ngram_size(encoder_no_repeat_ngram_size: usize);
        with_suppress_tokens(suppress_tokens: Vec<u32>);
        with_begin_suppress_tokens(begin_suppress_tokens: Vec<u32>);
        with_bad_words_ids(bad_words_ids: Vec<Vec<u32>>);
        with_sequence_bias(sequence_bias: Vec<(Vec<u32>, f32)>);
        with_forced_bos_token_id(forced_bos_token_id: impl Into<Option<u32>>);
        with_forced_eos_token_ids(forced_eos_token_ids: Vec<u32>);
        with_exponential_decay_length_penalty(exponential_decay_length_penalty: impl Into<Option<(i64, f64)>>);
        with_remove_invalid_values(remove_invalid_values: bool);
        with_eos_token_ids(eos_token_ids: impl Into<Option<Vec<u32>>>);
        with_seed(seed: impl Into<Option<u64>>);
        with_prefill_chunk(prefill_chunk: usize);
        with_prompt_lookup(prompt_lookup: impl Into<Option<PromptLookup>>);
        with_log_probabilities(log_probabilities: impl Into<Option<usize>>);
    }
}
