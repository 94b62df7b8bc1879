//! Tensors in, tensors out: logits, hidden states or classes of token ids.

use jetmoe_rt::ndarray::{Array2, Array3, Axis, s};
use jetmoe_rt::{CancellationToken, Error, Model, StepOutput, Task, TokenBatch};

use super::data::Elements;
use super::metadata::{ATTENTION_MASK, INPUT_IDS, LAST_HIDDEN_STATE, LOGITS};
use super::problem::Problem;
use super::response::{Output, OutputData};
use super::tensor::Tensor;
use crate::compute::OUTPUT_BYTES;
use crate::compute::steps::for_each_step;

/// Most tokens of a batch, padding included.
const MAX_TOKENS: usize = 16_384;

/// The batch of a request. The ids of padding have no effect.
///
/// # Errors
/// Tensors of another shape, ids and masks that are not valid, and a batch whose output is too large.
pub(crate) fn token_batch(model: &Model, tensors: &[Tensor]) -> Result<TokenBatch, Problem> {
    let ids = tensors.iter().find(|tensor| tensor.name == INPUT_IDS).ok_or_else(|| Problem::Inputs {
        found: names(tensors),
        expected: "input_ids, perhaps with attention_mask",
    })?;
    let (rows, columns) = matrix_shape(ids)?;
    check_size(model, rows, columns)?;
    let token_ids = integers(ids).iter().enumerate().map(|(index, id)| token_id(index, *id));
    let token_ids: Vec<u32> = token_ids.collect::<Result<_, _>>()?;
    let mask = match tensors.iter().find(|tensor| tensor.name == ATTENTION_MASK) {
        Some(mask) => read_mask(mask, ids)?,
        None => vec![true; token_ids.len()],
    };
    let padding = model.config().pad_token_id.unwrap_or(0);
    let token_ids = token_ids.into_iter().zip(&mask).map(|(id, counts)| if *counts { id } else { padding });
    let matrix = |_| Problem::Inputs { found: names(tensors), expected: "tensors of one shape" };
    let token_ids = Array2::from_shape_vec((rows, columns), token_ids.collect()).map_err(matrix)?;
    let mask = Array2::from_shape_vec((rows, columns), mask).map_err(matrix)?;
    check_mask(&mask)?;
    TokenBatch::masked(token_ids, mask)
        .map_err(|_| Problem::Inputs { found: names(tensors), expected: "at least one token" })
}

fn names(tensors: &[Tensor]) -> String {
    match tensors {
        [] => "none".to_owned(),
        tensors => tensors.iter().map(|tensor| tensor.name.as_str()).collect::<Vec<_>>().join(", "),
    }
}

/// `[batch, tokens]`, at least one each.
fn matrix_shape(ids: &Tensor) -> Result<(usize, usize), Problem> {
    match ids.shape[..] {
        [rows, columns] if rows >= 1 && columns >= 1 => Ok((rows, columns)),
        _ => Err(Problem::Shape {
            tensor: ids.name.clone(),
            found: ids.shape.clone(),
            expected: "[batch, tokens] with at least one token".to_owned(),
        }),
    }
}

/// Bounds the memory of the computation and of its output.
fn check_size(model: &Model, rows: usize, columns: usize) -> Result<(), Problem> {
    let tokens = rows.saturating_mul(columns);
    if tokens > MAX_TOKENS {
        return Err(Problem::Tokens { found: tokens, limit: MAX_TOKENS });
    }
    let numbers = match model.task() {
        Task::CausalLm => tokens as u128 * model.config().vocab_size as u128,
        Task::Backbone => tokens as u128 * model.config().hidden_size as u128,
        Task::SequenceClassification => rows as u128 * model.config().num_labels() as u128,
    };
    let found = numbers * size_of::<f32>() as u128;
    if found > OUTPUT_BYTES as u128 {
        Err(Problem::OutputSize { found, limit: OUTPUT_BYTES })
    } else {
        Ok(())
    }
}

fn integers(tensor: &Tensor) -> &[i64] {
    match &tensor.elements {
        Elements::Integers(integers) => integers,
        Elements::Texts(_) => &[],
    }
}

fn token_id(index: usize, id: i64) -> Result<u32, Problem> {
    u32::try_from(id).map_err(|_| Problem::Element {
        tensor: INPUT_IDS,
        index,
        found: id,
        expected: "a token id from 0",
    })
}

fn read_mask(mask: &Tensor, ids: &Tensor) -> Result<Vec<bool>, Problem> {
    if mask.shape != ids.shape {
        return Err(Problem::Shape {
            tensor: mask.name.clone(),
            found: mask.shape.clone(),
            expected: format!("{:?}, that of input_ids", ids.shape),
        });
    }
    let counts = integers(mask).iter().enumerate().map(|(index, value)| match value {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Problem::Element { tensor: ATTENTION_MASK, index, found: *value, expected: "0 or 1" }),
    });
    counts.collect()
}

