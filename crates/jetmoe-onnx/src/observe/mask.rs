//! What attention masks: a value of the graph, or what an operator that masks inside does to equal keys.

use jetmoe_artifact::{ElementType, InputName, OutputName};
use jetmoe_checkpoint::ModelConfig;
use jetmoe_format::Attribute::{KvCache, KvHeads};
use jetmoe_format::{CacheFormat, CustomOperator, DOMAIN, Operand, SEQUENCE_NUMBERS};

use super::{Editor, Found, Missing, integer, text};
use crate::{MICROSOFT, Node};

/// Adds the bias that all layers add to their scores, `[batch, 1, sequence, total]`.
pub(super) fn add_bias(editor: &mut Editor<'_>, config: &ModelConfig) -> Found {
    let biases = (0..config.num_hidden_layers).map(|layer| bias_of_layer(editor, layer));
    let bias = same_in_all_layers(biases.collect::<Found<Vec<_>>>()?, "bias of the scores")?;
    // the queries of a token are one behind the other, and have copies of one bias
    let concat =
        editor.graph.node.iter().find(|node| node.op_type() == "Concat" && node.output.contains(&bias));
    let of_one_expert = match concat {
        None if config.num_experts_per_token == 1 => bias,
        Some(Node { input, .. }) if input.len() == config.num_experts_per_token => {
            same_in_all_layers(input.clone(), "bias of the queries of a token")?
        }
        _ => return Err(Missing("no bias for each query of a token".to_owned())),
    };
    let name = OutputName::AttentionBias.to_string();
    editor.named_node("Identity", &[&of_one_expert], Vec::new(), vec![name]);
    Ok(())
}

/// The operand that is added to the scores before the softmax.
fn bias_of_layer(editor: &Editor<'_>, layer: usize) -> Found<String> {
    let scope = scope(layer);
    let softmax =
        editor.find(&scope, "Softmax", |node| node.op_type() == "Softmax" && !node.input.is_empty())?;
    let scores = &softmax.input[0];
    let add = editor.find(&scope, "Add before the Softmax", |node| {
        node.op_type() == "Add" && node.input.len() == 2 && node.output.contains(scores)
    })?;
    Ok(add.input[1].clone())
}

fn scope(layer: usize) -> String {
    format!("layers.{layer}/self_attention/attention/")
}

fn same_in_all_layers<T: PartialEq>(values: Vec<T>, what: &str) -> Found<T> {
    let mut values = values.into_iter();
    let first = values.next().ok_or_else(|| Missing(format!("no {what}")))?;
    match values.all(|value| value == first) {
        true => Ok(first),
        false => Err(Missing(format!("not one {what}, but several"))),
    }
}

/// Places of the cache that a head of the added operator is a multiple of, as ONNX Runtime requires.
const WIDTH_UNIT: i64 = 8;

