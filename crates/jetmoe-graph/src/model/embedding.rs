//! The token embedding, `embed_tokens` of `JetMoeModel` in transformers' `modeling_jetmoe.py`, also where the head shares its
//! table.

use jetmoe_artifact::{ModelPart, Task};
use jetmoe_checkpoint::{ModelConfig, names};
use jetmoe_format::{Encoding, Grouping, RowOrder, Scheme, TensorRole};

use crate::builder::{Builder, PackedWeight, Value};
use crate::{ElementType, Result, Weight};

/// The embedding table. Where the head uses it too it is stored once, in the form that the head's product needs.
pub(super) enum EmbeddingTable {
    /// One row a token, as checkpoints store it: `[vocab_size, hidden_size]`, in the type it is stored in.
    Float(Value),
    /// Codes and scales in groups along the hidden size, as the profile's product takes them.
    Quantized(Weight),
    /// Packed, as the custom operators read it.
    Packed(PackedWeight),
}

impl EmbeddingTable {
    pub(super) fn new(builder: &mut Builder, config: &ModelConfig, task: Task) -> Result<Self> {
        let weight = Weight::new(names::EMBEDDING.to_owned(), vec![config.vocab_size, config.hidden_size]);
        let is_head = config.tie_word_embeddings && task == Task::CausalLm;
        let packed = if is_head { builder.packed_scheme(ModelPart::LmHead, None) } else { None };
        if let Some(scheme) = packed {
            return Ok(EmbeddingTable::Packed(builder.packed(weight, scheme, RowOrder::AsStored)));
        }
        let scheme =
            if is_head { builder.scheme(ModelPart::LmHead, None) } else { builder.unquantized_scheme() };
        if scheme.format.is_quantized() {
            return Ok(EmbeddingTable::Quantized(builder.quantized(weight, scheme)?));
        }
        let encoding = builder.encoding(scheme)?;
        Ok(EmbeddingTable::Float(builder.weight(&weight.encoded(encoding)).elements().clone()))
    }

    /// The embeddings of tokens `[batch, sequence]`: `[batch, sequence, hidden_size]`.
    pub(super) fn embed(&self, builder: &mut Builder, config: &ModelConfig, ids: &Value) -> Result<Value> {
        let activations = builder.activations();
        match self {
            EmbeddingTable::Float(table) => {
                let rows = builder.gather(table, ids)?;
                Ok(builder.cast(&rows, activations))
            }
            EmbeddingTable::Packed(weight) => builder.packed_embedding(ids, weight),
            EmbeddingTable::Quantized(weight) => match weight.encoding {
                Encoding::Grouped(scheme, Grouping::AlongRows) => {
                    gather_quantized_rows(builder, config, weight, &scheme, ids)
                }
                Encoding::Grouped(scheme, Grouping::AlongColumns) => {
                    gather_quantized_columns(builder, config, weight, &scheme, ids)
                }
                Encoding::Float(_) | Encoding::Packed(_) => unreachable!("a quantized table"),
            },
        }
    }
}

/// Rows of a quantized matrix `[vocab_size, hidden_size]`, dequantized by the operator that ONNX Runtime has for it.
fn gather_quantized_rows(
    builder: &mut Builder,
    config: &ModelConfig,
    weight: &Weight,
    scheme: &Scheme,
    ids: &Value,
) -> Result<Value> {
    let codes = builder.view(weight, TensorRole::Codes, ElementType::UInt8, Some(config.vocab_size))?; // [vocab, bytes of a row]
    let rows = builder.gather_quantized(&codes, weight, scheme, ids)?; // [batch, seq, groups * group size]
    builder.first(&rows, 2, config.hidden_size) // [batch, seq, hidden]
}

