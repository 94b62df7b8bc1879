//! The processor that a benchmark ran on: its name, its instruction sets, and the folder of its results.

use std::fmt::{self, Display, Formatter};
use std::fs;

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// A processor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Processor {
    name: String,
    /// Those that matter for products of matrices, the most capable last.
    instruction_sets: Vec<String>,
}

/// Flags of `/proc/cpuinfo` with the name of their instruction set, the most capable last.
const FLAGS: &[(&str, &str)] = &[
    ("avx2", "avx2"),
    ("avx_vnni", "avxvnni"),
    ("avx512f", "avx512"),
    ("avx512_bf16", "avx512bf16"),
    ("avx512_fp16", "avx512fp16"),
    ("avx512_vnni", "avx512vnni"),
    ("amx_bf16", "amxbf16"),
    ("amx_int8", "amx"),
    ("asimd", "neon"),
    ("asimddp", "dotprod"),
    ("bf16", "bf16"),
    ("i8mm", "i8mm"),
];

/// Words of a name that tell no processor from another.
const NOISE: &[&str] = &["processor", "cpu"];

impl Processor {
    /// The processor of this machine. Without `/proc` only its architecture is known.
    pub(crate) fn detect() -> Self {
        Self::from_cpuinfo(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default())
    }

    fn from_cpuinfo(text: &str) -> Self {
        let field = |name: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once(':'));
            lines.find(|(key, _)| key.trim() == name).map(|(_, value)| value.trim())
        };
        let flags: Vec<&str> = field("flags").or(field("Features")).unwrap_or_default().split(' ').collect();
        let sets = FLAGS.iter().filter(|(flag, _)| flags.contains(flag));
        Processor {
            name: field("model name").unwrap_or(std::env::consts::ARCH).to_owned(),
            instruction_sets: sets.map(|(_, set)| (*set).to_owned()).collect(),
        }
    }

    /// The processor that raw results name.
    pub(crate) fn of_results(raw: &Value) -> Result<Self> {
        let name = raw["processor"].as_str().context("the raw results name no processor; measure anew")?;
        let sets = raw["instruction_sets"].as_array();
        let sets = sets.context("the raw results name no instruction sets; measure anew")?;
        Ok(Processor {
            name: name.to_owned(),
            instruction_sets: sets.iter().filter_map(|set| Some(set.as_str()?.to_owned())).collect(),
        })
    }

    /// Fields of the raw results.
    pub(crate) fn write_to(&self, raw: &mut Value) {
        raw["processor"] = json!(self.name);
        raw["instruction_sets"] = json!(self.instruction_sets);
    }

    /// Name of the folder of its results: the words of its name, and its most capable instruction set.
    pub(crate) fn slug(&self) -> String {
        let name = self.name.to_lowercase().replace("(r)", " ").replace("(tm)", " ");
        let before_clock = name.split('@').next().unwrap_or_default();
        let words = before_clock.split(|letter: char| !letter.is_alphanumeric());
        let words = words.filter(|word| !word.is_empty() && !NOISE.contains(word));
        let best = self.instruction_sets.last().map(String::as_str);
        words.chain(best).collect::<Vec<_>>().join("-")
    }
}

impl Display for Processor {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self.instruction_sets.as_slice() {
            [] => formatter.write_str(&self.name),
            sets => write!(formatter, "{} with {}", self.name, sets.join(", ")),
        }
    }
}

/// Memory of this machine; without `/proc` there is no limit.
pub(crate) fn memory_bytes() -> u64 {
    parse_memory(&fs::read_to_string("/proc/meminfo").unwrap_or_default()).unwrap_or(u64::MAX)
}

fn parse_memory(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn processor(cpuinfo: &str) -> Processor {
        Processor::from_cpuinfo(cpuinfo)
    }

    #[test]
    fn name_and_sets_are_read_from_cpuinfo() {
        let epyc = processor(
            "processor\t: 0\nmodel name\t: AMD EPYC\nflags\t\t: fpu avx2 avx512f avx_vnni avx512_vnni\n\
             processor\t: 1\nmodel name\t: another\n",
        );
        assert_eq!(epyc.to_string(), "AMD EPYC with avx2, avxvnni, avx512, avx512vnni");
        assert_eq!(epyc.slug(), "amd-epyc-avx512vnni");
    }

    #[test]
    fn marks_and_the_clock_are_not_in_a_slug() {
        let name = "model name: Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz";
        assert_eq!(
            processor(&format!("{name}\nflags: avx2 amx_int8\n")).slug(),
            "intel-xeon-platinum-8481c-amx"
        );
        let arm = processor("Features\t: fp asimd asimddp i8mm\n");
        assert_eq!(arm.slug(), format!("{}-i8mm", std::env::consts::ARCH.replace('_', "-")));
    }

    #[test]
    fn without_cpuinfo_the_architecture_is_the_name() {
        assert_eq!(processor("").to_string(), std::env::consts::ARCH);
    }

    #[test]
    fn memory_is_in_bytes() {
        assert_eq!(parse_memory("MemTotal:       24 kB\nMemFree: 1 kB\n"), Some(24 << 10));
        assert_eq!(parse_memory(""), None);
    }

    #[test]
    fn raw_results_keep_the_processor() {
        let epyc = processor("model name: AMD EPYC\nflags: avx2\n");
        let mut raw = json!({ "rounds": [] });
        assert!(Processor::of_results(&raw).is_err());
        epyc.write_to(&mut raw);
        assert_eq!(Processor::of_results(&raw).unwrap(), epyc);
    }
}
