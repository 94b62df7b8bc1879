//! Codes that are computed before the graph is written, such as those of GPTQ.

use jetmoe_artifact::{Precision, Profile};
use jetmoe_graph::{QuantizedRows, Quantizer, Result, Rounding, Weight};

use safetensors::Dtype;

use crate::Way;
use crate::shared::{Sizes, checkpoint};

/// Provides the codes of one expert's matrix, recognisable by every code and scale.
struct Knows {
    zero_points: bool,
}

const KNOWN: &str = "model.layers.0.mlp.input_linear.weight";
const EXPERT: usize = 2;
const OUTPUTS: usize = 40;
/// More than one chunk of the writer.
const INPUTS: usize = 300;
const GROUPS: usize = 19;

fn code(output: usize, input: usize, zero_points: bool) -> i32 {
    ((output * 5 + input * 3) % 15) as i32 - if zero_points { 0 } else { 7 }
}

fn scale(output: usize, group: usize) -> f32 {
    1.0 + (output * GROUPS + group) as f32
}

fn zero_point(output: usize, group: usize, zero_points: bool) -> i32 {
    if zero_points { ((output + group * 5) % 16) as i32 } else { 0 }
}

impl Quantizer for Knows {
    fn rounding(&self) -> Rounding {
        Rounding::Nearest
    }

    fn precomputed(&self, weight: &Weight) -> Result<Option<QuantizedRows>> {
        if weight.tensor() != KNOWN || weight.expert() != Some(EXPERT) {
            return Ok(None);
        }
        let places =
            |columns: usize| (0..OUTPUTS * columns).map(move |place| (place / columns, place % columns));
        Ok(Some(QuantizedRows {
            codes: places(INPUTS).map(|(o, i)| code(o, i, self.zero_points) as u8).collect(),
            scales: places(GROUPS).map(|(o, group)| scale(o, group)).collect(),
            zero_points: places(GROUPS).map(|(o, g)| zero_point(o, g, self.zero_points) as u8).collect(),
        }))
    }
}

#[test]
fn precomputed_codes_are_written_instead_of_others() {
    let folder = tempfile::tempdir().unwrap();
    let sizes = Sizes { hidden: INPUTS, intermediate: OUTPUTS / 2, experts: 3 };
    let value = |_: &str, tensor: usize, index: usize| ((tensor * 37 + index * 11) % 251) as f32 - 125.0;
    let checkpoint = checkpoint(folder.path(), Dtype::F32, sizes, value);
    for profile in Profile::ALL {
        for zero_points in [false, true] {
            let way = Way { group_size: 16, zero_points, ..Way::new(Precision::Q4, *profile) };
            let known = way.write(&checkpoint, &Knows { zero_points }).unwrap();
            let rounded = way.write(&checkpoint, &Rounding::Nearest).unwrap();
            for (matrix, other) in known.matrices().iter().zip(rounded.matrices()) {
                if matrix.weight != format!("{KNOWN}.{EXPERT}") {
                    let same = matrix.elements.iter().zip(&other.elements);
                    assert!(
                        same.into_iter().all(|(a, b)| a.dequantized() == b.dequantized()),
                        "{}",
                        matrix.weight
                    );
                    continue;
                }
                assert_eq!((matrix.outputs, matrix.bits), (OUTPUTS, 4));
                assert_eq!(matrix.inputs.div_ceil(16), INPUTS.div_ceil(16));
                for (place, element) in matrix.elements.iter().enumerate() {
                    let (output, input) = (place / matrix.inputs, place % matrix.inputs);
                    // the padding of a row's last group
                    if input >= INPUTS {
                        continue;
                    }
                    let zero = zero_point(output, input / 16, zero_points);
                    let wanted = (code(output, input, zero_points) - zero, scale(output, input / 16));
                    assert_eq!((element.number, element.scale), wanted, "[{output}, {input}], {way:?}");
                }
            }
            assert!(known.data != rounded.data, "nothing was precomputed");
        }
    }
}
