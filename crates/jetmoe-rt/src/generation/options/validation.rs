//! Valid values.

use super::{GenerationOptions, Sampling};
use crate::Result;
use crate::error::{at_least_one, check};

impl GenerationOptions {
    /// Checks every value. Generation calls this itself; call it earlier to reject options before a model is loaded.
    ///
    /// # Errors
    /// [`Error::Option`](crate::Error::Option) for the first invalid value.
    pub fn validate(&self) -> Result<()> {
        at_least_one("max_new_tokens", self.max_new_tokens)?;
        self.max_length.map_or(Ok(()), |length| at_least_one("max_length", length))?;
        for (option, penalty) in [
            ("repetition_penalty", self.repetition_penalty),
            ("encoder_repetition_penalty", self.encoder_repetition_penalty),
        ] {
            check(option, penalty, penalty > 0.0 && penalty.is_finite(), "a finite number above 0")?;
        }
        for (option, penalty) in
            [("presence_penalty", self.presence_penalty), ("frequency_penalty", self.frequency_penalty)]
        {
            check(option, penalty, penalty.is_finite(), "a finite number")?;
        }
        for (_, bias) in &self.sequence_bias {
            let expected = "a finite number, or negative infinity to exclude the token";
            check("sequence_bias", bias, *bias < f32::INFINITY, expected)?;
        }
        if let Some((_, factor)) = self.exponential_decay_length_penalty {
            check("exponential_decay_length_penalty", factor, factor.is_finite(), "a finite factor")?;
        }
        let no_stop_is_empty = !self.stop.iter().any(String::is_empty);
        check("stop", "an empty text", no_stop_is_empty, "texts of at least one character")?;
        at_least_one("prefill_chunk", self.prefill_chunk)?;
        self.prompt_lookup.map_or(Ok(()), |lookup| lookup.validate())?;
        match self.sampling {
            Sampling::Greedy => Ok(()),
            Sampling::Multinomial(multinomial) => multinomial.validate(),
        }
    }
}
