//! Code shared by the commands `jetmoe` and `jetmoe-export`: exit status, errors and hints, logging, tables, progress bars,
//! Ctrl-C and the folder of a model argument.
//!
//! Results go to standard output; notes, warnings, errors and progress go to standard error. The libraries print
//! nothing and name no flag: they return errors, which [`hint`] completes with what to type, and call back with their
//! progress.

mod bus_error;
mod escape;
mod exit;
mod hints;
mod interrupt;
mod logging;
mod model_folder;
mod output;
mod progress;
mod report;
mod settings;
mod verification;

pub use escape::{escape_controls, escape_line};
pub use exit::{ExitStatus, run, run_server};
pub use hints::{Hint, hint, setup_command};
pub use interrupt::finish_on_interrupt;
pub use logging::{LogLines, start_server_logging};
pub use model_folder::model_folder;
pub use output::{
    CellAlignment, HumanBytes, Table, json_line, new_table, note, print, print_json, print_table,
    without_padding,
};
pub use progress::{ProgressBar, StageBars, byte_bar, spinner, step_bar};
pub use report::causes;
pub use settings::note_settings;
pub use verification::verification_table;
