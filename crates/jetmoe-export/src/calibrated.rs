//! Calibrated weights: quantized layer by layer and kept in a temporary file until the graph is written.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use jetmoe_artifact::{ModelPart, Precision};
use jetmoe_checkpoint::names::{self, Mixture};
use jetmoe_checkpoint::{Checkpoint, Folder, ModelConfig, convert_to_f32};
use jetmoe_format::{Scheme, WeightFormat};
use jetmoe_graph::{Graph, QuantizedRows, Quantizer, Weight};
use jetmoe_quantize::{Gptq, InputStatistics, Rounding};
use jetmoe_reference::{LayerwiseReference, Observer};
use rayon::prelude::*;

use crate::calibration::CalibrationText;
use crate::progress::{OnProgress, Progress, Stage};
use crate::{Error, Result};

/// Added to the mean square of every input, as a share of their mean. 0.01 is the usual value for GPTQ.
const DAMPING: f32 = 0.01;

/// Damping of a tied head, which is also the embedding: its rows are used as they are, so every error counts the same.
const EMBEDDING_DAMPING: f32 = 1.0;

/// Rows of a matrix that one task quantizes: enough to pay for reading the factors, few enough to keep all cores busy.
const ROWS_PER_TASK: usize = 64;

/// A weight as the reference names it: the tensor, and the expert whose matrix it is.
type WeightKey = (String, Option<usize>);

/// The calibrated weights of a graph. The codes are in a temporary file, so that memory does not grow with the model.
pub(crate) struct Calibrated {
    rounding: Rounding,
    folder: PathBuf,
    file: Mutex<File>,
    /// Where a weight begins in the file.
    offsets: HashMap<Weight, u64>,
    end: u64,
}

/// The format that calibration improves. With 8 bits, rounding is exact enough.
const CALIBRATED: WeightFormat = WeightFormat::Int4;

/// The matrices of a graph that calibration improves.
pub(crate) fn calibrated_weights(graph: &Graph) -> Vec<Weight> {
    let four_bits = |weight: &&Weight| weight.scheme().is_some_and(|scheme| scheme.format == CALIBRATED);
    graph.weights().filter(four_bits).flat_map(Weight::matrices).collect()
}

/// Refuses a graph that calibration would not change.
pub(crate) fn check_precision(graph: &Graph, precision: Precision) -> Result<()> {
    if calibrated_weights(graph).is_empty() {
        return Err(Error::NothingToCalibrate { precision });
    }
    Ok(())
}

impl Calibrated {
    /// Runs the text through the model and quantizes the graph's weights for the inputs of their products, one layer at a
    /// time. The temporary file is in `folder` and has no name.
    pub(crate) fn new(
        checkpoint: &Checkpoint,
        graph: &Graph,
        text: &CalibrationText,
        rounding: Rounding,
        folder: &Folder,
        on_progress: OnProgress<'_>,
    ) -> Result<Self> {
        let file = folder.create_unnamed_file().map_err(|source| Error::Io {
            action: "write into",
            path: folder.path().to_owned(),
            source,
        })?;
        let mut calibrated = Calibrated {
            rounding,
            folder: folder.path().to_owned(),
            file: Mutex::new(file),
            offsets: HashMap::new(),
            end: 0,
        };
        let key = |weight: &Weight| (weight.tensor().to_owned(), weight.expert());
        let weights: HashMap<WeightKey, Weight> =
            calibrated_weights(graph).into_iter().map(|weight| (key(&weight), weight)).collect();
        let passes = (checkpoint.config().num_hidden_layers + 1) * text.windows.len();
        let total = (passes + weights.len()) as u64;
        let step = || on_progress(Progress { stage: Stage::Calibrating, delta: 1, total });
        let mut inputs = InputRecorder { weights: &weights, statistics: BTreeMap::new(), step: &step };
        let mut model = LayerwiseReference::new(checkpoint, &text.windows)?;
        while model.next_layer(&mut inputs)?.is_some() {
            calibrated.quantize_recorded(checkpoint, &mut inputs)?;
        }
        model.last_hidden_states(&mut inputs)?;
        calibrated.quantize_recorded(checkpoint, &mut inputs)?;
        Ok(calibrated)
    }

    /// Experts that no token of the text was routed to, as in `layers.3.mlp.experts.5`.
    pub(crate) fn uncalibrated_experts(&self, graph: &Graph, config: &ModelConfig) -> Vec<String> {
        let is_missing = |weight: &Weight| !self.offsets.contains_key(weight);
        let missing: Vec<_> = calibrated_weights(graph).into_iter().filter(is_missing).collect();
        let mut uncalibrated = Vec::new();
        for layer in 0..config.num_hidden_layers {
            for (mixture, part) in
                [(Mixture::Attention, ModelPart::Attention), (Mixture::Mlp, ModelPart::Mlp)]
            {
                let tensors = [names::expert_input(layer, mixture), names::expert_output(layer, mixture)];
                for expert in 0..config.num_local_experts {
                    let is_of_expert = |weight: &Weight| {
                        weight.expert() == Some(expert) && tensors.iter().any(|name| name == weight.tensor())
                    };
                    if missing.iter().any(is_of_expert) {
                        uncalibrated.push(format!("layers.{layer}.{part}.experts.{expert}"));
                    }
                }
            }
        }
        uncalibrated
    }

