//! Disables the telemetry of ONNX Runtime.

use std::env;

/// The variable that ONNX Runtime 1.29 and newer read when they create the environment of a process, see
/// <https://github.com/microsoft/onnxruntime/pull/27379>. Without it they write a device id and a database below the user's
/// cache folder and upload events, and `DisableTelemetryEvents` of the C API comes too late.
const VARIABLE: &str = "ORT_DISABLE_TELEMETRY";

/// Sets the variable to 1, unless it has a value. Called once in a process, before a library is opened.
pub(super) fn disable() {
    if env::var_os(VARIABLE).is_some_and(|value| !value.is_empty()) {
        return;
    }
    // SAFETY: no other thread may read or write the environment at this moment, except through `std::env`, which serialises
    // its calls. Every crate of this workspace uses `std::env`, and ONNX Runtime is not loaded yet, so such a thread is one
    // that the embedding program started and that calls `getenv` of the C library. Windows and glibc from 2.41 allow that
    // too. An older glibc keeps what a concurrent `getenv` reads if this is the first variable that the process adds: the
    // table that the process was started with is never freed. Otherwise the program must set the variable before it starts
    // such threads, and then this line is not reached; the guide for services says so.
    unsafe { env::set_var(VARIABLE, "1") };
}
