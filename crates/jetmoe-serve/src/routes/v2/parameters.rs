//! Parameters of a generation, as the protocol has them.

use std::time::{Duration, Instant};

use jetmoe_rt::{GenerationOptions, Model, Multinomial, Sampling};
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::problem::Problem;
use crate::error::{ApiError, ApiResult};

/// Most tokens of a continuation if a request does not say it, as the protocol has it.
const DEFAULT_MAX_TOKENS: usize = 20;

/// How a text is continued. What is left out is as the protocol has it: 20 tokens, and a temperature of 1.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GenerateParameters {
    /// Most tokens of the continuation, at least 1; 20 by default.
    #[schema(minimum = 1)]
    pub(crate) max_tokens: Option<usize>,
    /// Divides the logits; 1 by default. With 0 the most probable token is taken.
    #[schema(minimum = 0)]
    pub(crate) temperature: Option<f32>,
    /// Keeps the most probable tokens with this total probability; by default all.
    #[schema(minimum = 0, maximum = 1)]
    pub(crate) top_p: Option<f32>,
    /// Keeps this many most probable tokens; by default all.
    #[schema(minimum = 1)]
    pub(crate) top_k: Option<usize>,
    /// Keeps tokens with this fraction of the most probable token's probability; by default all.
    #[schema(minimum = 0, maximum = 1)]
    pub(crate) min_p: Option<f32>,
    /// Seed of the draws; by default a random one.
    pub(crate) seed: Option<u64>,
    /// Texts that end the continuation and are no part of it.
    pub(crate) stop: Option<Stop>,
    /// Penalty for tokens of prompt and continuation; 1, the default, changes nothing.
    pub(crate) repetition_penalty: Option<f32>,
    /// Penalty for tokens of the continuation; 0, the default, changes nothing.
    pub(crate) presence_penalty: Option<f32>,
    /// Penalty for each occurrence of a token in the continuation; 0, the default, changes nothing.
    pub(crate) frequency_penalty: Option<f32>,
    /// Whether the response has the reason of the end and the log-probabilities of the tokens; false by default.
    pub(crate) details: Option<bool>,
}

/// A text, or a list of texts.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Stop {
    One(String),
    Several(Vec<String>),
}

impl GenerateParameters {
    /// The options of a model's generation.
    ///
    /// # Errors
    /// Status 400 for a temperature that is not valid, and for more tokens than the server allows.
    pub(crate) fn options(&self, model: &Model, max_tokens: Option<usize>) -> ApiResult<GenerationOptions> {
        let defaults = GenerationOptions::for_model(model);
        let new_tokens = self.max_tokens.unwrap_or(DEFAULT_MAX_TOKENS);
        if let Some(limit) = max_tokens
            && new_tokens > limit
        {
            let message = format!("max_tokens is {new_tokens}, more than the {limit} of this server");
            return Err(ApiError::invalid("max_tokens", message));
        }
        let mut options = defaults.with_max_new_tokens(new_tokens).with_sampling(self.sampling());
        options.seed = self.seed;
        options.repetition_penalty = self.repetition_penalty.unwrap_or(options.repetition_penalty);
        options.presence_penalty = self.presence_penalty.unwrap_or(options.presence_penalty);
        options.frequency_penalty = self.frequency_penalty.unwrap_or(options.frequency_penalty);
        match &self.stop {
            None => {}
            Some(Stop::One(text)) => options.stop = vec![text.clone()],
            Some(Stop::Several(texts)) => options.stop.clone_from(texts),
        }
        options.log_probabilities = self.has_details().then_some(0);
        Ok(options)
    }

    fn sampling(&self) -> Sampling {
        match self.temperature.unwrap_or(1.0) {
            0.0 => Sampling::Greedy,
            temperature => Multinomial::new(temperature)
                .with_top_k(self.top_k)
                .with_top_p(self.top_p)
                .with_min_p(self.min_p)
                .into(),
        }
    }

    pub(crate) fn has_details(&self) -> bool {
        self.details == Some(true)
    }
}

/// Parameters of an inference request.
#[derive(Debug, Default)]
pub(crate) struct InferParameters {
    /// Whether outputs are bytes if they do not say it themselves.
    pub(crate) binary_outputs: bool,
    /// When the inference ends.
    pub(crate) deadline: Option<Instant>,
    /// The others.
    pub(crate) generation: Map<String, Value>,
}

