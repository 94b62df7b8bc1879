//! What became of a case.

use std::os::unix::process::ExitStatusExt;

use super::process::{Ended, Excess};

/// How a command took a mutated model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Outcome {
    /// An error with a message, or a failed verification.
    Refused,
    /// The result of a model.
    Accepted,
    /// A panic inside a library, which became an error.
    Caught,
    /// A panic.
    Panic,
    /// A signal, an abort included, or an exit status that no command has.
    Abort,
    /// Longer than the limit.
    Hang,
    /// More memory, or more output, than the limit.
    Excess,
    /// Something outside of the output folder was touched.
    Outside,
    /// Control characters of a file were printed as they are.
    Control,
}

impl Outcome {
    pub(crate) const ALL: [Outcome; 9] = [
        Outcome::Refused,
        Outcome::Accepted,
        Outcome::Caught,
        Outcome::Panic,
        Outcome::Abort,
        Outcome::Hang,
        Outcome::Excess,
        Outcome::Outside,
        Outcome::Control,
    ];

    /// Its column in the table of counts, and its key in the results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Outcome::Refused => "clean errors",
            Outcome::Accepted => "accepted",
            Outcome::Caught => "caught panics",
            Outcome::Panic => "panics",
            Outcome::Abort => "aborts",
            Outcome::Hang => "hangs",
            Outcome::Excess => "memory",
            Outcome::Outside => "outside",
            Outcome::Control => "control characters",
        }
    }

    /// Whether no command may end so.
    pub(crate) fn is_failure(self) -> bool {
        !matches!(self, Outcome::Refused | Outcome::Accepted | Outcome::Caught)
    }

    /// The outcome of a command that touched nothing else. `prints_text` says whether it prints a text that a model
    /// generated, which may hold anything.
    pub(crate) fn of(ended: &Ended, prints_text: bool) -> Self {
        match (ended.excess, ended.status.code()) {
            (Some(Excess::Time), _) => Outcome::Hang,
            (Some(Excess::Memory | Excess::Output), _) => Outcome::Excess,
            (None, None) => Outcome::Abort,
            (None, Some(101)) => Outcome::Panic,
            (None, Some(0..=2)) if panics_here(&ended.stderr) => Outcome::Panic,
            (None, Some(0..=2)) if has_controls(&ended.stderr) => Outcome::Control,
            (None, Some(0..=2)) if !prints_text && has_controls(&ended.stdout) => Outcome::Control,
            (None, Some(0..=2)) if ended.stderr.contains(PANICKED) => Outcome::Caught,
            (None, Some(0)) => Outcome::Accepted,
            (None, Some(1)) => Outcome::Refused,
            (None, Some(2)) if !ended.stderr.trim().is_empty() => Outcome::Refused,
            (None, Some(_)) => Outcome::Abort,
        }
    }
}

/// The standard library's message.
const PANICKED: &str = " panicked at ";

/// Whether code of this workspace panicked; a path of a dependency is in cargo's registry.
fn panics_here(stderr: &str) -> bool {
    let mut places = stderr.split(PANICKED).skip(1);
    places.any(|place| place.starts_with("crates/") || place.starts_with("src/"))
}

/// Where the first panic happened: file, line and column.
pub(crate) fn panic_place(stderr: &str) -> &str {
    stderr
        .split(PANICKED)
        .nth(1)
        .and_then(|rest| rest.lines().next())
        .unwrap_or_default()
        .trim_end_matches(':')
}

fn has_controls(text: &str) -> bool {
    text.chars().any(|letter| {
        letter.is_control() && letter != '\n'
            || matches!(letter, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    })
}

/// How a command ended, in words.
pub(crate) fn describe(ended: &Ended) -> String {
    let status = match (ended.status.code(), ended.status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "no exit status".to_owned(),
    };
    let (seconds, megabytes) = (ended.took.as_secs_f64(), ended.peak_bytes / 1_000_000);
    format!("{status} after {seconds:.2} s, {megabytes} MB at most")
}

#[cfg(test)]
mod tests {
    use std::process::ExitStatus;
    use std::time::Duration;

    use super::*;

    /// The outcome of a wait status: a signal in its lower byte, an exit status in the next one.
    fn outcome(wait_status: i32, excess: Option<Excess>, stderr: &str) -> Outcome {
        let ended = Ended {
            status: ExitStatus::from_raw(wait_status),
            excess,
            took: Duration::ZERO,
            peak_bytes: 0,
            stdout: String::new(),
            stderr: stderr.to_owned(),
        };
        Outcome::of(&ended, false)
    }

    #[test]
    fn every_end_of_a_command_has_its_outcome() {
        let exit = |status, stderr| outcome(status << 8, None, stderr);
        assert_eq!(exit(0, ""), Outcome::Accepted);
        assert_eq!(exit(1, ""), Outcome::Refused);
        assert_eq!(exit(2, "error: config.json is not valid\n"), Outcome::Refused);
        assert_eq!(exit(2, ""), Outcome::Abort);
        assert_eq!(exit(3, "error: "), Outcome::Abort);
        assert_eq!(exit(101, ""), Outcome::Panic);
        assert_eq!(exit(2, "thread 'main' panicked at /root/registry/x.rs:1:\nerror: x\n"), Outcome::Caught);
        assert_eq!(
            exit(2, "thread 'main' panicked at crates/jetmoe-rt/src/x.rs:1:\nerror: x\n"),
            Outcome::Panic
        );
        assert_eq!(exit(2, "error: \u{1b}[31m\n"), Outcome::Control);
        assert_eq!(outcome(6, None, ""), Outcome::Abort);
        assert_eq!(outcome(9, Some(Excess::Time), ""), Outcome::Hang);
        assert_eq!(outcome(9, Some(Excess::Memory), ""), Outcome::Excess);
    }
}
