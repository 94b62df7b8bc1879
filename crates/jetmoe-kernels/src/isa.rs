//! Instruction sets: which ones there are kernels for, which ones this processor has, and which one is used.

use strum::Display;

use crate::{Error, Result};

/// An instruction set that there are kernels for.
///
/// A value of this type is a proof that the processor has the instructions: code outside this crate can name
/// [`Isa::Generic`] only, and gets the others from [`Isa::available`] and its neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Display)]
#[strum(serialize_all = "lowercase")]
pub enum Isa {
    /// Plain Rust for any processor. It defines what the others compute.
    Generic,
    /// AVX2, FMA and F16C.
    #[non_exhaustive]
    Avx2,
    /// AVX2 and AVX-VNNI, of processors without AVX-512.
    #[non_exhaustive]
    AvxVnni,
    /// AVX-512 F, BW, VL and VNNI.
    #[non_exhaustive]
    Avx512Vnni,
    /// AMX-BF16 for experts with many rows, AVX-512 with VNNI for the others.
    #[non_exhaustive]
    Amx,
    /// NEON with the dot product of ARMv8.2.
    #[non_exhaustive]
    Neon,
    /// NEON with the dot product and the matrix products of 8-bit integers of ARMv8.6.
    #[non_exhaustive]
    NeonI8mm,
}

/// The environment variable that selects an instruction set.
const VARIABLE: &str = "JETMOE_KERNELS";

/// The former name of `generic`, which [`Isa::from_name`] still accepts.
const GENERIC_ALIAS: &str = "plain";

impl Isa {
    /// From the slowest to the fastest, as measured in `docs/kernels.md`.
    const ALL: [Isa; 7] =
        [Isa::Generic, Isa::Avx2, Isa::AvxVnni, Isa::Avx512Vnni, Isa::Amx, Isa::Neon, Isa::NeonI8mm];

    /// Whether this processor, and the operating system, support it.
    fn is_supported(self) -> bool {
        match self {
            Isa::Generic => true,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => {
                std::is_x86_feature_detected!("avx2")
                    && std::is_x86_feature_detected!("fma")
                    && std::is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            Isa::AvxVnni => Isa::Avx2.is_supported() && std::is_x86_feature_detected!("avxvnni"),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Vnni => {
                Isa::Avx2.is_supported()
                    && std::is_x86_feature_detected!("avx512f")
                    && std::is_x86_feature_detected!("avx512bw")
                    && std::is_x86_feature_detected!("avx512vl")
                    && std::is_x86_feature_detected!("avx512vnni")
            }
            #[cfg(target_arch = "x86_64")]
            Isa::Amx => Isa::Avx512Vnni.is_supported() && amx_is_supported(),
            // The kernels load 16-bit and 32-bit numbers as bytes, in little-endian order.
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => cfg!(target_endian = "little") && std::arch::is_aarch64_feature_detected!("dotprod"),
            #[cfg(target_arch = "aarch64")]
            Isa::NeonI8mm => Isa::Neon.is_supported() && std::arch::is_aarch64_feature_detected!("i8mm"),
            #[allow(unreachable_patterns, reason = "the instruction sets of other architectures")]
            _ => false,
        }
    }

    /// The instruction sets that this processor supports, the fastest last.
    pub fn available() -> Vec<Isa> {
        Self::ALL.into_iter().filter(|isa| isa.is_supported()).collect()
    }

    /// The fastest instruction set that this processor supports.
    pub fn best() -> Isa {
        Self::available().last().copied().unwrap_or(Isa::Generic)
    }

    /// This instruction set, or the fastest one below it with which a row has the same bits alone and beside others.
    #[must_use]
    pub fn batch_invariant(self) -> Isa {
        match self {
            // AMX multiplies bfloat16 where an expert has many rows, and 8-bit integers where it has few.
            Isa::Amx => Isa::Avx512Vnni,
            other => other,
        }
    }

    /// The instruction set that the environment variable `JETMOE_KERNELS` names, otherwise the fastest.
    ///
    /// # Errors
    /// An unknown name, or an instruction set that this processor does not support.
    pub fn from_env_or_best() -> Result<Isa> {
        match std::env::var(VARIABLE) {
            Ok(name) if !name.is_empty() => Self::from_name(&name),
            _ => Ok(Self::best()),
        }
    }

    /// The instruction set of a name; `plain` is another name of `generic`.
    ///
    /// # Errors
    /// An unknown name, or an instruction set that this processor does not support.
    pub fn from_name(name: &str) -> Result<Isa> {
        let has_name = |isa: &Isa| isa.to_string() == name || *isa == Isa::Generic && name == GENERIC_ALIAS;
        let available = Self::available();
        let list = |isas: &[Isa]| isas.iter().map(Isa::to_string).collect::<Vec<_>>().join(", ");
        available.iter().copied().find(has_name).ok_or_else(|| Error::UnsupportedIsa {
            name: name.to_owned(),
            known: list(&Self::ALL),
            available: list(&available),
        })
    }
}

/// Whether the processor multiplies tiles of bfloat16 numbers and the system lets this process use them.
#[cfg(target_arch = "x86_64")]
fn amx_is_supported() -> bool {
    use std::arch::x86_64::__cpuid_count;

    // CPUID leaf 7, EDX: AMX-BF16 and AMX-TILE. The standard library's detection of them is not stable yet.
    const AMX_BF16_AND_TILE: u32 = 1 << 22 | 1 << 24;
    cfg!(jetmoe_emulated_tiles)
        || __cpuid_count(0, 0).eax >= 7
            && __cpuid_count(7, 0).edx & AMX_BF16_AND_TILE == AMX_BF16_AND_TILE
            && request_tile_permission()
}

/// Asks Linux to save this process's tiles when it switches threads. Without permission the first tile instruction ends
/// the process.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn request_tile_permission() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    // SAFETY: this system call takes two numbers and touches no memory of the process.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

#[cfg(all(target_arch = "x86_64", not(target_os = "linux")))]
fn request_tile_permission() -> bool {
    false
}

#[cfg(test)]
mod tests;
