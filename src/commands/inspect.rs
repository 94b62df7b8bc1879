//! `jetmoe inspect`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use clap::Args;
use jetmoe_artifact::{Artifact, MAX_GRAPH_BYTES, Manifest, Task};
use jetmoe_checkpoint::{Checkpoint, ModelConfig};
use jetmoe_console::{CellAlignment, HumanBytes, escape_line, model_folder, new_table};
use jetmoe_hub::{Content, ModelSource};
use jetmoe_onnx::{self as onnx, DataLocation, DataType, DimensionValue, MAX_ONNX_BYTES};
use jetmoe_rt::{LoadOptions, backends};
use serde::Serialize;

use super::{ExitStatus, Format, SCHEMA};

/// Show what a model holds: tasks, inputs, outputs, operators, parameters, sizes.
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// Artifact, checkpoint folder, hub id (owner/name), or any ONNX file.
    #[arg(value_name = "DIR|FILE.onnx")]
    path: String,
    /// Branch, tag or commit of a hub id.
    #[arg(long, value_name = "REVISION")]
    revision: Option<String>,
    /// Print tables or JSON.
    #[arg(long, default_value = "table")]
    format: Format,
}

/// The form of `--format json`, documented in docs/json.md.
#[derive(Serialize)]
struct Report {
    schema_version: u32,
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    manifest: Option<Manifest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    checkpoint: Option<CheckpointFacts>,
    graphs: Vec<GraphFacts>,
    /// Memory that the graphs of an artifact take in every backend that can run them.
    memory: Vec<MemoryFacts>,
}

#[derive(Serialize)]
struct MemoryFacts {
    graph: String,
    backend: String,
    bytes: u64,
}

#[derive(Serialize)]
struct CheckpointFacts {
    /// What it was trained for.
    task: Task,
    layers: usize,
    hidden_size: usize,
    key_value_heads: usize,
    kv_channels: usize,
    intermediate_size: usize,
    experts: usize,
    experts_per_token: usize,
    vocab_size: usize,
    positions: usize,
    parameters: u64,
    /// Parameters that one token uses: of the experts, only those it is routed to.
    parameters_per_token: u64,
    bytes: u64,
}

#[derive(Serialize)]
struct GraphFacts {
    file: String,
    ir_version: i64,
    opsets: BTreeMap<String, i64>,
    producer: String,
    inputs: Vec<TensorFacts>,
    outputs: Vec<TensorFacts>,
    /// Number of nodes per operator. Operators outside the standard domain have their domain as prefix.
    operators: BTreeMap<String, usize>,
    nodes: usize,
    parameters: u64,
    graph_bytes: u64,
    external_bytes: u64,
}

#[derive(Serialize)]
struct TensorFacts {
    name: String,
    r#type: String,
    shape: Vec<Size>,
}

/// Size of a dimension: a number, the name of a dynamic one, or null if the graph does not say.
#[derive(Serialize)]
#[serde(untagged)]
enum Size {
    Fixed(i64),
    Named(String),
    Unknown,
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Size::Fixed(size) => size.fmt(f),
            Size::Named(name) => f.write_str(name),
            Size::Unknown => f.write_str("?"),
        }
    }
}

impl Inspect {
    pub(crate) fn execute(self) -> anyhow::Result<ExitStatus> {
        let report = self.report()?;
        self.format.print(&report, || text(&report))?;
        Ok(ExitStatus::Success)
    }

    fn report(&self) -> anyhow::Result<Report> {
        let mut report = Report {
            schema_version: SCHEMA,
            path: self.path.clone(),
            manifest: None,
            checkpoint: None,
            graphs: Vec::new(),
            memory: Vec::new(),
        };
        let path = Path::new(&self.path);
        if path.is_file() {
            anyhow::ensure!(
                self.revision.is_none(),
                "--revision is for a hub id, and {} is a file",
                self.path
            );
            report.graphs.push(graph_facts(path, MAX_ONNX_BYTES)?);
            return Ok(report);
        }
        let folder = model_folder(&ModelSource::parse(&self.path)?, self.revision.clone(), Content::Any)?;
        if Artifact::is_artifact(&folder) {
            let artifact = Artifact::open(&folder)?;
            for graph in &artifact.manifest().graphs {
                report.graphs.push(graph_facts(&artifact.path(&graph.graph), MAX_GRAPH_BYTES)?);
            }
            report.memory = memory_facts(artifact.manifest());
            report.manifest = Some(artifact.manifest().clone());
        } else {
            report.checkpoint = Some(checkpoint_facts(&Checkpoint::open(&folder)?));
        }
        Ok(report)
    }
}

