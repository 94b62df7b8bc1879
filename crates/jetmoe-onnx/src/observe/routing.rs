//! What the routers compute: logits of all experts, the chosen experts, and their gates.

use jetmoe_artifact::{CacheUpdate, ElementType, InputName, OutputName, OutputSpec};
use jetmoe_checkpoint::ModelConfig;
use jetmoe_format::CustomOperator;

use super::{Editor, Found, integer};

/// The values of a router, one row per token.
struct Router {
    /// `[tokens, experts]`, float32
    logits: String,
    /// `[tokens, k]`, int64
    experts: String,
    /// `[tokens, k]`
    gates: String,
}

/// Adds the outputs of `added` that belong to routers.
pub(super) fn add(
    editor: &mut Editor<'_>,
    config: &ModelConfig,
    cache_update: CacheUpdate,
    added: &[OutputSpec],
) -> Found {
    let order = match cache_update {
        CacheUpdate::Append | CacheUpdate::InPlaceByMask => None,
        CacheUpdate::InPlace => Some(order_of_rows(editor)?),
    };
    let is_added = |name: OutputName| added.iter().any(|output| output.name == name);
    let tokens = editor.sizes(InputName::InputIds, 0, 2); // [2]
    let per_token = |editor: &mut Editor<'_>, width: usize| {
        let width = editor.vector(&[width as i64]);
        editor.concat(&[&tokens, &width], 0) // [3]
    };
    let choice_shape = per_token(editor, 2 * config.num_experts_per_token);
    let logits_shape = per_token(editor, config.num_local_experts);
    for layer in 0..config.num_hidden_layers {
        let attention = (
            "self_attention",
            OutputName::AttentionRouterLogits(layer),
            OutputName::AttentionRouterChoice(layer),
        );
        let mlp = ("mlp", OutputName::MlpRouterLogits(layer), OutputName::MlpRouterChoice(layer));
        for (part, logits_name, choice_name) in [attention, mlp] {
            let router = find(editor, &format!("layers.{layer}/{part}/router/"))?;
            let experts = editor.cast(&router.experts, ElementType::Float32);
            let gates = editor.cast(&router.gates, ElementType::Float32);
            let choice = editor.concat(&[&experts, &gates], 1); // [tokens, 2 * k]
            let mut output = |rows: &str, shape: &str, name: OutputName| {
                let rows = match &order {
                    None => rows.to_owned(),
                    Some(order) => editor.node("Gather", &[rows, order], vec![integer("axis", 0)]),
                };
                editor.named_node("Reshape", &[&rows, shape], Vec::new(), vec![name.to_string()]);
            };
            output(&choice, &choice_shape, choice_name);
            // an artifact may have been exported with this output
            if is_added(logits_name) {
                output(&router.logits, &logits_shape, logits_name);
            }
        }
    }
    Ok(())
}

/// The router of a scope: one custom operator, or several.
fn find(editor: &Editor<'_>, scope: &str) -> Found<Router> {
    let custom = editor.find(scope, "Router", |node| {
        node.op_type() == CustomOperator::Router.name() && node.output.len() == 3
    });
    if let Ok(node) = custom {
        let [logits, experts, gates] = [0, 1, 2].map(|index| node.output[index].clone());
        return Ok(Router { logits, experts, gates });
    }
    let top_k = editor.find(scope, "TopK", |node| {
        node.op_type() == "TopK" && node.output.len() == 2 && !node.input.is_empty()
    })?;
    let reads = |name: &str, value: &str| {
        editor.find(scope, name, |node| {
            node.op_type() == name && node.input.first().is_some_and(|input| input == value)
        })
    };
    let softmax = reads("Softmax", &top_k.output[0])?;
    let gates = softmax.output.first().cloned().unwrap_or_default();
    // gates have the element type of the activations
    let gates = match reads("Cast", &gates) {
        Ok(cast) => cast.output.first().cloned().unwrap_or_default(),
        Err(_) => gates,
    };
    Ok(Router { logits: top_k.input[0].clone(), experts: top_k.output[1].clone(), gates })
}

/// The indices that move rows back where the caller has them, int64 `[tokens]`: those by which the rows of the last norm are
/// gathered.
fn order_of_rows(editor: &Editor<'_>) -> Found<String> {
    const SCOPE: &str = "padding/";
    let gather = editor.find(SCOPE, "Gather of the results", |node| {
        node.op_type() == "Gather" && node.input.len() == 2 && !node.input[0].starts_with(SCOPE)
    })?;
    Ok(gather.input[1].clone())
}
