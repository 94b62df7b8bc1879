//! The list of tests, and how one is run.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use libtest_mimic::{Failed, Trial};

use crate::known_failures::{KNOWN_FAILURES, check_against_known_failures};
use crate::subject::{Subject, has_device};

/// A test function of a subject, with its name.
pub(crate) type SubjectTest = (&'static str, fn(Subject));

/// Functions with their names, as tests.
macro_rules! named {
    ($($test:ident),+ $(,)?) => { &[$((stringify!($test), $test as _)),+] };
}
pub(crate) use named;

/// Every test, in the order in which they run.
#[derive(Default)]
pub(crate) struct Suite {
    trials: Vec<Trial>,
}

impl Suite {
    /// Adds a test of a subject; `path` is its name below the subject.
    pub(crate) fn add(
        &mut self,
        subject: Subject,
        path: String,
        test: impl FnOnce(Subject) + Send + 'static,
    ) {
        self.trials.push(Trial::test(format!("{subject}::{path}"), move || {
            let start = Instant::now();
            let outcome = run(|| test(subject));
            measured(&format!("{subject}::{path} took {:.1} s", start.elapsed().as_secs_f64()));
            let (backend, test) = (subject.backend.to_string(), subject.path(&path));
            check_against_known_failures(KNOWN_FAILURES, &backend, &test, outcome).map_err(Failed::from)
        }));
    }

    /// Adds tests of a subject under a group.
    pub(crate) fn add_group(&mut self, subject: Subject, group: &str, tests: &[SubjectTest]) {
        for (name, test) in tests {
            self.add(subject, format!("{group}::{name}"), *test);
        }
    }

    /// Adds a test of no backend.
    pub(crate) fn add_general(&mut self, path: String, test: impl FnOnce() + Send + 'static) {
        self.trials.push(Trial::test(path, move || run(test).map_err(Failed::from)));
    }

    /// Adds tests of no backend under a group.
    pub(crate) fn add_general_group(&mut self, group: &str, tests: &[(&'static str, fn())]) {
        for (name, test) in tests {
            self.add_general(format!("{group}::{name}"), *test);
        }
    }

    /// The tests for the harness.
    ///
    /// # Panics
    /// If a known failure of a backend of this build names a test that does not exist.
    pub(crate) fn into_trials(self) -> Vec<Trial> {
        // a device has fewer tests than the CPU
        let backends: Vec<String> = if has_device() {
            Vec::new()
        } else {
            Subject::backends().iter().map(ToString::to_string).collect()
        };
        for failure in KNOWN_FAILURES.iter().filter(|known| backends.iter().any(|name| name == known.backend))
        {
            let prefix = format!("{}::", failure.backend);
            let mut tests = self.trials.iter().filter_map(|trial| trial.name().strip_prefix(&prefix));
            assert!(tests.any(|test| failure.covers(test)), "no test is called {prefix}{}", failure.test);
        }
        self.trials
    }
}

fn run(test: impl FnOnce()) -> Result<(), String> {
    catch_unwind(AssertUnwindSafe(test)).map_err(|panic| message(&*panic))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked").to_owned()
}

static PRINTS: AtomicBool = AtomicBool::new(false);

/// Chooses whether [`measured`] prints.
pub(crate) fn print_measurements(prints: bool) {
    PRINTS.store(prints, Ordering::Relaxed);
}

/// Prints what a test measured, with `--nocapture`.
pub(crate) fn measured(text: &str) {
    if PRINTS.load(Ordering::Relaxed) {
        println!("{text}");
    }
}
