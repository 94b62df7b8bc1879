//! What a seed selects: a model, a kind of mutation and a command.

use jetmoe_fuzz::Choices;

use super::bases::{BASES, Base, BaseKind};

/// What is mutated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutator {
    Manifest,
    Config,
    Tokenizer,
    Template,
    Graph,
    Safetensors,
    Weights,
    Files,
    Output,
}

/// A backend that a command runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Backend {
    Ort,
    Tract,
    Reference,
}

/// A command, without its paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Run(Backend),
    Chat(Backend),
    Classify(Backend),
    Verify(Backend),
    Inspect,
    InspectGraph,
    Export,
    ExportVerify,
}

/// What a seed selects.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) base: &'static Base,
    pub(crate) mutator: Mutator,
    pub(crate) action: Action,
}

/// Every kind of mutation, as often as it is selected.
const WEIGHTED: [Mutator; 27] = {
    use Mutator::*;
    [
        Manifest,
        Manifest,
        Manifest,
        Config,
        Config,
        Config,
        Tokenizer,
        Tokenizer,
        Tokenizer,
        Template,
        Template,
        Graph,
        Graph,
        Graph,
        Graph,
        Graph,
        Graph,
        Graph,
        Safetensors,
        Safetensors,
        Safetensors,
        Weights,
        Files,
        Files,
        Files,
        Output,
        Output,
    ]
};

impl Plan {
    pub(crate) fn choose(choices: &mut Choices<'_>) -> Option<Self> {
        let mutator = *choices.pick(&WEIGHTED)?;
        let bases: Vec<&'static Base> = BASES.iter().filter(|base| mutator.applies_to(base)).collect();
        let base = *choices.pick(&bases)?;
        let action = *choices.pick(&actions(base, mutator))?;
        Some(Plan { base, mutator, action })
    }
}

impl Mutator {
    /// Its row in the tables, and its key in the results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Mutator::Manifest => "manifest",
            Mutator::Config => "config",
            Mutator::Tokenizer => "tokenizer",
            Mutator::Template => "template",
            Mutator::Graph => "graph",
            Mutator::Safetensors => "safetensors",
            Mutator::Weights => "weights",
            Mutator::Files => "files",
            Mutator::Output => "output",
        }
    }

    fn applies_to(self, base: &Base) -> bool {
        let is_checkpoint = base.kind == BaseKind::Checkpoint;
        match self {
            Mutator::Manifest | Mutator::Graph | Mutator::Weights => !is_checkpoint,
            Mutator::Safetensors | Mutator::Output => is_checkpoint,
            Mutator::Tokenizer | Mutator::Template => base.has_tokenizer,
            Mutator::Config | Mutator::Files => true,
        }
    }
}

/// Commands that read what is mutated.
fn actions(base: &Base, mutator: Mutator) -> Vec<Action> {
    use Action::{Chat, Classify, Export, ExportVerify, Inspect, InspectGraph, Run, Verify};
    use Backend::{Ort, Reference, Tract};
    let on = |action: fn(Backend) -> Action| match base.kind {
        BaseKind::Checkpoint => vec![action(Reference)],
        BaseKind::Artifact(_) => vec![action(Ort), action(Tract)],
    };
    let compute = || on(if base.is_classifier { Classify } else { Run });
    match (mutator, base.kind) {
        (Mutator::Output, _) => vec![Export],
        (Mutator::Template, _) if !base.is_classifier => [on(Chat), on(Chat), vec![Inspect]].concat(),
        (Mutator::Tokenizer, _) if !base.is_classifier => {
            [on(Run), on(Run), on(Chat), vec![Inspect]].concat()
        }
        (_, BaseKind::Checkpoint) if !base.has_tokenizer => vec![Inspect, Export, ExportVerify],
        (_, BaseKind::Checkpoint) => [compute(), vec![Inspect, Export, Export, ExportVerify]].concat(),
        (Mutator::Graph, BaseKind::Artifact(_)) => {
            [compute(), compute(), compute(), on(Verify), vec![Inspect, InspectGraph]].concat()
        }
        (_, BaseKind::Artifact(_)) => [compute(), compute(), on(Verify), vec![Inspect]].concat(),
    }
}

impl Backend {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Backend::Ort => "ort",
            Backend::Tract => "tract",
            Backend::Reference => "reference",
        }
    }
}

impl Action {
    /// Its row in the table of counts, and its key in the results.
    pub(crate) fn name(self) -> String {
        match self {
            Action::Run(backend) => format!("run {}", backend.name()),
            Action::Chat(backend) => format!("run --chat {}", backend.name()),
            Action::Classify(backend) => format!("classify {}", backend.name()),
            Action::Verify(backend) => format!("verify {}", backend.name()),
            Action::Inspect => "inspect".to_owned(),
            Action::InspectGraph => "inspect FILE.onnx".to_owned(),
            Action::Export => "export".to_owned(),
            Action::ExportVerify => "export --verify".to_owned(),
        }
    }

    /// Whether it prints a text that a model generated.
    pub(crate) fn prints_text(self) -> bool {
        matches!(self, Action::Run(_) | Action::Chat(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_select_every_mutator_and_every_command() {
        let plans: Vec<Plan> =
            (0..3000).map(|seed| Plan::choose(&mut Choices::of_seed(seed)).unwrap()).collect();
        for mutator in WEIGHTED {
            assert!(plans.iter().any(|plan| plan.mutator == mutator), "{mutator:?}");
        }
        for base in &BASES {
            assert!(plans.iter().any(|plan| plan.base.name == base.name), "{base:?}");
        }
        let actions: std::collections::BTreeSet<_> = plans.iter().map(|plan| plan.action.name()).collect();
        assert_eq!(actions.len(), 15, "{actions:?}");
    }
}
