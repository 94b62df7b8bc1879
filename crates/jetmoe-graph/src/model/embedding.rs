use jetmoe_artifact::{ModelPart, Task};
use jetmoe_checkpoint::{ModelConfig, names};
use jetmoe_kernels::RowOrder;
use jetmoe_quantize::{Bits, Scheme};

use crate::builder::{Builder, Paneled, Value};
use crate::weight::{Encoding, Groups};
use crate::{ElementType, Result, Weight};

/// The embedding table. Where the head uses it too it is stored once, in the form that the head's product needs.
pub(super) enum Table {
    /// One row a token, as checkpoints store it: `[vocab_size, hidden_size]`, in the type it is stored in.
    Float(Value),
    /// Codes and scales in groups along the hidden size, as the profile's product takes them.
    Quantized(Weight),
    /// In the panels of our own operators.
    Panels(Paneled),
}

impl Table {
    pub(super) fn new(builder: &mut Builder, config: &ModelConfig, task: Task) -> Result<Self> {
        let weight = Weight::new(names::EMBEDDING.to_owned(), vec![config.vocab_size, config.hidden_size]);
        let is_head = config.tie_word_embeddings && task == Task::CausalLm;
        let own = if is_head { builder.own_storage(ModelPart::LmHead, None)? } else { None };
        if let Some(storage) = own {
            return Ok(Table::Panels(builder.paneled(weight, storage, RowOrder::AsStored)));
        }
        let storage =
            if is_head { builder.storage(ModelPart::LmHead, None) } else { builder.unquantized_storage() };
        let activations = builder.activations();
        if storage.weights.is_quantized() {
            return Ok(Table::Quantized(builder.quantized(weight, storage, activations)?));
        }
        let encoding = builder.encoding(storage, activations)?;
        let parts = builder.weight(&weight.encoded(encoding));
        Ok(Table::Float(parts[0].clone()))
    }

    /// The embeddings of tokens `[batch, sequence]`: `[batch, sequence, hidden_size]`.
    pub(super) fn look_up(&self, builder: &mut Builder, config: &ModelConfig, ids: &Value) -> Result<Value> {
        let activations = builder.activations();
        match self {
            Table::Float(table) => {
                let rows = builder.gather(table, ids)?;
                Ok(builder.cast(&rows, activations))
            }
            Table::Panels(weight) => builder.paneled_look_up(ids, weight),
            Table::Quantized(weight) => match weight.encoding {
                Encoding::Quantized(scheme, Groups::AlongRows) => {
                    gather_quantized_rows(builder, config, weight, &scheme, ids)
                }
                Encoding::Quantized(scheme, Groups::AlongColumns) => {
                    look_up_codes(builder, config, weight, &scheme, ids)
                }
                Encoding::Float(_) | Encoding::Panels(_) => unreachable!("a quantized table"),
            },
        }
    }
}

/// Rows of a quantized matrix `[vocab_size, hidden_size]`, restored by the operator that ONNX Runtime has for it.
fn gather_quantized_rows(
    builder: &mut Builder,
    config: &ModelConfig,
    weight: &Weight,
    scheme: &Scheme,
    ids: &Value,
) -> Result<Value> {
    let codes = builder.view(weight, 0, ElementType::UInt8, Some(config.vocab_size))?; // [vocab, bytes of a row]
    let rows = builder.gather_quantized(&codes, weight, scheme, ids)?; // [batch, seq, groups * group size]
    builder.first(&rows, 2, config.hidden_size) // [batch, seq, hidden]
}

/// Columns of a quantized matrix `[hidden_size, vocab_size]`, as rows. No runtime gathers 4-bit elements, so the codes
/// are read as bytes: by the place of each element in the whole matrix.
fn look_up_codes(
    builder: &mut Builder,
    config: &ModelConfig,
    weight: &Weight,
    scheme: &Scheme,
    ids: &Value,
) -> Result<Value> {
    let (hidden_size, vocab_size) = (config.hidden_size, config.vocab_size);
    let activations = builder.activations();
    let parts = builder.weight(weight);
    let groups = hidden_size.div_ceil(scheme.group_size);
    let group_of = (0..hidden_size).map(|channel| (channel / scheme.group_size) as i64).collect();
    let group_of = builder.named_integers("embedding/group_of_channel", group_of); // [hidden]
    let ids = builder.unsqueeze(ids, 2)?; // [batch, seq, 1]

    let firsts = (0..hidden_size).map(|channel| (channel * vocab_size) as i64).collect();
    let firsts = builder.named_integers("embedding/first_of_channel", firsts); // [hidden]
    let places = builder.add(&ids, &firsts)?; // [batch, seq, hidden]
    let mut values = codes_at(builder, weight, 0, scheme, &places)?; // [batch, seq, hidden]
    if parts.len() > 2 {
        let firsts = (0..groups).map(|group| (group * vocab_size) as i64).collect();
        let firsts = builder.named_integers("embedding/first_of_group", firsts); // [groups]
        let places = builder.add(&ids, &firsts)?; // [batch, seq, groups]
        let zero_points = codes_at(builder, weight, 2, scheme, &places)?; // [batch, seq, groups]
        let zero_points = builder.gather_along(&zero_points, &group_of, 2)?; // [batch, seq, hidden]
        values = builder.sub(&values, &zero_points)?;
    }
    let ids = builder.squeeze(&ids, 2)?; // [batch, seq]
    let scales = builder.gather_along(&parts[1], &ids, 1)?; // [groups, batch, seq]
    let scales = builder.transpose(&scales, &[1, 2, 0])?; // [batch, seq, groups]
    let scales = builder.gather_along(&scales, &group_of, 2)?; // [batch, seq, hidden]
    let scales = builder.cast(&scales, activations);
    builder.mul(&values, &scales)
}

/// The codes at places of one part of a quantized weight, as numbers of the activations' type.
fn codes_at(
    builder: &mut Builder,
    weight: &Weight,
    part: usize,
    scheme: &Scheme,
    places: &Value,
) -> Result<Value> {
    let activations = builder.activations();
    let signed = !scheme.zero_points;
    if scheme.bits == Bits::Eight {
        let element = if signed { ElementType::Int8 } else { ElementType::UInt8 };
        let codes = builder.view(weight, part, element, None)?;
        let codes = builder.gather(&codes, places)?;
        return Ok(builder.cast(&codes, activations));
    }
    let bytes = builder.view(weight, part, ElementType::UInt8, None)?;
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
