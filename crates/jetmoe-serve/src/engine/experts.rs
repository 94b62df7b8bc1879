//! Which experts the tokens of a step took, from the outputs of a graph whose routing is observed.

use jetmoe_rt::ndarray::Array2;
use jetmoe_rt::{Error, Model, OutputName, SlotsOutput};

use super::TokenExperts;

/// The routers of a model.
#[derive(Debug, Clone)]
pub(super) struct Experts {
    backend: String,
    layers: usize,
    /// Experts of each router.
    experts: usize,
    /// Experts that a token takes.
    per_token: usize,
}

/// The experts that the tokens of one part of a step took.
#[derive(Debug)]
pub(super) struct PartExperts {
    /// `[layers][2: attention, MLP]`, each `[tokens][k]`.
    routers: Vec<[Vec<Vec<u32>>; 2]>,
}

impl Experts {
    /// `None` for a model that was not loaded to observe its routing.
    pub(super) fn of(model: &Model) -> Option<Self> {
        let config = model.config();
        let outputs = &model.graph().signature().outputs;
        let has = |name: OutputName| outputs.iter().any(|output| output.name == name);
        let is_observed = (0..config.num_hidden_layers).all(|layer| {
            has(OutputName::AttentionRouterChoice(layer)) && has(OutputName::MlpRouterChoice(layer))
        });
        (is_observed && config.num_hidden_layers > 0).then(|| Experts {
            backend: model.backend(),
            layers: config.num_hidden_layers,
            experts: config.num_local_experts,
            per_token: config.num_experts_per_token,
        })
    }

    /// Layers of the model.
    pub(super) fn layers(&self) -> usize {
        self.layers
    }

    /// Experts of each router.
    pub(super) fn experts(&self) -> usize {
        self.experts
    }

    /// The experts of a part's tokens.
    ///
    /// # Errors
    /// [`Error::Logits`] for outputs that are no numbers of experts, or an error of the outputs.
    pub(super) fn read(&self, output: &SlotsOutput, part: usize) -> Result<PartExperts, Error> {
        let read = |name: OutputName| {
            let choice = output.get(name, part)?;
            choice.and_then(|choice| self.numbers(&choice)).ok_or_else(|| Error::Logits {
                backend: self.backend.clone(),
                problem: format!("{name} has no numbers of experts below {}", self.experts),
            })
        };
        let routers = (0..self.layers).map(|layer| {
            Ok([read(OutputName::AttentionRouterChoice(layer))?, read(OutputName::MlpRouterChoice(layer))?])
        });
        Ok(PartExperts { routers: routers.collect::<Result<_, Error>>()? })
    }

    /// Numbers of experts in `[tokens, 2k]`: the numbers, then their gates.
    fn numbers(&self, choice: &Array2<f32>) -> Option<Vec<Vec<u32>>> {
        if choice.ncols() != 2 * self.per_token {
            return None;
        }
        let is_expert =
            |number: &f32| *number >= 0.0 && *number < self.experts as f32 && number.fract() == 0.0;
        let rows = choice.rows().into_iter().map(|row| {
            let numbers = row.iter().take(self.per_token);
            numbers.map(|number| is_expert(number).then_some(*number as u32)).collect()
        });
        rows.collect()
    }
}

impl PartExperts {
    /// The experts of the last token.
    pub(super) fn last(&self) -> TokenExperts {
        let last = |router: &Vec<Vec<u32>>| router.last().cloned().unwrap_or_default();
        self.routers.iter().map(|[attention, mlp]| [last(attention), last(mlp)]).collect()
    }

    /// Calls `count` with layer, part (0 attention, 1 MLP) and expert of every assignment.
    pub(super) fn for_each(&self, mut count: impl FnMut(usize, usize, usize)) {
        for (layer, parts) in self.routers.iter().enumerate() {
            for (part, tokens) in parts.iter().enumerate() {
                for expert in tokens.iter().flatten() {
                    count(layer, part, *expert as usize);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use jetmoe_rt::ndarray::array;

    use super::*;

    #[test]
    fn numbers_are_those_of_experts_and_nothing_else() {
        let experts = Experts { backend: "fake".to_owned(), layers: 1, experts: 8, per_token: 2 };
        let found = experts.numbers(&array![[3.0, 7.0, 0.6, 0.4], [0.0, 1.0, 0.9, 0.1]]);
        assert_eq!(found, Some(vec![vec![3, 7], vec![0, 1]]));
        for bad in [8.0, -1.0, 0.5, f32::NAN] {
            assert_eq!(experts.numbers(&array![[bad, 1.0, 0.6, 0.4]]), None);
        }
        assert_eq!(experts.numbers(&array![[1.0, 0.6]]), None);
    }

    #[test]
    fn the_last_token_is_reported_and_all_are_counted() {
        let routers = vec![[vec![vec![1, 2], vec![3, 4]], vec![vec![5, 6], vec![7, 0]]]];
        let part = PartExperts { routers };
        assert_eq!(part.last()[..], [[vec![3, 4], vec![7, 0]]]);
        let mut counted = Vec::new();
        part.for_each(|layer, part, expert| counted.push((layer, part, expert)));
        assert_eq!(counted.len(), 8);
        assert!(counted.contains(&(0, 0, 1)) && counted.contains(&(0, 1, 0)));
    }
}