/// Parameters of the protocol that would change a result, and are not honoured.
const REFUSED: [&str; 4] = ["sequence_id", "sequence_start", "sequence_end", "priority"];

impl InferParameters {
    /// Reads the parameters of a request. The request ends at its own or the server's deadline, whichever is first.
    ///
    /// # Errors
    /// Parameters with another value than they can have.
    pub(crate) fn new(
        parameters: Option<Map<String, Value>>,
        deadline: Option<Instant>,
    ) -> Result<Self, Problem> {
        let mut generation = parameters.unwrap_or_default();
        if let Some(name) = REFUSED.into_iter().find(|name| generation.contains_key(*name)) {
            return Err(Problem::RefusedParameter { name });
        }
        let invalid = |name: &str, found: &Value, expected| {
            Err(Problem::Parameter { name: name.to_owned(), found: found.to_string(), expected })
        };
        let binary_outputs = match generation.remove("binary_data_output") {
            None => false,
            Some(Value::Bool(binary)) => binary,
            Some(found) => return invalid("binary_data_output", &found, "true or false"),
        };
        let timeout = match generation.remove("timeout") {
            None => None,
            Some(found) => match found.as_u64() {
                Some(0) | None => return invalid("timeout", &found, "microseconds, at least 1"),
                Some(microseconds) => Instant::now().checked_add(Duration::from_micros(microseconds)),
            },
        };
        let deadline = [timeout, deadline].into_iter().flatten().min();
        Ok(InferParameters { binary_outputs, deadline, generation })
    }

    /// The parameters of a generation.
    ///
    /// # Errors
    /// Others, and values of another type.
    pub(crate) fn generation(&self) -> Result<GenerateParameters, Problem> {
        Ok(serde_json::from_value(Value::Object(self.generation.clone()))?)
    }

    /// Refuses parameters of a generation where there is none.
    ///
    /// # Errors
    /// The first such parameter.
    pub(crate) fn without_generation(&self) -> Result<(), Problem> {
        match self.generation.keys().next() {
            None => Ok(()),
            Some(name) => Err(Problem::UnknownParameter {
                name: name.clone(),
                known: vec!["binary_data_output", "timeout"],
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use serde_json::{Value, json};

    use super::{InferParameters, Stop};

    fn read(parameters: Value) -> Result<InferParameters, String> {
        let Value::Object(parameters) = parameters else { panic!("{parameters} is no object") };
        InferParameters::new(Some(parameters), None).map_err(|problem| problem.to_string())
    }

    #[test]
    fn the_first_of_two_deadlines_holds() {
        let far = Instant::now() + Duration::from_secs(1000);
        let json = json!({"timeout": 1_000_000});
        let parameters = InferParameters::new(json.as_object().cloned(), Some(far)).unwrap();
        assert!(parameters.deadline.unwrap() < far);
        let none = InferParameters::new(None, Some(far)).unwrap();
        assert_eq!(none.deadline, Some(far));
    }

    #[test]
    fn parameters_of_a_generation_are_read_with_texts() {
        let parameters = read(json!({"binary_data_output": true, "max_tokens": 3, "stop": "x"})).unwrap();
        assert!(parameters.binary_outputs && parameters.without_generation().is_err());
        let generation = parameters.generation().unwrap();
        assert_eq!((generation.max_tokens, generation.stop), (Some(3), Some(Stop::One("x".to_owned()))));
    }

    #[test]
    fn what_is_not_honoured_is_refused_by_name() {
        for (json, name) in [
            (json!({"priority": 1}), "priority"),
            (json!({"sequence_id": 1, "sequence_start": true}), "sequence_id"),
            (json!({"timeout": -1}), "timeout"),
            (json!({"timeout": 0}), "timeout"),
            (json!({"binary_data_output": "yes"}), "binary_data_output"),
        ] {
            assert!(read(json).unwrap_err().contains(name), "{name}");
        }
        let problem = read(json!({"beams": 3})).unwrap().generation().unwrap_err().to_string();
        assert!(problem.contains("beams"), "{problem}");
    }
}
