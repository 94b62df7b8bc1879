//! What to type after an error of an export. Other libraries' errors are `jetmoe-console`'s.

use jetmoe_export::Error;

pub(crate) fn hint(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let hint = match jetmoe_console::causes(error).find_map(|cause| cause.downcast_ref()) {
        Some(Error::Checkpoint(jetmoe_checkpoint::Error::NotFinite { .. })) => {
            "or export it all the same with --allow-non-finite"
        }
        Some(Error::Graph(error)) => return jetmoe_console::hint(error),
        Some(Error::Artifact(error)) => return jetmoe_console::hint(error),
        Some(Error::OutputInUse { .. }) => "choose another folder, or pass --force to write into it",
        Some(Error::OtherCheckpoint { .. } | Error::OtherTask { .. } | Error::OutputDamaged { .. }) => {
            "choose another folder, or pass --force to replace it"
        }
        Some(Error::NoTokenizer { .. }) => "put it next to the weights, or leave out --calibrate",
        Some(Error::NothingToCalibrate { .. }) => "choose --precision q4 or q4f16, or leave out --calibrate",
        Some(Error::Statistics { .. }) => "run the text with `jetmoe run --backend reference` to see it",
        _ => return jetmoe_console::hint(error),
    };
    Some(hint.to_owned())
}
