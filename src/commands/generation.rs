//! Arguments that override the checkpoint's settings for generation, one value each.

use clap::Args;
use jetmoe_rt::{GenerationConfig, GenerationOptions, Multinomial, Sampling};

const LENGTH: &str = "Length and repetition";
const SAMPLING: &str = "Sampling";

/// How the text is generated. What is not given is as the checkpoint says.
#[derive(Debug, Clone, Args)]
pub(crate) struct GenerationArguments {
    /// Most tokens to generate [default: as the checkpoint says, otherwise 256]
    #[arg(long, value_name = "N", help_heading = LENGTH)]
    max_new_tokens: Option<usize>,
    /// Fewest tokens to generate: end-of-sequence tokens are excluded before.
    #[arg(long, value_name = "N", help_heading = LENGTH)]
    min_new_tokens: Option<usize>,
    /// Stop before this text, which may be a special token. Can be given several times; replaces the checkpoint's.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, help_heading = LENGTH)]
    stop: Vec<String>,
    /// Never generate these tokens. Replaces the checkpoint's list.
    #[arg(long, value_name = "ID,…", value_delimiter = ',', help_heading = LENGTH)]
    suppress: Option<Vec<u32>>,
    /// N-grams of this length occur once in prompt and continuation; 0 for no rule.
    #[arg(long, value_name = "N", help_heading = LENGTH)]
    no_repeat_ngram_size: Option<usize>,
    /// Penalty for tokens that occurred before, in the prompt too; 1 for none.
    #[arg(long, value_name = "R", help_heading = LENGTH)]
    repetition_penalty: Option<f32>,
    /// What a token of the continuation loses in its logit, as in OpenAI's API; 0 for nothing.
    #[arg(long, value_name = "R", help_heading = LENGTH)]
    presence_penalty: Option<f32>,
    /// What a token loses in its logit for each time that it is in the continuation, as in OpenAI's API; 0 for nothing.
    #[arg(long, value_name = "R", help_heading = LENGTH)]
    frequency_penalty: Option<f32>,
    /// Temperature: divides the logits before sampling. 0 takes the most probable token.
    #[arg(long, value_name = "T", help_heading = SAMPLING)]
    temperature: Option<f32>,
    /// Sample from the K most probable tokens; 0 for all [default when sampling: as the checkpoint says, otherwise 50]
    #[arg(long, value_name = "K", help_heading = SAMPLING)]
    top_k: Option<usize>,
    /// Sample from the smallest set of tokens that together have this probability.
    #[arg(long, value_name = "P", help_heading = SAMPLING)]
    top_p: Option<f32>,
    /// Sample from tokens with at least this share of the most probable token's probability.
    #[arg(long, value_name = "P", help_heading = SAMPLING)]
    min_p: Option<f32>,
    /// Sample from the most typical tokens that together have this probability.
    #[arg(long, value_name = "P", help_heading = SAMPLING)]
    typical_p: Option<f32>,
    /// Seed of the sampling: the same seed, prompt and backend give the same text.
    #[arg(long, value_name = "N", help_heading = SAMPLING)]
    seed: Option<u64>,
}

impl GenerationArguments {
    /// Refuses invalid values before a model is loaded.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        if let Some(temperature) = self.temperature {
            anyhow::ensure!(
                temperature >= 0.0 && temperature.is_finite(),
                "--temperature is {temperature}, expected a finite number above 0, or 0 for the most probable token"
            );
        }
        self.options(&GenerationConfig::default()).validate().map_err(super::as_cli_error)
    }

    /// The checkpoint's settings, overridden by the arguments.
    pub(crate) fn options(&self, config: &GenerationConfig) -> GenerationOptions {
        let mut options = GenerationOptions::from_config(config);
        if let Some(tokens) = self.max_new_tokens {
            options = options.with_max_new_tokens(tokens);
        }
        if let Some(tokens) = self.min_new_tokens {
            options = options.with_min_new_tokens(tokens);
        }
        if !self.stop.is_empty() {
            options.stop.clone_from(&self.stop);
        }
        if let Some(ids) = &self.suppress {
            options.suppress_tokens.clone_from(ids);
        }
        options.no_repeat_ngram_size = self.no_repeat_ngram_size.unwrap_or(options.no_repeat_ngram_size);
        options.repetition_penalty = self.repetition_penalty.unwrap_or(options.repetition_penalty);
        options.presence_penalty = self.presence_penalty.unwrap_or(options.presence_penalty);
        options.frequency_penalty = self.frequency_penalty.unwrap_or(options.frequency_penalty);
        options.seed = self.seed.or(options.seed);
        if self.temperature == Some(0.0) {
            options.sampling = Sampling::Greedy;
        } else if self.samples() {
            options.sampling = self.multinomial(Multinomial::from_config(config)).into();
        }
        options
    }

    /// Whether an argument asks for sampling.
    fn samples(&self) -> bool {
        let values = [self.temperature, self.top_p, self.min_p, self.typical_p];
        self.top_k.is_some() || values.iter().any(Option::is_some)
    }

    fn multinomial(&self, mut sampling: Multinomial) -> Multinomial {
        sampling.temperature = self.temperature.unwrap_or(sampling.temperature);
        sampling.top_k = self.top_k.map_or(sampling.top_k, |top_k| Some(top_k).filter(|top_k| *top_k > 0));
        sampling.top_p = self.top_p.or(sampling.top_p);
        sampling.min_p = self.min_p.or(sampling.min_p);
        sampling.typical_p = self.typical_p.or(sampling.typical_p);
        sampling
    }
}
