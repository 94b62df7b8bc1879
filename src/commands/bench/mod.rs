//! `jetmoe bench`: load time, memory and speed of a model, compared with the limits of the machine.

mod machine;
mod measure;
mod memory;
mod report;
mod spread;
mod traffic;

use anyhow::Context;
use clap::Args;
use jetmoe_artifact::{Artifact, Task};
use jetmoe_console::step_bar;
use jetmoe_rt::{Backend, LoadOptions, choose_graph};

use self::machine::Machine;
use self::measure::Plan;
use self::report::{Measured, Report};
use super::model::{ModelArguments, Opened};
use super::{ExitStatus, Format, SCHEMA};

/// Measure load time, memory and tokens per second, and compare them with the limits of the machine.
///
/// Prompts are random tokens, so no tokenizer is needed. Read bandwidth and peak arithmetic of the machine are measured
/// first, with the same number of threads. The bytes of a step are those of the stored weights that it reads: routers,
/// projections, head, and the experts that its tokens choose on average if they choose independently and evenly.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  jetmoe bench --model artifact --precision q4\n  \
                        jetmoe bench --model artifact --backend ort,tract --prompt-tokens 64,2048 --batch 1,8")]
pub(crate) struct Bench {
    #[command(flatten)]
    model: ModelArguments,
    /// Backends to measure in turn, as in ort,tract.
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "ort", value_parser = jetmoe_rt::backend)]
    backend: Vec<&'static dyn Backend>,
    /// Lengths of the prompts in tokens.
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "128,512")]
    prompt_tokens: Vec<usize>,
    /// Tokens to decode after each prompt, one per step.
    #[arg(long, value_name = "N", default_value_t = 32)]
    new_tokens: usize,
    /// Batch sizes.
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1")]
    batch: Vec<usize>,
    /// Measurements of each prompt and its continuation, after one to warm up.
    #[arg(long, value_name = "N", default_value_t = 3)]
    repetitions: usize,
    /// The same seed gives the same prompts.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Print a table or JSON.
    #[arg(long, default_value = "table")]
    format: Format,
}

impl Bench {
    pub(crate) fn execute(self) -> anyhow::Result<ExitStatus> {
        self.check_numbers()?;
        let opened = self.model.open()?;
        let Opened::Artifact(artifact) = &opened else {
            anyhow::bail!(
                "{0} is a checkpoint, and bench measures artifacts\n  export it: jetmoe-export {0} --output DIR",
                self.model.model
            );
        };
        self.model.require_task(&opened, Task::CausalLm)?;
        self.check_positions(artifact)?;
        // refuses a missing graph of any backend before the first one is measured
        for backend in &self.backend {
            choose_graph(artifact, *backend, &self.load_options(*backend)?)?;
        }
        let machine = Machine::measure(self.model.threads())?;
        let results = self.backend.iter().map(|backend| self.measure(artifact, *backend, &machine));
        let results = results.collect::<anyhow::Result<Vec<_>>>()?;
        let report = Report { schema_version: SCHEMA, model: self.model.model, machine, results };
        self.format.print(&report, || report.table())?;
        Ok(ExitStatus::Success)
    }

    fn check_numbers(&self) -> anyhow::Result<()> {
        let least = |numbers: &[usize]| numbers.iter().copied().min().unwrap_or(0);
        for (flag, number) in [
            ("prompt-tokens", least(&self.prompt_tokens)),
            ("new-tokens", self.new_tokens),
            ("batch", least(&self.batch)),
            ("repetitions", self.repetitions),
        ] {
            anyhow::ensure!(number >= 1, "--{flag} is {number}, expected at least 1");
        }
        Ok(())
    }

    /// Refuses more tokens than the model has positions, before it is loaded.
    fn check_positions(&self, artifact: &Artifact) -> anyhow::Result<()> {
        let positions = artifact.config().max_position_embeddings;
        let longest = self.prompt_tokens.iter().copied().max().unwrap_or(0);
        let fits = longest.checked_add(self.new_tokens).is_some_and(|tokens| tokens <= positions);
        let advice = match positions.checked_sub(self.new_tokens).filter(|most| *most > 0) {
            Some(most) => format!("give --prompt-tokens {most} or less, or fewer --new-tokens"),
            None => format!("give --new-tokens {} or less", positions.saturating_sub(1)),
        };
        anyhow::ensure!(
            fits,
            "--prompt-tokens {longest} and --new-tokens {} need more positions than {} has: {positions}\n  {advice}",
            self.new_tokens,
            self.model.model
        );
        Ok(())
    }

    fn load_options(&self, backend: &'static dyn Backend) -> anyhow::Result<LoadOptions> {
        Ok(self.model.load_options()?.with_backend(backend))
    }

    fn measure(
        &self,
        artifact: &Artifact,
        backend: &'static dyn Backend,
        machine: &Machine,
    ) -> anyhow::Result<Measured> {
        let name = backend.name();
        let plan = Plan {
            batches: &self.batch,
            prompt_tokens: &self.prompt_tokens,
            new_tokens: self.new_tokens,
            repetitions: self.repetitions,
            seed: self.seed,
        };
        let bar = step_bar(format!("measuring {name}"), plan.rounds() as u64);
        measure::measure(artifact, &self.load_options(backend)?, backend, &plan, machine, &bar)
            .with_context(|| format!("{name} could not be measured"))
    }
}
