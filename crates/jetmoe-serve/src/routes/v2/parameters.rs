//! Parameters of a generation, as the protocol has them.

use std::time::{Duration, Instant};

use jetmoe_rt::GenerationOptions;
use serde::Deserialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::problem::Problem;
use crate::config::Limits;
use crate::engine::Engine;
use crate::error::ApiResult;
use crate::generation::{DefaultLength, SamplingFields, Stop};

/// Most tokens of a continuation if a request does not say it, as the protocol has it.
const DEFAULT_MAX_TOKENS: usize = 20;

/// How a text is continued. Where a field is left out, the settings of the checkpoint hold; without those a token is drawn at
/// temperature 1.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GenerateParameters {
    /// Most tokens of the continuation, at least 1; 20 by default.
    #[schema(minimum = 1)]
    max_tokens: Option<u64>,
    /// Divides the logits; 0 takes the most probable token.
    #[schema(minimum = 0)]
    temperature: Option<f64>,
    /// Draws from the fewest most probable tokens with this total probability.
    #[schema(minimum = 0, maximum = 1)]
    top_p: Option<f64>,
    /// Draws from so many most probable tokens; 0 or -1 for all.
    #[schema(minimum = -1)]
    top_k: Option<i64>,
    /// Draws from tokens with this share of the best one's probability.
    #[schema(minimum = 0, maximum = 1)]
    min_p: Option<f64>,
    /// The same seed gives the same continuation.
    seed: Option<i64>,
    /// Texts that end the continuation and are no part of it, at most 32.
    stop: Option<Stop>,
    /// Divides the positive logits, and multiplies the negative ones, of tokens that text or continuation have.
    #[schema(exclusive_minimum = 0)]
    repetition_penalty: Option<f64>,
    /// What the logit of a token loses if the continuation has it.
    presence_penalty: Option<f64>,
    /// What the logit of a token loses for each time that the continuation has it.
    frequency_penalty: Option<f64>,
    /// Whether the response has the reason of the end and the log-probabilities of the tokens; false by default.
    details: Option<bool>,
}

impl GenerateParameters {
    /// The options of the jobs of a request.
    ///
    /// # Errors
    /// Status 400 for a value that is not valid.
    pub(super) fn options(&self, engine: &Engine, limits: &Limits) -> ApiResult<GenerationOptions> {
        let fields = SamplingFields {
            max_tokens: self.max_tokens,
            temperature: self.temperature,
            top_p: self.top_p,
            top_k: self.top_k,
            min_p: self.min_p,
            seed: self.seed,
            stop: self.stop.clone(),
            repetition_penalty: self.repetition_penalty,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            log_probabilities: self.has_details().then_some(0),
            ..SamplingFields::default()
        };
        fields.options(engine, limits, DefaultLength::Tokens(DEFAULT_MAX_TOKENS))
    }

    pub(super) fn has_details(&self) -> bool {
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

    use super::InferParameters;
    use crate::generation::Stop;

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
