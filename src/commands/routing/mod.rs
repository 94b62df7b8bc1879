//! `jetmoe routing`.

mod table;

use std::path::PathBuf;

use clap::Args;
use jetmoe_artifact::{ObservedValue, Precision};
use jetmoe_observe::{
    RouterComparison, Routing as ObservedRouting, RoutingComparison, batch, compare, routing,
    routing_of_windows,
};
use jetmoe_rt::Model;
use serde::Serialize;

use super::observation::{Input, ObservationArguments, Tokens, as_cli_error};
use super::{ExitStatus, Format, SCHEMA, print_json_line, print_table};

/// Show which experts each token takes.
///
/// For the routers of every layer, in attention and in the MLP: load per expert, entropy, balance loss, and the margin by which
/// the last expert of a token was chosen. A small margin is one that rounding can turn. A file is read in windows, if it has more
/// tokens than the model has positions.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  jetmoe routing --model artifact \"In the beginning\"\n  \
                  jetmoe routing --model artifact --file book.txt --compare-precision q4")]
pub(crate) struct Routing {
    #[command(flatten)]
    observation: ObservationArguments,
    /// Tokens of each window of a file or of standard input [default: the positions of the model]
    #[arg(long, value_name = "N")]
    window: Option<usize>,
    /// Compare with another text.
    #[arg(long, value_name = "TEXT", help_heading = COMPARISON)]
    compare: Option<String>,
    /// Compare with the text of a file.
    #[arg(long, value_name = "FILE", conflicts_with = "compare", help_heading = COMPARISON)]
    compare_file: Option<PathBuf>,
    /// Compare with another artifact.
    #[arg(long, value_name = "DIR", help_heading = COMPARISON)]
    compare_model: Option<String>,
    /// Compare with another graph of the artifact, by its precision.
    #[arg(long, value_name = "PRECISION", help_heading = COMPARISON)]
    compare_precision: Option<Precision>,
    /// Print the experts of every token too.
    #[arg(long)]
    tokens: bool,
    /// Layers whose experts --tokens prints, as in 0,11,23 [default: all]
    #[arg(long, value_name = "LIST", value_delimiter = ',', requires = "tokens")]
    layers: Vec<usize>,
    /// Print tables or JSON.
    #[arg(long, default_value = "table")]
    format: Format,
}

const COMPARISON: &str = "Comparison";

/// The form of `--format json`, documented in docs/json.md.
#[derive(Serialize)]
struct Report<'a> {
    schema_version: u32,
    model: &'a str,
    routings: Vec<&'a ObservedRouting>,
    comparison: Option<Compared<'a>>,
}

/// The comparison of two routings, without these.
#[derive(Serialize)]
struct Compared<'a> {
    same_tokens: bool,
    agreement: Option<f64>,
    routers: &'a [RouterComparison],
}

impl Routing {
    pub(crate) fn execute(self) -> anyhow::Result<ExitStatus> {
        let observation = &self.observation;
        let input = observation.read_input()?;
        let other_input = self.other_input()?;
        let model = observation.load(&observation.model, ObservedValue::Routing)?;
        if let Some(layer) = self.layers.iter().find(|layer| **layer >= model.config().num_hidden_layers) {
            let layers = model.config().num_hidden_layers;
            anyhow::bail!("--layers has {layer}, and the model has layers 0 to {}", layers - 1);
        }
        let first = self.observe(&model, &input)?;
        let other_model = self.load_other_model()?;
        let result = if other_input.is_some() || other_model.is_some() {
            let model = other_model.as_ref().unwrap_or(&model);
            let second = self.observe(model, other_input.as_ref().unwrap_or(&input))?;
            Observed::Comparison(Box::new(compare(first, second)?))
        } else {
            Observed::Routing(first)
        };
        match self.format {
            Format::Table => print_table(&table::text(&result, self.tokens.then_some(&self.layers)))?,
            Format::Json => print_json_line(&result.report(&observation.model.model))?,
        }
        Ok(ExitStatus::Success)
    }

    fn observe(&self, model: &Model, input: &Input) -> anyhow::Result<ObservedRouting> {
        let steps = self.observation.steps();
        let observed = match input.tokens(model)? {
            Tokens::Batch(sequences) => routing(model, &batch(model, &sequences)?, &steps),
            Tokens::LongText(ids) => {
                routing_of_windows(model, &ids, self.window.unwrap_or(usize::MAX), &steps)
            }
        };
        observed.map_err(as_cli_error)
    }

    /// The other text to compare with.
    fn other_input(&self) -> anyhow::Result<Option<Input>> {
        match (&self.compare, &self.compare_file) {
            (Some(text), _) => Ok(Some(Input::LongText(text.clone()))),
            (None, Some(file)) => Ok(Some(Input::of_file(file)?)),
            (None, None) => Ok(None),
        }
    }

    /// The other artifact or graph to compare with.
    fn load_other_model(&self) -> anyhow::Result<Option<Model>> {
        if self.compare_model.is_none() && self.compare_precision.is_none() {
            return Ok(None);
        }
        let arguments = &self.observation.model;
        let folder = self.compare_model.clone().unwrap_or_else(|| arguments.model.clone());
        let arguments = arguments.with_model(folder, self.compare_precision);
        Ok(Some(self.observation.load(&arguments, ObservedValue::Routing)?))
    }
}

/// What is printed.
enum Observed {
    Routing(ObservedRouting),
    Comparison(Box<RoutingComparison>),
}

impl Observed {
    fn report<'a>(&'a self, model: &'a str) -> Report<'a> {
        let (routings, comparison) = match self {
            Observed::Routing(routing) => (vec![routing], None),
            Observed::Comparison(comparison) => {
                let RoutingComparison { first, second, same_tokens, agreement, routers } = &**comparison;
                let compared = Compared { same_tokens: *same_tokens, agreement: *agreement, routers };
                (vec![first, second], Some(compared))
            }
        };
        Report { schema_version: SCHEMA, model, routings, comparison }
    }
}
