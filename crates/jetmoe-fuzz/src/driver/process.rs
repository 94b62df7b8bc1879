//! A command, with limits on its time, its memory and what it writes.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process_group, setrlimit};

/// The longest time of a command, without what it waited for a processor that others used.
pub(crate) const MAX_TIME: Duration = Duration::from_secs(30);

/// The most resident memory of a command, in bytes, mapped files included.
pub(crate) const MAX_MEMORY: u64 = 2_000_000_000;

/// The most that a command prints, in bytes.
const MAX_OUTPUT: u64 = 64 << 20;

/// The longest file that a command writes, in bytes: protects the machine that fuzzes.
const MAX_FILE: u64 = 16 << 30;

/// How much of an output is kept, in bytes.
const KEPT_OUTPUT: u64 = 1 << 20;

/// Limits the size of files that this process and its children write, and disables core dumps.
pub(crate) fn limit_files() -> Result<()> {
    let limit = |bytes| Rlimit { current: Some(bytes), maximum: Some(bytes) };
    setrlimit(Resource::Fsize, limit(MAX_FILE))?;
    setrlimit(Resource::Core, limit(0))?;
    Ok(())
}

/// Why a command was killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Excess {
    Time,
    Memory,
    Output,
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) excess: Option<Excess>,
    pub(crate) took: Duration,
    /// The most resident memory that was seen, in bytes.
    pub(crate) peak_bytes: u64,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a command; what it prints goes to the files `stdout` and `stderr` of a folder.
pub(crate) fn run(command: &mut Command, folder: &Path) -> Result<Ended> {
    let (stdout, stderr) = (folder.join("stdout"), folder.join("stderr"));
    let file = |path: &Path| File::create(path).with_context(|| format!("cannot create {}", path.display()));
    command.stdin(Stdio::null()).stdout(file(&stdout)?).stderr(file(&stderr)?);
    // what it starts is killed with it: it would go on to write, into files that have no name any more
    command.process_group(0);
    let begin = Instant::now();
    let mut child = command.spawn().context("the command cannot be started")?;
    let mut peak_bytes = 0;
    let mut excess = None;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        peak_bytes = peak_bytes.max(peak_memory(&child).unwrap_or(0));
        let printed = || {
            [&stdout, &stderr].iter().filter_map(|path| path.metadata().ok()).map(|it| it.len()).sum::<u64>()
        };
        excess = match () {
            () if peak_bytes > MAX_MEMORY => Some(Excess::Memory),
            () if begin.elapsed() > MAX_TIME + waited_for_processor(&child).unwrap_or_default() => {
                Some(Excess::Time)
            }
            () if printed() > MAX_OUTPUT => Some(Excess::Output),
            () => None,
        };
        if excess.is_some() {
            kill_process_group(Pid::from_child(&child), Signal::KILL)?;
            break child.wait()?;
        }
        // most commands take 10 to 100 ms
        std::thread::sleep(if begin.elapsed().as_millis() < 200 {
            Duration::from_millis(2)
        } else {
            Duration::from_millis(10)
        });
    };
    let took = begin.elapsed();
    Ok(Ended { status, excess, took, peak_bytes, stdout: read(&stdout)?, stderr: read(&stderr)? })
}

/// The most resident memory of a child until now. For a moment after its start a child has the memory of this process, which may
/// have read large files; nothing is known of its own then.
fn peak_memory(child: &Child) -> Option<u64> {
    let program = |process: &str| fs::read_link(format!("/proc/{process}/exe")).ok();
    if program(&child.id().to_string())? == program("self")? {
        return None;
    }
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

/// How long the first thread of a child was ready to run and did not.
fn waited_for_processor(child: &Child) -> Option<Duration> {
    let times = fs::read_to_string(format!("/proc/{}/schedstat", child.id())).ok()?;
    Some(Duration::from_nanos(times.split(' ').nth(1)?.parse().ok()?))
}

/// The beginning of an output.
fn read(path: &Path) -> Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(KEPT_OUTPUT).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Processor time of this process and of the children that ended, in seconds.
pub(crate) fn processor_seconds() -> f64 {
    // utime, stime, cutime and cstime are the 14th to 17th field, in hundredths of a second; the second one may hold spaces
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(4);
    fields.filter_map(|field| field.parse::<f64>().ok()).sum::<f64>() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Ended {
        let folder = tempfile::tempdir().unwrap();
        run(Command::new("sh").args(["-c", script]), folder.path()).unwrap()
    }

    #[test]
    fn status_and_output_of_a_command_are_returned() {
        let ended = shell("echo result; echo message >&2; exit 2");
        assert_eq!((ended.status.code(), ended.excess), (Some(2), None));
        assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), ("result\n", "message\n"));
    }

    #[test]
    fn a_command_that_prints_without_end_is_killed() {
        let folder = tempfile::tempdir().unwrap();
        let child = folder.path().join("child");
        let ended = shell(&format!("yes & echo $! > {}; wait", child.display()));
        assert_eq!((ended.status.code(), ended.excess), (None, Some(Excess::Output)));
        // nor does what it started go on
        let child = fs::read_to_string(child).unwrap();
        let state = || fs::read_to_string(format!("/proc/{}/stat", child.trim())).unwrap_or_default();
        let begin = Instant::now();
        while !state().is_empty() && !state().contains(") Z ") && begin.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(state().is_empty() || state().contains(") Z "), "{}", state());
    }

    #[test]
    fn memory_is_seen_while_a_command_runs() {
        let ended = shell("x=$(head -c 20000000 /dev/zero | tr '\\0' a); sleep 0.3; echo ${#x}");
        assert_eq!(ended.stdout, "20000000\n");
        assert!(ended.peak_bytes > 20_000_000, "{}", ended.peak_bytes);
    }
}
