use half::f16;
use jetmoe_format::{ElementType, PackedLayout, RowOrder, Scheme, WeightFormat};

use super::*;

/// 3 experts of 100 rows and 70 columns: 4 panels of 3 blocks.
const LAYOUT: PackedLayout = PackedLayout {
    experts: 3,
    outputs: 100,
    inputs: 70,
    scheme: Scheme {
        format: WeightFormat::Int4,
        group_size: 32,
        zero_points: true,
        scales: ElementType::Float16,
    },
    order: RowOrder::AsStored,
};

/// The tensors of a weight.
struct Weight {
    layout: PackedLayout,
    codes: Vec<u8>,
    scales: Vec<f16>,
    zero_points: Vec<u8>,
}

impl Weight {
    fn new(layout: PackedLayout) -> Self {
        let groups = layout.scales_shape().iter().product();
        Weight {
            layout,
            codes: vec![0; layout.codes_shape().iter().product()],
            scales: vec![f16::ONE; groups],
            zero_points: vec![0; groups],
        }
    }

    fn packed(&self) -> PackedWeight<'_> {
        PackedWeight::new(self.layout, &self.codes, Some(&self.scales), Some(&self.zero_points)).unwrap()
    }

    /// Which bytes of each tensor are in the ranges, as offsets; a byte in two ranges, or in none of the tensors, panics.
    fn offsets(&self, ranges: &[AddressRange]) -> [BTreeSet<usize>; 3] {
        let tensors = [addresses(&self.codes), addresses(&self.scales), addresses(&self.zero_points)]
            .map(|tensor| tensor);
        let mut offsets: [BTreeSet<usize>; 3] = Default::default();
        for address in ranges.iter().cloned().flatten() {
            let tensor = tensors.iter().position(|tensor| tensor.contains(&address)).expect("is in a tensor");
            assert!(offsets[tensor].insert(address - tensors[tensor].start), "is requested once");
        }
        offsets
    }
}

/// The bytes of one part of a tensor of `parts` equal ones.
fn part(bytes: usize, parts: usize, index: usize) -> impl Iterator<Item = usize> {
    let size = bytes / parts;
    index * size..(index + 1) * size
}

#[test]
fn the_matrices_of_the_chosen_experts_are_requested_and_nothing_else() {
    let weight = Weight::new(LAYOUT);
    let sizes = [weight.codes.len(), 2 * weight.scales.len(), weight.zero_points.len()];
    for (chosen, experts) in [
        (&[1_i64][..], &[1_usize][..]),
        (&[2, 0, 2, 0], &[0, 2]),
        (&[2, 1, 0], &[0, 1, 2]),
        // the product refuses these
        (&[-1, 3, 1, i64::MAX], &[1]),
        (&[], &[]),
    ] {
        let expected = sizes
            .map(|bytes| experts.iter().flat_map(|expert| part(bytes, 3, *expert)).collect::<BTreeSet<_>>());
        assert_eq!(weight.offsets(&Reads::matrices(&weight.packed(), chosen).ranges), expected, "{chosen:?}");
    }
}

#[test]
fn experts_take_turns_as_in_a_product() {
    // panels of 4 · 512 bytes, so that two turns are needed for 300 of them
    let weight = Weight::new(PackedLayout { experts: 2, outputs: 300 * PANEL_ROWS, inputs: 128, ..LAYOUT });
    let ranges = Reads::matrices(&weight.packed(), &[1, 0]).ranges;
    let codes = addresses(&weight.codes);
    let starts = ranges.iter().filter(|range| codes.contains(&range.start));
    let order: Vec<(usize, usize)> = starts
        .map(|range| ((range.start - codes.start) / 2048 / 300, (range.start - codes.start) / 2048 % 300))
        .collect();
    assert_eq!(order, [(0, 0), (1, 0), (0, 256), (1, 256)]);
}

#[test]
fn an_embedding_requests_the_panels_of_its_rows() {
    let weight = Weight::new(PackedLayout { experts: 1, ..LAYOUT });
    let sizes = [weight.codes.len(), 2 * weight.scales.len(), weight.zero_points.len()];
    // row 101 is padding of the last panel, 128 is behind it
    let offsets = weight.offsets(&Reads::rows(&weight.packed(), &[33, 40, 101, 128, -1]).ranges);
    assert_eq!(offsets, sizes.map(|bytes| part(bytes, 4, 1).chain(part(bytes, 4, 3)).collect()));
}

#[test]
fn a_weight_without_scales_has_codes_only() {
    let scheme = Scheme { format: WeightFormat::Bf16, zero_points: false, ..LAYOUT.scheme };
    let layout = PackedLayout { scheme, ..LAYOUT };
    let codes = vec![0; layout.codes_shape().iter().product()];
    let weight: PackedWeight<'_> = PackedWeight::new(layout, &codes, None, None).unwrap();
    let Reads { ranges, matrices } = Reads::matrices(&weight, &[2]);
    let codes = addresses(&codes);
    let last = codes.start + codes.len() / 3 * 2..codes.end;
    assert_eq!(ranges, std::slice::from_ref(&last));
    assert_eq!(matrices, [Matrix { parts: ranges, order: ReadOrder::Recent }]);
}

#[test]
fn a_prompt_reads_all_experts_in_turn() {
    let weight = Weight::new(LAYOUT);
    let orders = |experts: &[i64]| {
        let Reads { matrices, .. } = Reads::matrices(&weight.packed(), experts);
        let parts = matrices.iter().flat_map(|matrix| matrix.parts.clone()).collect::<Vec<_>>();
        let ranges = Reads::matrices(&weight.packed(), experts).ranges;
        assert_eq!(weight.offsets(&parts), weight.offsets(&ranges), "the same bytes");
        matrices.iter().map(|matrix| matrix.order).collect::<Vec<_>>()
    };
    assert_eq!(orders(&[2, 1]), [ReadOrder::Recent; 2]);
    assert_eq!(orders(&[2, 1, 1, 0]), [ReadOrder::InTurn; 3]);
    let one = Weight::new(PackedLayout { experts: 1, ..LAYOUT });
    assert_eq!(Reads::matrices(&one.packed(), &[0]).matrices[0].order, ReadOrder::Recent);
}

#[test]
fn weights_are_requested_only_where_memory_is_smaller() {
    let budget = |bytes, available| Prefetch::in_memory(bytes, available).map(|prefetch| prefetch.budget);
    assert_eq!(budget(7 << 27, 1 << 30), None);
    assert_eq!(budget((7 << 27) + 1, 1 << 30), Some(7 << 27));
    assert_eq!(budget(0, 0), None);
    assert!(Prefetch::for_weights(0).is_none());
    // nothing has so many bytes
    assert_eq!(Prefetch::for_weights(u64::MAX).is_some(), cfg!(target_os = "linux"));
}