/// Adds an attention operator like those of the layers: it reads the same lengths, which are all that it masks by. All its
/// keys are equal, and the value of a key is 1 in the channel of the key's place and 0 in all others, so that a result is the
/// weight of each key: the same for all that a query attends to, and 0 for the others. `[batch, sequence, width]`, where the
/// width is that of the attention mask, rounded up.
pub(super) fn add_operator(editor: &mut Editor<'_>, config: &ModelConfig) -> Found {
    let operators = (0..config.num_hidden_layers).map(|layer| operator_of_layer(editor, layer));
    let (lengths, attributes) = same_in_all_layers(operators.collect::<Found<Vec<_>>>()?, "way of masking")?;
    let [last_places, longest] = &lengths;
    let element = element_of_cache(editor)?;

    let total = editor.sizes(InputName::AttentionMask, 1, 2); // [1]
    let tokens = editor.sizes(InputName::InputIds, 0, 2); // [2]
    let batch = editor.sizes(InputName::InputIds, 0, 1); // [1]
    let sequence = editor.sizes(InputName::InputIds, 1, 2); // [1]
    let width = width_for(editor, &total); // [1]
    let channels = editor.range(&width); // [width]

    let shape = editor.concat(&[&tokens, &width], 0);
    let equal = editor.zeros(&shape, element); // [batch, sequence, width]
    let one = editor.vector(&[1]);
    let shape = editor.concat(&[&batch, &one, &total, &width], 0);
    let past_key = editor.zeros(&shape, element); // [batch, 1, total, width]
    let places = editor.range(&total); // [total]
    let places = editor.unsqueeze(&places, 1); // [total, 1]
    let marks = editor.node("Equal", &[&places, &channels], Vec::new()); // [total, width]
    let marks = editor.cast(&marks, element);
    let past_value = editor.node("Expand", &[&marks, &shape], Vec::new()); // [batch, 1, total, width]

    // new tokens are at the places up to the last one
    let places = editor.cast(last_places, ElementType::Int64); // [batch]
    let places = editor.node("Add", &[&places, &one], Vec::new());
    let places = editor.node("Sub", &[&places, &sequence], Vec::new()); // [batch]
    let places = editor.unsqueeze(&places, 1); // [batch, 1]
    let steps = editor.range(&sequence); // [sequence]
    let places = editor.node("Add", &[&places, &steps], Vec::new()); // [batch, sequence]
    let places = editor.unsqueeze(&places, 2); // [batch, sequence, 1]
    let marks = editor.node("Equal", &[&places, &channels], Vec::new()); // [batch, sequence, width]
    let value = editor.cast(&marks, element);

    let attended = editor.node(
        OPERATOR,
        &[&equal, &equal, &value, &past_key, &past_value, last_places, longest],
        [attributes, vec![integer("num_heads", 1), integer("kv_num_heads", 1)]].concat(),
    );
    if let Some(node) = editor.nodes.last_mut() {
        node.domain = Some(MICROSOFT.to_owned());
        node.output.extend(["key", "value"].map(|part| format!("{attended}_{part}")));
    }
    let name = OutputName::AttendedKeys.to_string();
    let to = vec![integer("to", ElementType::Float32 as i64)];
    editor.named_node("Cast", &[&attended], to, vec![name]);
    Ok(())
}

