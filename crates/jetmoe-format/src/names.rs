//! Enums whose values users write by name.

use std::fmt::Display;

use strum::VariantArray;

/// An enum whose values users write by name. `strum` derives the names; [`named!`](crate::named) implements this.
pub trait Named: VariantArray + Display {
    /// What the values are, for messages.
    const WHAT: &'static str;
}

/// Implements [`Named`] for an enum, and gives it a list of its values.
#[macro_export]
macro_rules! named {
    ($type:ident, $what:literal) => {
        impl $crate::Named for $type {
            const WHAT: &'static str = $what;
        }

        impl $type {
            /// Every value, in the order they are listed to users.
            pub const ALL: &'static [Self] = <Self as ::strum::VariantArray>::VARIANTS;
        }
    };
}

/// A name that no value has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown {what} {found:?}; known: {known}")]
pub struct UnknownName {
    what: &'static str,
    found: String,
    known: String,
}

impl UnknownName {
    /// The error for a name that is no value of `T`; lists those that are.
    pub fn of<T: Named>(found: &str) -> Self {
        let known: Vec<String> = T::VARIANTS.iter().map(T::to_string).collect();
        UnknownName { what: T::WHAT, found: found.to_owned(), known: known.join(", ") }
    }
}