    /// Quantizes the weights whose inputs were recorded since the last call, and drops those statistics.
    fn quantize_recorded(&mut self, checkpoint: &Checkpoint, inputs: &mut InputRecorder<'_>) -> Result<()> {
        for (key, statistics) in std::mem::take(&mut inputs.statistics) {
            if let Some(weight) = inputs.weights.get(&key)
                && let (Some(scheme), Some(matrix)) = (weight.scheme(), weight.matrix())
            {
                let damping = if key.0 == names::EMBEDDING { EMBEDDING_DAMPING } else { DAMPING };
                let gptq = Gptq::new(&statistics, damping)
                    .map_err(|source| Error::Statistics { weight: weight.name(), source })?;
                drop(statistics);
                let rows = quantize(checkpoint, weight, matrix, &scheme, self.rounding, &gptq)?;
                self.store(weight, &rows)?;
            }
            (inputs.step)();
        }
        Ok(())
    }

    /// Appends a weight to the file.
    fn store(&mut self, weight: &Weight, rows: &QuantizedRows) -> Result<()> {
        let mut bytes = CALIBRATED.pack(&rows.codes);
        bytes.extend(rows.scales.iter().flat_map(|scale| scale.to_le_bytes()));
        bytes.extend(&rows.zero_points);
        let file = self.file.get_mut().unwrap_or_else(PoisonError::into_inner);
        file.write_all(&bytes).map_err(|source| Error::Io {
            action: "write into",
            path: self.folder.clone(),
            source,
        })?;
        self.offsets.insert(weight.clone(), self.end);
        self.end += bytes.len() as u64;
        Ok(())
    }

    /// Reads a weight of `[outputs, inputs]` back.
    fn load(
        &self,
        offset: u64,
        [outputs, inputs]: [usize; 2],
        scheme: &Scheme,
    ) -> std::io::Result<QuantizedRows> {
        let codes = outputs * inputs;
        let groups = outputs * scheme.groups(inputs);
        let (packed, scales) = (codes.div_ceil(2), groups * size_of::<f32>());
        let mut bytes = vec![0; packed + scales + groups];
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(offset))?;
        file.read_exact(&mut bytes)?;
        let zero_points = bytes.split_off(packed + scales);
        let (scales, _) = bytes[packed..].as_chunks();
        Ok(QuantizedRows {
            codes: CALIBRATED.unpack(&bytes[..packed], codes),
            scales: scales.iter().map(|scale| f32::from_le_bytes(*scale)).collect(),
            zero_points,
        })
    }
}

impl Quantizer for Calibrated {
    fn rounding(&self) -> Rounding {
        self.rounding
    }

    fn precomputed(&self, weight: &Weight) -> jetmoe_graph::Result<Option<QuantizedRows>> {
        let (Some(offset), Some(scheme), Some(matrix)) =
            (self.offsets.get(weight), weight.scheme(), weight.matrix())
        else {
            return Ok(None);
        };
        let rows = self.load(*offset, matrix, &scheme);
        rows.map(Some).map_err(|source| jetmoe_graph::Error::Io {
            action: "read back calibrated weights from",
            path: self.folder.clone(),
            source,
        })
    }
}

/// Accumulates statistics of the inputs of one layer's products.
struct InputRecorder<'a> {
    weights: &'a HashMap<WeightKey, Weight>,
    statistics: BTreeMap<WeightKey, InputStatistics>,
    /// Reports one step of progress.
    step: &'a dyn Fn(),
}

impl Observer for InputRecorder<'_> {
    fn observe(&mut self, tensor: &str, expert: Option<usize>, rows: &[f32]) {
        let key = (tensor.to_owned(), expert);
        if let Some([_, inputs]) = self.weights.get(&key).and_then(|weight| weight.matrix()) {
            self.statistics.entry(key).or_insert_with(|| InputStatistics::new(inputs)).add(rows);
        }
    }

    fn sequence_done(&mut self) {
        (self.step)();
    }
}

/// Quantizes all rows of a weight.
fn quantize(
    checkpoint: &Checkpoint,
    weight: &Weight,
    matrix: [usize; 2],
    scheme: &Scheme,
    rounding: Rounding,
    gptq: &Gptq,
) -> Result<QuantizedRows> {
    let [outputs, inputs] = matrix;
    let groups = scheme.groups(inputs);
    let tensor = weight.view(checkpoint)?;
    let mut rows = QuantizedRows {
        codes: vec![0; outputs * inputs],
        scales: vec![0.0; outputs * groups],
        zero_points: vec![0; outputs * groups],
    };
    let bytes = tensor.bytes.par_chunks(ROWS_PER_TASK * inputs * tensor.dtype.size());
    let codes = rows.codes.par_chunks_mut(ROWS_PER_TASK * inputs);
    let scales = rows.scales.par_chunks_mut(ROWS_PER_TASK * groups);
    let zero_points = rows.zero_points.par_chunks_mut(ROWS_PER_TASK * groups);
    let tasks = bytes.zip(codes).zip(scales.zip(zero_points)).enumerate();
    tasks.try_for_each(|(task, ((bytes, codes), (scales, zero_points)))| {
        let mut weights = vec![0.0; codes.len()];
        convert_to_f32(tensor.dtype, bytes, &mut weights);
        gptq.quantize_rows(scheme, rounding, &weights, codes, scales, zero_points)
            .map_err(|source| not_quantizable(weight, task * ROWS_PER_TASK, inputs, source))
    })?;
    Ok(rows)
}

/// An error with its row and column, where `first` is the first row of the task.
fn not_quantizable(
    weight: &Weight,
    first: usize,
    inputs: usize,
    source: jetmoe_quantize::Error,
) -> jetmoe_graph::Error {
    let (row, source) = source.row_and_column(inputs);
    let row = weight.expert().into_iter().chain([first + row]).collect();
    jetmoe_graph::Error::Quantize { tensor: weight.tensor().to_owned(), row, source }
}
