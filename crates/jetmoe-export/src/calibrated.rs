//! Calibrated weights: found layer by layer, kept in a file until the graph is written.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use indicatif::ProgressBar;
use jetmoe_artifact::{ModelPart, Precision};
use jetmoe_checkpoint::names::{self, Mixture};
use jetmoe_checkpoint::{Checkpoint, ModelConfig, convert_to_f32};
use jetmoe_graph::{Graph, QuantizedRows, Quantizer, Weight};
use jetmoe_format::{Scheme, WeightFormat};
use jetmoe_quantize::{Gptq, InputStatistics, Rounding};
use jetmoe_reference::{LayerwiseReference, Observer};
use rayon::prelude::*;

use crate::calibration::CalibrationText;
use crate::progress::step_bar;
use crate::{Error, Result};

/// What is added to the mean square of every input, as a share of their mean: 0.01 by custom.
const DAMPING: f32 = 0.01;

/// A tied head is also the embedding table, whose rows are used whole: there every error weighs alike.
const DAMPING_OF_TABLE: f32 = 1.0;

/// Rows of a matrix that are quantized together: enough to be worth reading the tables for, and of all cores each gets
/// some.
const ROWS: usize = 64;

/// A weight as the reference names it: the tensor, and which expert's matrix of it.
type Place = (String, Option<usize>);

/// The weights of a graph that calibration found codes for; the others are rounded by themselves. The codes lie in a
/// file without a name, so that memory does not grow with the model.
pub(crate) struct Calibrated {
    rounding: Rounding,
    folder: PathBuf,
    file: Mutex<File>,
    /// Where in the file a weight begins.
    offsets: HashMap<Weight, u64>,
    end: u64,
}

/// The format that is worth calibrating: with 8 bits, rounding alone is exact enough.
const CALIBRATED: WeightFormat = WeightFormat::Int4;

/// The matrices of a graph that are worth calibrating.
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
    /// Runs the text through the model and quantizes the graph's weights by what their products read, one layer at a
    /// time. `folder` takes the file.
    pub(crate) fn new(
        checkpoint: &Checkpoint,
        graph: &Graph,
        text: &CalibrationText,
        rounding: Rounding,
        folder: &Path,
    ) -> Result<Self> {
        let file = tempfile::tempfile_in(folder).map_err(|source| Error::Io {
            action: "write into",
            path: folder.to_owned(),
            source,
        })?;
        let mut calibrated = Calibrated {
            rounding,
            folder: folder.to_owned(),
            file: Mutex::new(file),
            offsets: HashMap::new(),
            end: 0,
        };
        let place = |weight: &Weight| (weight.tensor().to_owned(), weight.expert());
        let weights: HashMap<Place, Weight> =
            calibrated_weights(graph).into_iter().map(|weight| (place(&weight), weight)).collect();
        let passes = (checkpoint.config().num_hidden_layers + 1) * text.windows.len();
        let bar = step_bar("calibrating", (passes + weights.len()) as u64);
        let mut seen = Seen { weights: &weights, statistics: BTreeMap::new(), bar: &bar };
        let mut model = LayerwiseReference::new(checkpoint, &text.windows)?;
        while model.next_layer(&mut seen)?.is_some() {
            calibrated.quantize_all(checkpoint, &mut seen)?;
        }
        model.last_hidden_states(&mut seen)?;
        calibrated.quantize_all(checkpoint, &mut seen)?;
        bar.finish_and_clear();
        Ok(calibrated)
    }

    /// Experts that no token reached, as in `layers.3.mlp.experts.5`.
    pub(crate) fn uncalibrated(&self, graph: &Graph, config: &ModelConfig) -> Vec<String> {
        let missed = |weight: &Weight| !self.offsets.contains_key(weight);
        let missed: Vec<_> = calibrated_weights(graph).into_iter().filter(missed).collect();
        let mut uncalibrated = Vec::new();
        for layer in 0..config.num_hidden_layers {
            for (mixture, part) in
                [(Mixture::Attention, ModelPart::Attention), (Mixture::Mlp, ModelPart::Mlp)]
            {
                let tensors = [names::expert_input(layer, mixture), names::expert_output(layer, mixture)];
                for expert in 0..config.num_local_experts {
                    let is_its = |weight: &Weight| {
                        weight.expert() == Some(expert) && tensors.iter().any(|name| name == weight.tensor())
                    };
                    if missed.iter().any(is_its) {
                        uncalibrated.push(format!("layers.{layer}.{part}.experts.{expert}"));
                    }
                }
            }
        }
        uncalibrated
    }

    /// Quantizes what was seen since the last call, and forgets it.
    fn quantize_all(&mut self, checkpoint: &Checkpoint, seen: &mut Seen<'_>) -> Result<()> {
        for (place, statistics) in std::mem::take(&mut seen.statistics) {
            if let Some(weight) = seen.weights.get(&place)
                && let (Some(scheme), Some(matrix)) = (weight.scheme(), weight.matrix())
            {
                let damping = if place.0 == names::EMBEDDING { DAMPING_OF_TABLE } else { DAMPING };
                let gptq = Gptq::new(&statistics, damping)
                    .map_err(|source| Error::Statistics { weight: weight.name(), source })?;
                drop(statistics);
                let rows = quantize(checkpoint, weight, matrix, &scheme, self.rounding, &gptq)?;
                self.store(weight, &rows)?;
            }
            seen.bar.inc(1);
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

/// Takes down what the products of one layer read.
struct Seen<'a> {
    weights: &'a HashMap<Place, Weight>,
    statistics: BTreeMap<Place, InputStatistics>,
    bar: &'a ProgressBar,
}

impl Observer for Seen<'_> {
    fn observe(&mut self, tensor: &str, expert: Option<usize>, rows: &[f32]) {
        let place = (tensor.to_owned(), expert);
        if let Some([_, inputs]) = self.weights.get(&place).and_then(|weight| weight.matrix()) {
            self.statistics.entry(place).or_insert_with(|| InputStatistics::new(inputs)).add(rows);
        }
    }

    fn sequence_done(&mut self) {
        self.bar.inc(1);
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
    let bytes = tensor.bytes.par_chunks(ROWS * inputs * tensor.dtype.size());
    let codes = rows.codes.par_chunks_mut(ROWS * inputs);
    let scales = rows.scales.par_chunks_mut(ROWS * groups);
    let zero_points = rows.zero_points.par_chunks_mut(ROWS * groups);
    let tiles = bytes.zip(codes).zip(scales.zip(zero_points)).enumerate();
    tiles.try_for_each(|(tile, ((bytes, codes), (scales, zero_points)))| {
        let mut weights = vec![0.0; codes.len()];
        convert_to_f32(tensor.dtype, bytes, &mut weights);
        gptq.quantize_rows(scheme, rounding, &weights, codes, scales, zero_points)
            .map_err(|source| not_quantizable(weight, tile * ROWS, inputs, source))
    })?;
    Ok(rows)
}

/// The error of a place that is counted through the rows from `first`.
fn not_quantizable(
    weight: &Weight,
    first: usize,
    inputs: usize,
    source: jetmoe_quantize::Error,
) -> jetmoe_graph::Error {
    let (row, source) = source.in_rows_of(inputs);
    let row = weight.expert().into_iter().chain([first + row]).collect();
    jetmoe_graph::Error::Quantize { tensor: weight.tensor().to_owned(), row, source }
}
