//! Options of a device by name.

use std::fmt;
use std::str::FromStr;

use super::Device;
use crate::Error;

/// An option of a device as a user writes it: `name=value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderOption {
    name: String,
    value: String,
}

impl ProviderOption {
    pub(super) fn refused(&self, device: &Device, expected: String) -> Error {
        Error::ProviderOption { option: self.to_string(), device: device.to_string(), expected }
    }
}

impl fmt::Display for ProviderOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.value)
    }
}

impl FromStr for ProviderOption {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) =
            text.split_once('=').ok_or_else(|| format!("{text:?} is no option; expected NAME=VALUE"))?;
        Ok(ProviderOption { name: name.to_owned(), value: value.to_owned() })
    }
}

/// One option of a device.
pub(super) struct Setting<Options> {
    pub(super) name: &'static str,
    /// What may stand behind the `=`, for people.
    pub(super) form: &'static str,
    /// Sets it; `None` for a value that it cannot have.
    pub(super) set: fn(&mut Options, &str) -> Option<()>,
}

/// A device's options, and all settings there are of them.
pub(super) trait Configurable: Sized + 'static {
    const SETTINGS: &'static [Setting<Self>];
}

/// Sets an option, or says what was expected.
pub(super) fn apply<Options: Configurable>(
    options: &mut Options,
    option: &ProviderOption,
) -> Result<(), String> {
    let form = |setting: &Setting<Options>| format!("{}={}", setting.name, setting.form);
    match Options::SETTINGS.iter().find(|setting| setting.name == option.name) {
        Some(setting) => (setting.set)(options, &option.value).ok_or_else(|| form(setting)),
        None => {
            let forms: Vec<String> = Options::SETTINGS.iter().map(form).collect();
            Err(match forms.split_last() {
                Some((last, others)) if !others.is_empty() => format!("{} or {last}", others.join(", ")),
                _ => forms.concat(),
            })
        }
    }
}