/// Memory that every graph of an artifact takes in the backends that can run it.
fn memory_facts(manifest: &Manifest) -> Vec<MemoryFacts> {
    let options = LoadOptions::default();
    let facts = manifest.graphs.iter().flat_map(|graph| {
        backends().iter().filter(|backend| backend.supports(graph, &options).is_yes()).map(|backend| {
            MemoryFacts {
                graph: graph.graph.path.clone(),
                backend: backend.name().to_owned(),
                bytes: backend.estimate_memory(graph, &options),
            }
        })
    });
    facts.collect()
}

fn checkpoint_facts(checkpoint: &Checkpoint) -> CheckpointFacts {
    let config = checkpoint.config();
    let parameters = checkpoint.tensors().parameters();
    CheckpointFacts {
        task: Task::of_architecture(config.architecture),
        layers: config.num_hidden_layers,
        hidden_size: config.hidden_size,
        key_value_heads: config.num_key_value_heads,
        kv_channels: config.kv_channels,
        intermediate_size: config.intermediate_size,
        experts: config.num_local_experts,
        experts_per_token: config.num_experts_per_token,
        vocab_size: config.vocab_size,
        positions: config.max_position_embeddings,
        parameters,
        parameters_per_token: parameters - unused_expert_parameters(config),
        bytes: checkpoint.tensors().size_in_bytes(),
    }
}

/// Parameters of the experts that a token is not routed to.
fn unused_expert_parameters(config: &ModelConfig) -> u64 {
    let per_expert = config.hidden_size * (2 * config.kv_width() + 3 * config.intermediate_size);
    let unused = config.num_local_experts - config.num_experts_per_token;
    (config.num_hidden_layers * unused * per_expert) as u64
}

/// Facts about a graph file of at most `limit` bytes.
fn graph_facts(path: &Path, limit: u64) -> anyhow::Result<GraphFacts> {
    let model = onnx::read_up_to(path, limit)?;
    let graph = model.graph.unwrap_or_default();
    let mut operators = BTreeMap::new();
    for node in &graph.node {
        let operator = node.op_type.as_deref().unwrap_or("?");
        let name = match node.domain.as_deref() {
            None | Some("" | "ai.onnx") => operator.to_owned(),
            Some(domain) => format!("{domain}.{operator}"),
        };
        *operators.entry(name).or_insert(0) += 1;
    }
    let external =
        graph.initializer.iter().filter(|tensor| tensor.data_location == Some(DataLocation::External as i32));
    let external_bytes = external
        .flat_map(|tensor| &tensor.external_data)
        .filter(|entry| entry.key.as_deref() == Some("length"))
        .filter_map(|entry| entry.value.as_deref()?.parse::<u64>().ok())
        .fold(0, u64::saturating_add);
    let opsets = model.opset_import.into_iter().map(|set| {
        let domain = set.domain.filter(|domain| !domain.is_empty()).unwrap_or_else(|| "ai.onnx".to_owned());
        (domain, set.version.unwrap_or(0))
    });
    Ok(GraphFacts {
        file: path.display().to_string(),
        ir_version: model.ir_version.unwrap_or(0),
        opsets: opsets.collect(),
        producer: [model.producer_name, model.producer_version]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(" "),
        inputs: graph.input.iter().map(tensor_facts).collect(),
        outputs: graph.output.iter().map(tensor_facts).collect(),
        operators,
        nodes: graph.node.len(),
        parameters: graph
            .initializer
            .iter()
            .map(|tensor| elements(&tensor.dims))
            .fold(0, u64::saturating_add),
        graph_bytes: std::fs::metadata(path)?.len(),
        external_bytes,
    })
}

/// Elements of a tensor; a graph may name any sizes.
fn elements(dimensions: &[i64]) -> u64 {
    let sizes = dimensions.iter().map(|size| u64::try_from(*size).unwrap_or(0));
    sizes.fold(1, u64::saturating_mul)
}

fn tensor_facts(info: &onnx::ValueInfo) -> TensorFacts {
    let tensor = info.r#type.as_ref().and_then(|kind| kind.tensor_type.as_ref());
    let element =
        tensor.and_then(|tensor| tensor.elem_type).and_then(|number| DataType::try_from(number).ok());
    let dimensions =
        tensor.and_then(|tensor| tensor.shape.as_ref()).map(|shape| shape.dim.as_slice()).unwrap_or_default();
    TensorFacts {
        name: info.name.clone().unwrap_or_default(),
        r#type: element.map_or("?".to_owned(), |element| match element {
            DataType::Float => "float32".to_owned(),
            DataType::Double => "float64".to_owned(),
            other => format!("{other:?}").to_lowercase(),
        }),
        shape: dimensions
            .iter()
            .map(|dimension| match &dimension.value {
                Some(DimensionValue::DimValue(size)) => Size::Fixed(*size),
                Some(DimensionValue::DimParam(name)) => Size::Named(name.clone()),
                None => Size::Unknown,
            })
            .collect(),
    }
}

