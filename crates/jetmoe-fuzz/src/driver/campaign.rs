//! Many cases, several at a time, and what is kept of them.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

use super::bases::Bases;
use super::case::{self, Finished, Programs};
use super::outcome::Outcome;
use super::process::processor_seconds;
use super::results::Results;

/// Cases run with the same programs and models.
#[derive(Debug)]
pub(crate) struct Campaign {
    /// Folder for cases and failures.
    pub(crate) folder: PathBuf,
    pub(crate) programs: Programs,
    pub(crate) bases: Bases,
}

/// How often results are written.
const SAVED_EVERY: Duration = Duration::from_secs(20);

impl Campaign {
    /// Runs one case, and keeps its folder. Returns whether it did not fail.
    pub(crate) fn repeat(&self, seed: u64) -> Result<bool> {
        let folder = self.folder.join("cases").join(seed.to_string());
        let case = self.run_case(seed, &folder)?;
        fs::write(folder.join("case.txt"), case.report())?;
        println!(
            "{}\n{}{}\nkept in {}",
            case.report(),
            case.ended.stdout,
            case.ended.stderr,
            folder.display()
        );
        Ok(!case.outcome.is_failure())
    }

    /// Runs cases for a time. Returns whether none failed.
    pub(crate) fn run(
        &self,
        time: Duration,
        seed: Option<u64>,
        jobs: usize,
        file: Option<&Path>,
    ) -> Result<bool> {
        let earlier = file.map(Results::read).transpose()?.unwrap_or_default();
        let first = seed.unwrap_or(earlier.next_seed);
        let (before, saved) = ((earlier.seconds, earlier.processor_seconds), Instant::now());
        let progress = Mutex::new(Progress { before, results: earlier, saved });
        let (next, begin) = (AtomicU64::new(first), Instant::now());
        let worker = |job: usize| -> Result<()> {
            let folder = self.folder.join("work").join(job.to_string());
            while begin.elapsed() < time {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                let case = self.run_case(seed, &folder).with_context(|| format!("seed {seed}"))?;
                if case.outcome.is_failure() {
                    println!("{}", case.report());
                    self.keep(&case, &folder)?;
                }
                let mut progress = progress.lock().map_err(|_| anyhow!("another job panicked"))?;
                progress.results.add(&case);
                progress.save(begin, &next, file, false)?;
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let worker = &worker;
            let jobs: Vec<_> = (0..jobs.max(1)).map(|job| scope.spawn(move || worker(job))).collect();
            jobs.into_iter().try_for_each(|job| job.join().unwrap_or_else(|_| Err(anyhow!("a job panicked"))))
        })?;
        let mut progress = progress.into_inner().map_err(|_| anyhow!("a job panicked"))?;
        progress.save(begin, &next, file, true)?;
        let work = self.folder.join("work");
        if work.exists() {
            fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))?;
        }
        let results = progress.results;
        println!(
            "{}\n{} cases, seeds {first} to {}, in {:.1} min and {:.2} processor hours: {} failed",
            results.tables(),
            results.cases(),
            results.next_seed.saturating_sub(1),
            results.seconds / 60.0,
            results.processor_seconds / 3600.0,
            results.failures()
        );
        if results.failures() > 0 {
            println!(
                "Folders of the failures are in {}.\nRepeat one with\n    cargo xtask fuzz --case SEED\nand the same --build",
                self.folder.join("failures").display()
            );
        }
        Ok(results.failures() == 0)
    }

    /// Runs a case; one that takes too long runs a second time, as the machine may have been busy.
    fn run_case(&self, seed: u64, folder: &Path) -> Result<Finished> {
        let run = || {
            catch_unwind(AssertUnwindSafe(|| case::run(seed, folder, &self.programs, &self.bases)))
                .unwrap_or_else(|_| Err(anyhow!("the check of the graph panicked in this process")))
        };
        let case = run()?;
        if case.outcome == Outcome::Hang { run() } else { Ok(case) }
    }

    /// Moves the folder of a failure to the others.
    fn keep(&self, case: &Finished, folder: &Path) -> Result<()> {
        let failures = self.folder.join("failures");
        fs::create_dir_all(&failures)?;
        let kept = failures.join(case.seed.to_string());
        if kept.exists() {
            fs::remove_dir_all(&kept)?;
        }
        fs::rename(folder, &kept)?;
        let repeat = format!("\nrepeat: cargo xtask fuzz --case {}\n", case.seed);
        Ok(fs::write(kept.join("case.txt"), case.report() + &repeat)?)
    }
}

/// Results while cases run.
#[derive(Debug)]
struct Progress {
    results: Results,
    /// Time and processor time of earlier runs, in seconds.
    before: (f64, f64),
    saved: Instant,
}

impl Progress {
    /// Writes the results, if it is time to.
    fn save(&mut self, begin: Instant, next: &AtomicU64, file: Option<&Path>, is_end: bool) -> Result<()> {
        if !is_end && self.saved.elapsed() < SAVED_EVERY {
            return Ok(());
        }
        self.saved = Instant::now();
        self.results.next_seed = next.load(Ordering::Relaxed);
        self.results.seconds = self.before.0 + begin.elapsed().as_secs_f64();
        self.results.processor_seconds = self.before.1 + processor_seconds();
        file.map_or(Ok(()), |file| self.results.write(file))
    }
}
