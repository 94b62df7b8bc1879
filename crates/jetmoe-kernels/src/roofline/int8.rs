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
        #[cfg(not(target_arch = "aarch64"))]
        Isa::Neon => unreachable!("not an instruction set of this processor"),
    }
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
    // SAFETY: changes the listed registers only. Their values do not matter.
    unsafe {
        asm!(
            "2:",
            product!("0"), product!("1"), product!("2"), product!("3"), product!("4"), product!("5"),
            product!("6"), product!("7"), product!("8"), product!("9"), product!("10"), product!("11"),
            "dec {steps}",
            "jnz 2b",
            steps = inout(reg) STEPS => _,
            out("ymm0") _, out("ymm1") _, out("ymm2") _, out("ymm3") _, out("ymm4") _, out("ymm5") _,
            out("ymm6") _, out("ymm7") _, out("ymm8") _, out("ymm9") _, out("ymm10") _, out("ymm11") _,
            out("ymm12") _, out("ymm13") _, out("ymm14") _, out("ymm15") _,
            options(nostack, nomem),
        )
    }
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
    // SAFETY: changes the listed registers only. Their values do not matter.
    unsafe {
        asm!(
            "2:",
            product!("0"), product!("1"), product!("2"), product!("3"), product!("4"), product!("5"),
            product!("6"), product!("7"), product!("8"), product!("9"), product!("10"), product!("11"),
            "dec {steps}",
            "jnz 2b",
            steps = inout(reg) STEPS => _,
            out("ymm0") _, out("ymm1") _, out("ymm2") _, out("ymm3") _, out("ymm4") _, out("ymm5") _,
            out("ymm6") _, out("ymm7") _, out("ymm8") _, out("ymm9") _, out("ymm10") _, out("ymm11") _,
            out("ymm12") _, out("ymm13") _,
            options(nostack, nomem),
        )
    }
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
    // SAFETY: changes the listed registers only. Their values do not matter.
    unsafe {
        asm!(
            "2:",
            product!("0"), product!("1"), product!("2"), product!("3"), product!("4"), product!("5"),
            product!("6"), product!("7"), product!("8"), product!("9"), product!("10"), product!("11"),
            "dec {steps}",
            "jnz 2b",
            steps = inout(reg) STEPS => _,
            out("zmm0") _, out("zmm1") _, out("zmm2") _, out("zmm3") _, out("zmm4") _, out("zmm5") _,
            out("zmm6") _, out("zmm7") _, out("zmm8") _, out("zmm9") _, out("zmm10") _, out("zmm11") _,
            out("zmm12") _, out("zmm13") _,
            options(nostack, nomem),
        )
    }
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
    // SAFETY: changes the listed registers only. Their values do not matter.
    unsafe {
        asm!(
            "2:",
            product!("0"), product!("1"), product!("2"), product!("3"), product!("4"), product!("5"),
            product!("6"), product!("7"), product!("8"), product!("9"), product!("10"), product!("11"),
            "subs {steps}, {steps}, #1",
            "b.ne 2b",
            steps = inout(reg) STEPS => _,
            out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _,
            out("v6") _, out("v7") _, out("v8") _, out("v9") _, out("v10") _, out("v11") _,
            out("v12") _, out("v13") _,
            options(nostack, nomem),
        )
    }
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
