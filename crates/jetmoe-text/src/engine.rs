//! The template engine with limits, for templates of unknown origin: none of them can overflow the stack, run for ever or take
//! all memory.
//!
//! * [`guard`] and [`constants`] refuse templates that the engine could not compile safely.
//! * [`program`] replaces the engine's operators and calls by [`operations`], which charge a [`budget`].
//! * [`values`] limits the depth of lists and objects.
//! * The engine compiles and runs on a thread of its own, whose stack is large enough for what these limits leave.

use std::collections::BTreeMap;
use std::thread;

use jetmoe_checkpoint::catch_panics;
use minijinja::{Environment, Error, ErrorKind, Value};
use serde_json::Value as Json;

pub(crate) mod budget;
mod constants;
mod guard;
mod operations;
mod program;
mod sequences;
pub(crate) mod values;

use budget::Limits;
use program::Program;

/// Stack of the thread that compiles and renders. A template at the limits of [`guard`] takes a quarter of it in a build without
/// optimisation.
const STACK: usize = 64 << 20;

/// Why a template was not rendered.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The template cannot be used.
    Template(Error),
    /// Rendering fails.
    Rendering(Error),
    /// Rendering ends at a limit.
    Limit(Error),
    /// The engine cannot be started, or it panics.
    Engine(String),
}

/// Compiles a template and forgets the result.
pub(crate) fn check(source: &str) -> Result<(), Failure> {
    on_large_stack(|| Program::compile(source).map(drop).map_err(Failure::Template))
}

/// Renders a template.
///
/// It is compiled each time: the engine's compiled form borrows its source. That takes a millisecond for 2 KB in a build without
/// optimisation.
pub(crate) fn render(
    source: &str,
    environment: impl FnOnce() -> Environment<'static> + Send,
    variables: BTreeMap<&str, Json>,
    limits: &Limits,
) -> Result<String, Failure> {
    on_large_stack(|| {
        // constants and the input are not charged
        budget::begin(u64::MAX, u64::MAX);
        let program = Program::compile(source).map_err(Failure::Template)?;
        let context = values::own(&Value::from_serialize(&variables)).map_err(Failure::Rendering)?;
        let input = values::size(&context);
        let steps = limits.steps.for_input(input);
        let mut environment = environment();
        operations::add_to(&mut environment);
        environment.set_fuel(Some(steps));
        budget::begin(limits.memory.for_input(input), limits.work.for_input(input));
        program.render(&environment, context).map_err(|error| {
            if is_out_of_fuel(&error) {
                let message = format!("the template takes more than {steps} steps");
                Failure::Limit(Error::new(ErrorKind::InvalidOperation, message).with_source(error))
            } else if budget::is_exceeded() {
                Failure::Limit(error)
            } else {
                Failure::Rendering(error)
            }
        })
    })
}

/// Runs on a thread with a stack of [`STACK`] bytes. A panic of the engine is an error.
fn on_large_stack<T: Send>(run: impl FnOnce() -> Result<T, Failure> + Send) -> Result<T, Failure> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("chat template".to_owned()).stack_size(STACK);
        match thread.spawn_scoped(scope, || catch_panics(run, Failure::Engine)) {
            Ok(thread) => thread.join().unwrap_or_else(|_| Err(Failure::Engine("it panicked".to_owned()))),
            Err(error) => Err(Failure::Engine(format!("cannot start a thread: {error}"))),
        }
    })
}

fn is_out_of_fuel(error: &Error) -> bool {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if error.downcast_ref::<Error>().is_some_and(|error| error.kind() == ErrorKind::OutOfFuel) {
            return true;
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests;
