//! Which instructions the kernels use.

use std::fmt;

use crate::{Error, Result};

/// A set of instructions that this processor has. A value of this type exists only where it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct InstructionSet(Kind);

/// Every set that there are kernels for, the best last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    Plain,
    Avx2,
    Avx512Vnni,
    Amx,
    Neon,
}

/// The environment variable that forces one.
const VARIABLE: &str = "JETMOE_KERNELS";

impl Kind {
    const ALL: &[Kind] = &[Kind::Plain, Kind::Avx2, Kind::Avx512Vnni, Kind::Amx, Kind::Neon];

    fn name(self) -> &'static str {
        match self {
            Kind::Plain => "plain",
            Kind::Avx2 => "avx2",
            Kind::Avx512Vnni => "avx512vnni",
            Kind::Amx => "amx",
            Kind::Neon => "neon",
        }
    }

    fn is_here(self) -> bool {
        match self {
            Kind::Plain => true,
            #[cfg(target_arch = "x86_64")]
            Kind::Avx2 => {
                std::is_x86_feature_detected!("avx2")
                    && std::is_x86_feature_detected!("fma")
                    && std::is_x86_feature_detected!("f16c")
            }
            #[cfg(target_arch = "x86_64")]
            Kind::Avx512Vnni => {
                Kind::Avx2.is_here()
                    && std::is_x86_feature_detected!("avx512f")
                    && std::is_x86_feature_detected!("avx512bw")
                    && std::is_x86_feature_detected!("avx512vl")
                    && std::is_x86_feature_detected!("avx512vnni")
            }
            #[cfg(target_arch = "x86_64")]
            Kind::Amx => Kind::Avx512Vnni.is_here() && crate::product::amx_is_allowed(),
            #[cfg(not(target_arch = "x86_64"))]
            Kind::Avx2 | Kind::Avx512Vnni | Kind::Amx => false,
            // its loads take bytes of numbers of 16 and 32 bits in this order
            #[cfg(target_arch = "aarch64")]
            Kind::Neon => {
                cfg!(target_endian = "little") && std::arch::is_aarch64_feature_detected!("dotprod")
            }
            #[cfg(not(target_arch = "aarch64"))]
            Kind::Neon => false,
        }
    }
}

impl InstructionSet {
    /// The plain path, which every processor has and which defines what the others compute.
    pub const PLAIN: InstructionSet = InstructionSet(Kind::Plain);

    /// Those that this processor has, the best last.
    pub fn available() -> Vec<InstructionSet> {
        Kind::ALL.iter().copied().filter(|kind| kind.is_here()).map(InstructionSet).collect()
    }

    /// The best that this processor has.
    pub fn best() -> InstructionSet {
        Self::available().last().copied().unwrap_or(Self::PLAIN)
    }

    /// The set that the environment variable `JETMOE_KERNELS` names, else the best.
    ///
    /// # Errors
    /// A name that is unknown, or a set that this processor does not have.
    pub fn chosen() -> Result<InstructionSet> {
        match std::env::var(VARIABLE) {
            Ok(name) if !name.is_empty() => Self::named(&name),
            _ => Ok(Self::best()),
        }
    }

    /// The set of a name.
    ///
    /// # Errors
    /// A name that is unknown, or a set that this processor does not have.
    pub fn named(name: &str) -> Result<InstructionSet> {
        let available = Self::available();
        let list = |names: &mut dyn Iterator<Item = &'static str>| names.collect::<Vec<_>>().join(", ");
        available.iter().copied().find(|set| set.0.name() == name).ok_or_else(|| Error::InstructionSet {
            name: name.to_owned(),
            known: list(&mut Kind::ALL.iter().map(|kind| kind.name())),
            available: list(&mut available.iter().map(|set| set.0.name())),
        })
    }

    pub(crate) fn kind(self) -> Kind {
        self.0
    }
}

impl fmt::Display for InstructionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Prints what the other tests cover here: `cargo test -p jetmoe-kernels available -- --nocapture`.
    #[test]
    #[allow(clippy::print_stdout, reason = "the sets differ from machine to machine")]
    fn every_available_set_has_a_name_that_forces_it() {
        for set in InstructionSet::available() {
            println!("this processor has {set}");
            assert_eq!(InstructionSet::named(&set.to_string()), Ok(set));
        }
    }
}
