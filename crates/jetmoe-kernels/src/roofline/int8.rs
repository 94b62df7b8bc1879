//! The peak of 8-bit integer arithmetic, with the products of each instruction set.
//!
//! The products are written in assembly, because a compiler moves a product of the same operands out of the loop.

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use std::arch::asm;
use std::time::Instant;

use crate::{Isa, Threads};

/// Steps of a measurement: each multiplies and adds to every sum of a thread. Some 10 ms.
const STEPS: usize = 1 << 21;

/// Operations per second on 8-bit integers that all threads together compute in registers with the products that the
/// kernels of an instruction set use, a multiply-add counted as two. `None` for the generic kernels, which have none, and for AMX,
/// which multiplies bfloat16 numbers.
pub fn int8_operations_per_second(threads: &dyn Threads, isa: Isa) -> Option<f64> {
    let multiply_adds = multiply_adds_per_step(isa)?;
    let started = Instant::now();
    threads.run(&|_| multiply(isa));
    let steps = threads.count() * STEPS;
    Some((2 * steps * multiply_adds) as f64 / started.elapsed().as_secs_f64())
}

/// Multiply-adds that a step computes.
fn multiply_adds_per_step(isa: Isa) -> Option<usize> {
    match isa {
        Isa::Generic | Isa::Amx => None,
        Isa::Avx2 | Isa::AvxVnni => Some(SUMS * 32),
        Isa::Avx512Vnni => Some(SUMS * 64),
        Isa::Neon => Some(SUMS * 16),
        Isa::NeonI8mm => Some(SUMS * 32),
    }
}

/// Independent sums. AVX2 has 16 registers, and needs 3 for operands and one for products.
const SUMS: usize = 12;

/// Computes all steps of one thread.
fn multiply(isa: Isa) {
    match isa {
        Isa::Generic | Isa::Amx => {}
        #[cfg(target_arch = "x86_64")]
        // SAFETY: an Isa exists only where the processor supports it.
        Isa::Avx2 => unsafe { avx2() },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx512Vnni => unsafe { avx512vnni() },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::AvxVnni => unsafe { avxvnni() },
        #[cfg(not(target_arch = "x86_64"))]
        Isa::Avx2 | Isa::AvxVnni | Isa::Avx512Vnni => {
            unreachable!("not an instruction set of this processor")
        }
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        Isa::Neon => unsafe { neon() },
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        Isa::NeonI8mm => unsafe { neoni8mm() },
        #[cfg(not(target_arch = "aarch64"))]
        Isa::Neon | Isa::NeonI8mm => unreachable!("not an instruction set of this processor"),
    }
}

/// Computes a product for each of the sums, which are numbered from 0, in `STEPS` steps. A clobbered register has any width.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! repeat {
    ($product:ident, $decrement:literal, $jump:literal, $($register:tt)*) => {
        // SAFETY: changes the listed registers only. Their values do not matter.
        unsafe {
            asm!(
                "2:",
                $product!("0"), $product!("1"), $product!("2"), $product!("3"), $product!("4"), $product!("5"),
                $product!("6"), $product!("7"), $product!("8"), $product!("9"), $product!("10"), $product!("11"),
                $decrement,
                $jump,
                steps = inout(reg) STEPS => _,
                $(out($register) _,)*
                options(nostack, nomem),
            )
        }
    };
}

#[cfg(target_arch = "x86_64")]
macro_rules! repeat_on_x86 {
    ($product:ident) => {
        repeat!(
            $product, "dec {steps}", "jnz 2b",
            "xmm0" "xmm1" "xmm2" "xmm3" "xmm4" "xmm5" "xmm6" "xmm7"
            "xmm8" "xmm9" "xmm10" "xmm11" "xmm12" "xmm13" "xmm14" "xmm15"
        )
    };
}

/// Products of bytes, added in pairs and pairs of pairs, and their addition to a sum.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn avx2() {
    macro_rules! product {
        ($sum:literal) => {
            concat!(
                "vpmaddubsw ymm15, ymm12, ymm13\n",
                "vpmaddwd ymm15, ymm15, ymm14\n",
                "vpaddd ymm",
                $sum,
                ", ymm",
                $sum,
                ", ymm15"
            )
        };
    }
    repeat_on_x86!(product);
}

/// The dot products of AVX-VNNI.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,avxvnni")]
fn avxvnni() {
    macro_rules! product {
        ($sum:literal) => {
            concat!("{{vex}} vpdpbusd ymm", $sum, ", ymm12, ymm13")
        };
    }
    repeat_on_x86!(product);
}

/// The dot products of VNNI.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vnni")]
fn avx512vnni() {
    macro_rules! product {
        ($sum:literal) => {
            concat!("vpdpbusd zmm", $sum, ", zmm12, zmm13")
        };
    }
    repeat_on_x86!(product);
}

#[cfg(target_arch = "aarch64")]
macro_rules! repeat_on_arm {
    ($product:ident) => {
        repeat!(
            $product, "subs {steps}, {steps}, #1", "b.ne 2b",
            "v0" "v1" "v2" "v3" "v4" "v5" "v6" "v7" "v8" "v9" "v10" "v11" "v12" "v13"
        )
    };
}

/// The dot products of ARMv8.2.
#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon,dotprod")]
fn neon() {
    macro_rules! product {
        ($sum:literal) => {
            concat!("sdot v", $sum, ".4s, v12.16b, v13.16b")
        };
    }
    repeat_on_arm!(product);
}

/// The matrix products of ARMv8.6.
#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon,i8mm")]
fn neoni8mm() {
    macro_rules! product {
        ($sum:literal) => {
            concat!("smmla v", $sum, ".4s, v12.16b, v13.16b")
        };
    }
    repeat_on_arm!(product);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ScopedThreads;

    #[test]
    fn every_instruction_set_that_multiplies_integers_has_a_peak() {
        assert_eq!(int8_operations_per_second(&ScopedThreads(1), Isa::Generic), None);
        for isa in Isa::available() {
            if matches!(isa, Isa::Generic | Isa::Amx) {
                continue;
            }
            let peak = int8_operations_per_second(&ScopedThreads(2), isa).unwrap();
            assert!(peak > 1e9 && peak < 1e15, "{isa}: {peak}");
        }
    }
}