/// As [`add_operator`], with our own operator, which masks by the mask itself.
pub(super) fn add_custom_operator(editor: &mut Editor<'_>, config: &ModelConfig) -> Found {
    let schema = CustomOperator::Attention.schema();
    let name = schema.operator.name();
    let mask_of_layer = |layer| {
        let is_custom = |node: &Node| node.domain() == DOMAIN && node.op_type() == name;
        let mask = schema.find(&editor.find(&scope(layer), name, is_custom)?.input, Operand::AttentionMask);
        mask.cloned().ok_or_else(|| Missing(format!("no mask of {name}")))
    };
    let masks = (0..config.num_hidden_layers).map(mask_of_layer).collect::<Found<Vec<_>>>()?;
    let mask = same_in_all_layers(masks, "way of masking")?;

    let total = editor.sizes(InputName::AttentionMask, 1, 2); // [1]
    let batch = editor.sizes(InputName::InputIds, 0, 1); // [1]
    let sequence = editor.sizes(InputName::InputIds, 1, 2); // [1]
    let width = width_for(editor, &total); // [1]
    let channels = editor.range(&width); // [width]
    let (one, two, row_unit) = (editor.vector(&[1]), editor.vector(&[2]), editor.vector(&[4]));
    let tokens = editor.node("Mul", &[&batch, &sequence], Vec::new()); // [1]
    let half = editor.node("Div", &[&width, &two], Vec::new());
    let row_bytes = editor.node("Mul", &[&width, &row_unit], Vec::new()); // [1]

    let shape = editor.concat(&[&tokens, &width], 0);
    let equal = editor.zeros(&shape, ElementType::Float32); // [tokens, width]
    let angles = editor.concat(&[&tokens, &half], 0);
    let angles = editor.zeros(&angles, ElementType::Float32); // [tokens, width / 2]
    // cached values, as bytes of float32
    let places = editor.range(&total); // [total]
    let places = editor.unsqueeze(&places, 1); // [total, 1]
    let marks = editor.node("Equal", &[&places, &channels], Vec::new()); // [total, width]
    let marks = editor.unsqueeze(&marks, 2); // [total, width, 1]
    let (number, zero) = (editor.bytes(&1.0_f32.to_le_bytes()), editor.bytes(&0.0_f32.to_le_bytes()));
    let marks = editor.node("Where", &[&marks, &number, &zero], Vec::new()); // [total, width, 4]
    let rows = editor.concat(&[&total, &row_bytes], 0);
    let marks = editor.node("Reshape", &[&marks, &rows], Vec::new()); // [total, row bytes]
    let shape = editor.concat(&[&batch, &one, &total, &row_bytes], 0);
    let past_key = editor.zeros(&shape, ElementType::UInt8); // [batch, 1, total, row bytes]
    let past_value = editor.node("Expand", &[&marks, &shape], Vec::new()); // [batch, 1, total, row bytes]

    // a new token is at the place after all tokens before it
    let axis = editor.scalar(1);
    let places = editor.node("CumSum", &[&mask, &axis], Vec::new()); // [batch, total]
    let cached = editor.node("Sub", &[&total, &sequence], Vec::new()); // [1]
    let columns = editor.range(&sequence); // [sequence]
    let columns = editor.node("Add", &[&columns, &cached], Vec::new()); // [sequence]
    let places = editor.node("Gather", &[&places, &columns], vec![integer("axis", 1)]); // [batch, sequence]
    let places = editor.node("Sub", &[&places, &one], Vec::new());
    let places = editor.unsqueeze(&places, 2); // [batch, sequence, 1]
    let marks = editor.node("Equal", &[&places, &channels], Vec::new()); // [batch, sequence, width]
    let marks = editor.cast(&marks, ElementType::Float32);
    let rows = editor.concat(&[&tokens, &width], 0);
    let value = editor.node("Reshape", &[&marks, &rows], Vec::new()); // [tokens, width]
    let both = editor.concat(&[&equal, &value], 1); // [tokens, 2 * width]

    let shape = editor.vector(&[0, SEQUENCE_NUMBERS as i64]);
    let masked = editor.zeros(&shape, ElementType::Int64); // [0, 3]
    let attended = editor.node(
        name,
        &[&equal, &both, &angles, &angles, &mask, &masked, &past_key, &past_value],
        vec![integer(KvHeads.name(), 1), text(KvCache.name(), CacheFormat::F32.name())],
    ); // [tokens, width]
    if let Some(node) = editor.nodes.last_mut() {
        node.domain = Some(DOMAIN.to_owned());
        node.output.extend(["key", "value"].map(|part| format!("{attended}_{part}")));
    }
    let shape = editor.concat(&[&batch, &sequence, &width], 0);
    let output = OutputName::AttendedKeys.to_string();
    editor.named_node("Reshape", &[&attended, &shape], Vec::new(), vec![output]);
    Ok(())
}

/// A number of channels for so many places.
fn width_for(editor: &mut Editor<'_>, total: &str) -> String {
    let (rest, unit) = (editor.vector(&[WIDTH_UNIT - 1]), editor.vector(&[WIDTH_UNIT]));
    let width = editor.node("Add", &[total, &rest], Vec::new());
    let width = editor.node("Div", &[&width, &unit], Vec::new());
    editor.node("Mul", &[&width, &unit], Vec::new()) // [1]
}

const OPERATOR: &str = "GroupQueryAttention";

/// The lengths that the operator of a layer reads, and its attributes but for the number of heads.
type WayOfMasking = ([String; 2], Vec<crate::Attribute>);

fn operator_of_layer(editor: &Editor<'_>, layer: usize) -> Found<WayOfMasking> {
    let node =
        editor.find(&scope(layer), OPERATOR, |node| node.op_type() == OPERATOR && node.input.len() == 7)?;
    let is_of_heads = |name: &str| ["num_heads", "kv_num_heads"].contains(&name);
    let attributes = node.attribute.iter().filter(|attribute| !is_of_heads(attribute.name()));
    Ok(([node.input[5].clone(), node.input[6].clone()], attributes.cloned().collect()))
}

fn element_of_cache(editor: &Editor<'_>) -> Found<ElementType> {
    let name = InputName::PastKey(0).to_string();
    let input = editor.graph.input.iter().find(|input| input.name() == name);
    let tensor = input.and_then(|input| input.r#type.as_ref()?.tensor_type.as_ref());
    let element = tensor.and_then(|tensor| ElementType::from_onnx(tensor.elem_type?));
    element.ok_or_else(|| Missing(format!("no element type of {name}")))
}