fn text(report: &Report) -> String {
    // what comes from a file is one line, whatever it holds
    let mut text = format!("{}\n", escape_line(&report.path));
    if let Some(facts) = &report.checkpoint {
        text.push_str(&checkpoint_text(facts));
    }
    if let Some(manifest) = &report.manifest {
        text.push_str(&format!(
            "artifact by jetmoe-export {}\nof {} ({})\n",
            escape_line(&manifest.tool_version),
            escape_line(&manifest.checkpoint.source),
            manifest.checkpoint.digest
        ));
        for graph in &manifest.graphs {
            let names = |passed: bool| {
                let matching = graph.verification.iter().filter(|record| record.passed == passed);
                matching.map(|record| escape_line(&record.backend)).collect::<Vec<_>>().join(", ")
            };
            let verification = match (
                graph.verification.is_empty(),
                graph.verification.iter().all(|record| record.passed),
            ) {
                (true, _) => "not verified".to_owned(),
                (false, true) => format!("verified with {}", names(true)),
                (false, false) => format!("FAILED verification with {}", names(false)),
            };
            text.push_str(&format!(
                "{}: {}, {}, {}, {verification}\n",
                escape_line(&graph.graph.path),
                graph.task,
                graph.precision,
                graph.profile
            ));
            let memory = report.memory.iter().filter(|memory| memory.graph == graph.graph.path);
            let memory: Vec<String> =
                memory.map(|memory| format!("{} in {}", HumanBytes(memory.bytes), memory.backend)).collect();
            text.push_str(&format!("  estimated memory: {}\n", memory.join(", ")));
        }
    }
    for graph in &report.graphs {
        text.push_str(&graph_text(graph));
    }
    text
}

fn checkpoint_text(facts: &CheckpointFacts) -> String {
    let mut table = new_table();
    for (name, value) in [
        ("trained for", facts.task.to_string()),
        ("layers", facts.layers.to_string()),
        ("hidden size", facts.hidden_size.to_string()),
        ("key/value heads", format!("{} × {}", facts.key_value_heads, facts.kv_channels)),
        ("intermediate size", facts.intermediate_size.to_string()),
        ("experts", format!("{}, {} per token", facts.experts, facts.experts_per_token)),
        ("vocabulary", facts.vocab_size.to_string()),
        ("positions", facts.positions.to_string()),
        (
            "parameters",
            format!("{}, {} per token", count(facts.parameters), count(facts.parameters_per_token)),
        ),
        ("size", HumanBytes(facts.bytes).to_string()),
    ] {
        table.add_row([name.to_owned(), value]);
    }
    format!("checkpoint\n{table}\n")
}

fn graph_text(graph: &GraphFacts) -> String {
    let opsets: Vec<String> =
        graph.opsets.iter().map(|(domain, version)| format!("{} {version}", escape_line(domain))).collect();
    let mut text = format!(
        "\n{}\nIR version {}, {}, by {}\n{} parameters, graph {}, external data {}\n",
        escape_line(&graph.file),
        graph.ir_version,
        opsets.join(", "),
        if graph.producer.is_empty() { "an unnamed program".into() } else { escape_line(&graph.producer) },
        count(graph.parameters),
        HumanBytes(graph.graph_bytes),
        HumanBytes(graph.external_bytes),
    );
    for (title, tensors) in [("inputs", &graph.inputs), ("outputs", &graph.outputs)] {
        let mut table = new_table();
        table.set_header([title, "type", "shape"]);
        for tensor in tensors {
            let shape: Vec<String> = tensor.shape.iter().map(ToString::to_string).collect();
            let shape = format!("[{}]", escape_line(&shape.join(", ")));
            table.add_row([escape_line(&tensor.name).into_owned(), tensor.r#type.clone(), shape]);
        }
        text.push_str(&format!("\n{table}\n"));
    }
    let mut table = new_table();
    table.set_header(["operator", "nodes"]);
    for (operator, uses) in &graph.operators {
        table.add_row([escape_line(operator).into_owned(), uses.to_string()]);
    }
    table.add_row(["total".to_owned(), graph.nodes.to_string()]);
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    text.push_str(&format!("\n{table}\n"));
    text
}

/// A large number in short form: 4.6 M, 8.5 B.
fn count(number: u64) -> String {
    let number = number as f64;
    match number {
        _ if number >= 1e9 => format!("{:.1} B", number / 1e9),
        _ if number >= 1e6 => format!("{:.1} M", number / 1e6),
        _ if number >= 1e4 => format!("{:.0} k", number / 1e3),
        _ => format!("{number}"),
    }
}
