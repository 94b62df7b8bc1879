//! NEON: four vectors of 4 numbers.

use std::arch::aarch64::*;

use half::f16;

use super::{LANES, Simd, Work};

/// The instructions. Exists only in the functions of this file.
#[derive(Clone, Copy)]
struct Neon(());

#[target_feature(enable = "neon")]
pub(super) fn run(work: impl Work) {
    work.run(Neon(()));
}

impl Simd for Neon {
    type Floats = [float32x4_t; 4];

    const HAS_MANY_REGISTERS: bool = false;

    #[inline(always)]
    fn splat(self, value: f32) -> Self::Floats {
        // SAFETY: self exists, so the processor has NEON.
        unsafe { [vdupq_n_f32(value); 4] }
    }

    #[inline(always)]
    fn load(self, numbers: &[f32; LANES]) -> Self::Floats {
        let numbers = numbers.as_ptr();
        // SAFETY: as above; reads the 16 numbers of the array, at any alignment.
        unsafe { std::array::from_fn(|part| vld1q_f32(numbers.add(4 * part))) }
    }

    #[inline(always)]
    fn load_bytes(self, bytes: &[u8; 4 * LANES]) -> Self::Floats {
        let bytes = bytes.as_ptr();
        // SAFETY: as above; reads the 64 bytes of the array.
        unsafe { std::array::from_fn(|part| vreinterpretq_f32_u8(vld1q_u8(bytes.add(16 * part)))) }
    }

    #[inline(always)]
    fn load_halves(self, bytes: &[u8; 2 * LANES]) -> Self::Floats {
        // the intrinsics for float16 are not stable yet
        let (words, _) = bytes.as_chunks::<2>();
        let numbers: [f32; LANES] = std::array::from_fn(|lane| f16::from_le_bytes(words[lane]).to_f32());
        self.load(&numbers)
    }

    #[inline(always)]
    fn load_codes(self, bytes: &[u8; LANES]) -> Self::Floats {
        // SAFETY: as above; reads the 16 bytes of the array.
        unsafe {
            let codes = vreinterpretq_s8_u8(vld1q_u8(bytes.as_ptr()));
            let (low, high) = (vmovl_s8(vget_low_s8(codes)), vmovl_s8(vget_high_s8(codes)));
            [
                vmovl_s16(vget_low_s16(low)),
                vmovl_s16(vget_high_s16(low)),
                vmovl_s16(vget_low_s16(high)),
                vmovl_s16(vget_high_s16(high)),
            ]
            .map(|codes| vcvtq_f32_s32(codes))
        }
    }

    #[inline(always)]
    fn store(self, numbers: &mut [f32; LANES], values: Self::Floats) {
        let numbers = numbers.as_mut_ptr();
        for (part, values) in values.into_iter().enumerate() {
            // SAFETY: as above; writes the 16 numbers of the array, at any alignment.
            unsafe { vst1q_f32(numbers.add(4 * part), values) };
        }
    }

    #[inline(always)]
    fn mul(self, a: Self::Floats, b: Self::Floats) -> Self::Floats {
        // SAFETY: self exists, so the processor has NEON.
        unsafe { std::array::from_fn(|part| vmulq_f32(a[part], b[part])) }
    }

    #[inline(always)]
    fn mul_add(self, a: Self::Floats, b: Self::Floats, c: Self::Floats) -> Self::Floats {
        // SAFETY: self exists, so the processor has NEON.
        unsafe { std::array::from_fn(|part| vfmaq_f32(c[part], a[part], b[part])) }
    }

    #[inline(always)]
    fn sums(self, vectors: [Self::Floats; 4]) -> [f32; 4] {
        vectors.map(|[a, b, c, d]| {
            // SAFETY: self exists, so the processor has NEON.
            unsafe {
                let four = vaddq_f32(vaddq_f32(a, c), vaddq_f32(b, d));
                let two = vadd_f32(vget_low_f32(four), vget_high_f32(four));
                vget_lane_f32::<0>(two) + vget_lane_f32::<1>(two)
            }
        })
    }
}