/// Refuses a sequence without a token, and padding between tokens.
fn check_mask(mask: &Array2<bool>) -> Result<(), Problem> {
    let is_valid = |row: &[bool]| {
        let tokens = row.iter().filter(|counts| **counts).count();
        let runs = row.chunk_by(|left, right| left == right).filter(|run| run.first() == Some(&true)).count();
        tokens > 0 && runs == 1
    };
    let invalid = mask.rows().into_iter().position(|row| !is_valid(&row.to_vec()));
    invalid.map_or(Ok(()), |row| Err(Problem::Mask { row }))
}

/// Name of the output that token ids give.
pub(crate) fn output_name(model: &Model) -> &'static str {
    match model.task() {
        Task::CausalLm | Task::SequenceClassification => LOGITS,
        Task::Backbone => LAST_HIDDEN_STATE,
    }
}

/// Runs a model over a batch. Rows of padding are 0 in the output.
///
/// # Errors
/// As [`Session::step`](jetmoe_rt::Session::step).
pub(crate) fn run(
    model: &Model,
    batch: &TokenBatch,
    cancellation: &CancellationToken,
) -> Result<Output, Error> {
    let name = output_name(model);
    if model.task() == Task::SequenceClassification {
        return classify(model, batch, cancellation);
    }
    let width = match model.task() {
        Task::CausalLm => model.config().vocab_size,
        _ => model.config().hidden_size,
    };
    let mut rows = Array3::zeros((batch.batch_size(), batch.sequence_length(), width));
    let mut begin = 0;
    for_each_step(model, batch, cancellation, |tokens, step| {
        let end = begin + tokens.sequence_length();
        copy(tokens, step, &mut rows.slice_mut(s![.., begin..end, ..]))?;
        begin = end;
        Ok(())
    })?;
    let shape = rows.shape().to_vec();
    Ok(Output { name, shape, data: OutputData::Floats(rows.into_iter().collect()) })
}

/// The logits of the classes, row by row: a step rounds differently for a row alone and with others.
fn classify(model: &Model, batch: &TokenBatch, cancellation: &CancellationToken) -> Result<Output, Error> {
    let mut numbers = Vec::new();
    for (ids, mask) in batch.ids().rows().into_iter().zip(batch.mask().rows()) {
        let tokens: Vec<u32> =
            ids.iter().zip(mask).filter(|(_, counts)| **counts).map(|(id, _)| *id).collect();
        let row = TokenBatch::left_padded(&[tokens], 0)?;
        for_each_step(model, &row, cancellation, |_, step| {
            numbers.extend(step.class_logits()?.iter()); // [1, labels]
            Ok(())
        })?;
    }
    let shape = vec![batch.batch_size(), numbers.len() / batch.batch_size().max(1)];
    Ok(Output { name: LOGITS, shape, data: OutputData::Floats(numbers) })
}

/// Copies the output of a step, without that of padding. `rows`: `[batch, tokens, width]`
fn copy(
    tokens: &TokenBatch,
    step: &StepOutput,
    rows: &mut jetmoe_rt::ndarray::ArrayViewMut3<'_, f32>,
) -> Result<(), Error> {
    let computed = match step.last_hidden_state() {
        Ok(hidden) => hidden,                               // [batch, tokens, hidden]
        Err(Error::MissingOutput { .. }) => step.logits()?, // [batch, tokens, vocab]
        Err(error) => return Err(error),
    };
    if computed.shape() != rows.shape() {
        return Err(Error::Shape {
            tensor: "the output of a step".to_owned(),
            expected: rows.shape().to_vec(),
            found: computed.shape().to_vec(),
        });
    }
    for ((row, column), counts) in tokens.mask().indexed_iter() {
        if *counts {
            let from = computed.index_axis(Axis(0), row);
            rows.slice_mut(s![row, column, ..]).assign(&from.index_axis(Axis(0), column));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use jetmoe_rt::ndarray::Array2;

    use super::check_mask;

    #[test]
    fn padding_is_in_front_or_behind() {
        let is_valid =
            |row: &[bool]| check_mask(&Array2::from_shape_vec((1, row.len()), row.to_vec()).unwrap()).is_ok();
        let (x, o) = (true, false);
        for row in [&[x][..], &[x, x], &[o, x], &[x, o], &[o, o, x, x], &[o, x, o]] {
            assert!(is_valid(row), "{row:?}");
        }
        for row in [&[o][..], &[o, o], &[x, o, x], &[o, x, o, x]] {
            assert!(!is_valid(row), "{row:?}");
        }
    }
}
