//! `jetmoe routing`.

mod table;

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use jetmoe_artifact::{ObservedValue, Precision};
use jetmoe_observe::{
    RouterComparison, Routing as ObservedRouting, RoutingComparison, batch, compare, routing,
    routing_of_windows,
};
use jetmoe_rt::Model;
use jetmoe_view::{PageText, comparison_page, load_png, load_svg, margin_png, margin_svg, routing_page};
use serde::Serialize;

use super::observation::{Input, ObservationArguments, Tokens, as_cli_error};
use super::picture::PictureArguments;
use super::{ExitStatus, SCHEMA, json_line, without_padding};

/// Show which experts each token takes.
///
/// For the routers of every layer, in attention and in the MLP: load per expert, entropy, balance loss, and the margin by which
/// the last expert of a token was chosen. A small margin is one that rounding can change. A file is read in windows, if it has more
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
    #[command(flatten)]
    picture: PictureArguments,
    /// What --format svg and --format png draw [default: load]
    #[arg(long)]
    plot: Option<Plot>,
    /// How to show the routing.
    #[arg(long, default_value = "table")]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Tables, for people.
    Table,
    /// A page to explore in a browser: one file that requests nothing.
    Html,
    /// A heat map for pages and documents.
    Svg,
    /// A heat map of pixels.
    Png,
    /// JSON, for programs. The fields are stable and documented in docs/json.md.
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Plot {
    /// The load of each expert in every layer.
    Load,
    /// The margin of each token in every layer.
    Margin,
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
        self.refuse_options_without_effect([&input].into_iter().chain(&other_input))?;
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
        let plot = self.plot.unwrap_or(Plot::Load);
        match self.format {
            Format::Table => {
                let text = without_padding(&table::text(&result, self.tokens.then_some(&self.layers)));
                self.picture.write(text.as_bytes(), "table")?;
            }
            Format::Json => {
                let json = json_line(&result.report(&observation.model.model))?;
                self.picture.write(json.as_bytes(), "json")?;
            }
            Format::Html => self.picture.write(self.page(&result)?.as_bytes(), "html")?,
            Format::Svg => {
                let (routing, window) = (result.single("svg")?, self.picture.window());
                let svg = match plot {
                    Plot::Load => load_svg(routing)?,
                    Plot::Margin => margin_svg(routing, window)?,
                };
                self.picture.write(svg.as_bytes(), "svg")?;
            }
            Format::Png => {
                let (routing, window) = (result.single("png")?, self.picture.window());
                let png = match plot {
                    Plot::Load => load_png(routing)?,
                    Plot::Margin => margin_png(routing, window)?,
                };
                self.picture.write(&png, "png")?;
            }
        }
        Ok(ExitStatus::Success)
    }

    fn refuse_options_without_effect<'a>(
        &self,
        mut inputs: impl Iterator<Item = &'a Input>,
    ) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.window.is_none() || inputs.any(|input| matches!(input, Input::LongText(_))),
            "--window has no effect on texts and ids of the command line, which are read at once\n  write the text into a file for --file, or \
             leave --window out"
        );
        anyhow::ensure!(
            self.plot.is_none() || matches!(self.format, Format::Svg | Format::Png),
            "--plot has no effect without a picture\n  add --format svg or --format png, or leave --plot out"
        );
        anyhow::ensure!(
            !self.tokens || self.format == Format::Table,
            "--tokens has no effect without the tables\n  leave --tokens out: the page and the JSON have the experts of every token"
        );
        Ok(())
    }

    /// The page to explore a routing, or two.
    fn page(&self, result: &Observed) -> anyhow::Result<String> {
        let model = self.observation.model.model.clone();
        Ok(match result {
            Observed::Routing(routing) => routing_page(routing, &PageText { model, names: Vec::new() })?,
            Observed::Comparison(comparison) => {
                // two texts are told apart by how they begin, two graphs by their precision
                let names = match self.compare_model.is_some() || self.compare_precision.is_some() {
                    true => Vec::new(),
                    false => [&comparison.first, &comparison.second].map(beginning).to_vec(),
                };
                comparison_page(comparison, &PageText { model, names })?
            }
        })
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

/// The beginning of the first text of a routing.
fn beginning(routing: &ObservedRouting) -> String {
    const CHARACTERS: usize = 24;
    let tokens = routing.sequences.iter().flatten().filter(|token| !token.is_padding());
    let text: String = tokens.filter_map(|token| token.text.as_deref()).collect();
    match text.char_indices().nth(CHARACTERS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// What is printed.
enum Observed {
    Routing(ObservedRouting),
    Comparison(Box<RoutingComparison>),
}

impl Observed {
    /// The routing, for a format that shows one only.
    fn single(&self, format: &str) -> anyhow::Result<&ObservedRouting> {
        match self {
            Observed::Routing(routing) => Ok(routing),
            Observed::Comparison(_) => {
                anyhow::bail!(
                    "--format {format} draws one routing\n  compare two with --format html, table or json"
                )
            }
        }
    }

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