/// Columns of a quantized matrix `[hidden_size, vocab_size]`, as rows. No runtime gathers 4-bit elements, so the codes
/// are read as bytes: by the index of each element in the whole matrix.
fn gather_quantized_columns(
    builder: &mut Builder,
    config: &ModelConfig,
    weight: &Weight,
    scheme: &Scheme,
    ids: &Value,
) -> Result<Value> {
    let (hidden_size, vocab_size) = (config.hidden_size, config.vocab_size);
    let activations = builder.activations();
    let table = builder.weight(weight);
    let groups = hidden_size.div_ceil(scheme.group_size);
    let group_of = (0..hidden_size).map(|channel| (channel / scheme.group_size) as i64).collect();
    let group_of = builder.named_integers("embedding/group_of_channel", group_of); // [hidden]
    let ids = builder.unsqueeze(ids, 2)?; // [batch, seq, 1]

    let firsts = (0..hidden_size).map(|channel| (channel * vocab_size) as i64).collect();
    let firsts = builder.named_integers("embedding/first_of_channel", firsts); // [hidden]
    let places = builder.add(&ids, &firsts)?; // [batch, seq, hidden]
    let mut values = codes_at(builder, weight, TensorRole::Codes, scheme, &places)?; // [batch, seq, hidden]
    if table.get(TensorRole::ZeroPoints).is_some() {
        let firsts = (0..groups).map(|group| (group * vocab_size) as i64).collect();
        let firsts = builder.named_integers("embedding/first_of_group", firsts); // [groups]
        let places = builder.add(&ids, &firsts)?; // [batch, seq, groups]
        let zero_points = codes_at(builder, weight, TensorRole::ZeroPoints, scheme, &places)?; // [batch, seq, groups]
        let zero_points = builder.gather_along(&zero_points, &group_of, 2)?; // [batch, seq, hidden]
        values = builder.sub(&values, &zero_points)?;
    }
    let ids = builder.squeeze(&ids, 2)?; // [batch, seq]
    let Some(scales) = table.get(TensorRole::Scales) else { unreachable!("a quantized table has scales") };
    let scales = builder.gather_along(scales, &ids, 1)?; // [groups, batch, seq]
    let scales = builder.transpose(&scales, &[1, 2, 0])?; // [batch, seq, groups]
    let scales = builder.gather_along(&scales, &group_of, 2)?; // [batch, seq, hidden]
    let scales = builder.cast(&scales, activations);
    builder.mul(&values, &scales)
}

/// The codes at some indices of one tensor of a quantized weight, as numbers of the activations' type.
fn codes_at(
    builder: &mut Builder,
    weight: &Weight,
    role: TensorRole,
    scheme: &Scheme,
    places: &Value,
) -> Result<Value> {
    let activations = builder.activations();
    let signed = !scheme.zero_points;
    if scheme.format.bits() == 8 {
        let element = if signed { ElementType::Int8 } else { ElementType::UInt8 };
        let codes = builder.view(weight, role, element, None)?;
        let codes = builder.gather(&codes, places)?;
        return Ok(builder.cast(&codes, activations));
    }
    let bytes = builder.view(weight, role, ElementType::UInt8, None)?;
    let two = builder.integer(2);
    let halves = builder.div(places, &two)?;
    let bytes = builder.gather(&bytes, &halves)?;
    let bytes = builder.cast(&bytes, ElementType::Int64);
    // 2 · byte + (place mod 2) is the place of the code in a list of both codes of every byte
    let difference = builder.sub(&bytes, &halves)?;
    let difference = builder.mul(&difference, &two)?;
    let entry = builder.add(places, &difference)?;
    let code = |code: i64| if signed && code > 7 { code - 16 } else { code } as f32;
    let both: Vec<f32> = (0..256).flat_map(|byte| [code(byte % 16), code(byte / 16)]).collect();
    let name = if signed { "embedding/signed_codes_of_byte" } else { "embedding/codes_of_byte" };
    let both = builder.floats(name, both); // [512]
    let codes = builder.gather(&both, &entry)?;
    Ok(builder.cast(&codes, activations))
}
