//! What one rendering may use: bytes that it creates, and bytes that it reads.
//!
//! The engine's filters and operators have no place for such an account, so it belongs to the thread that renders.

use std::cell::Cell;

use minijinja::{Error, ErrorKind};

/// The limits of a rendering. Each grows with the size of its input, the messages and variables in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Instructions.
    pub(crate) steps: Limit,
    /// Bytes of all values and texts that are created, freed or not: so at no time are there more.
    pub(crate) memory: Limit,
    /// Bytes of all values that operators, filters, tests and methods read.
    pub(crate) work: Limit,
}

/// `base + growth · input`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limit {
    pub(crate) base: u64,
    pub(crate) growth: u64,
}

impl Limit {
    pub(crate) fn for_input(self, bytes: u64) -> u64 {
        self.base.saturating_add(self.growth.saturating_mul(bytes))
    }
}

/// The limits of every rendering outside of tests.
pub(crate) const LIMITS: Limits = Limits {
    steps: Limit { base: 20_000_000, growth: 200 },
    memory: Limit { base: 256 << 20, growth: 64 },
    work: Limit { base: 1 << 30, growth: 4096 },
};

/// An account: what is allowed and what is used.
#[derive(Clone, Copy)]
struct Account {
    allowed: u64,
    used: u64,
}

const NOTHING: Account = Account { allowed: u64::MAX, used: 0 };

thread_local! {
    static MEMORY: Cell<Account> = const { Cell::new(NOTHING) };
    static WORK: Cell<Account> = const { Cell::new(NOTHING) };
    static IS_EXCEEDED: Cell<bool> = const { Cell::new(false) };
}

/// Opens the accounts of this thread.
pub(crate) fn begin(memory: u64, work: u64) {
    MEMORY.set(Account { allowed: memory, used: 0 });
    WORK.set(Account { allowed: work, used: 0 });
    IS_EXCEEDED.set(false);
}

/// Whether a limit was the reason for an error of this thread since [`begin`].
pub(crate) fn is_exceeded() -> bool {
    IS_EXCEEDED.get()
}

/// The error of a limit: it ends the rendering.
pub(crate) fn exceeded(message: String) -> Error {
    IS_EXCEEDED.set(true);
    Error::new(ErrorKind::InvalidOperation, message)
}

/// Charges bytes of new values.
pub(crate) fn create(bytes: u64) -> Result<(), Error> {
    require(bytes)?;
    let account = MEMORY.get();
    MEMORY.set(Account { used: account.used + bytes, ..account });
    Ok(())
}

/// Refuses an operation that may create so many bytes, before it starts.
pub(crate) fn require(bytes: u64) -> Result<(), Error> {
    let Account { allowed, used } = MEMORY.get();
    if bytes > allowed - used {
        let needed = used.saturating_add(bytes);
        return Err(exceeded(format!("the template creates values of {needed} bytes, at most {allowed}")));
    }
    Ok(())
}

/// Charges bytes that are read.
pub(crate) fn read(bytes: u64) -> Result<(), Error> {
    let Account { allowed, used } = WORK.get();
    let used = used.saturating_add(bytes);
    WORK.set(Account { allowed, used });
    if used > allowed {
        return Err(exceeded(format!("the template reads values of {used} bytes, at most {allowed}")));
    }
    Ok(())
}

/// A text that stops growing where the account ends. It charges itself when it is finished.
#[derive(Default)]
pub(crate) struct Text {
    text: String,
    error: Option<Error>,
}

impl Text {
    pub(crate) fn push_str(&mut self, part: &str) {
        // the error is kept to the end, as writers of JSON and of `repr` are recursive
        if self.error.is_none() {
            match require((self.text.len() + part.len()) as u64) {
                Ok(()) => self.text.push_str(part),
                Err(error) => self.error = Some(error),
            }
        }
    }

    pub(crate) fn push(&mut self, character: char) {
        self.push_str(character.encode_utf8(&mut [0; 4]));
    }

    /// Whether nothing more is written, so that loops can end.
    pub(crate) fn is_full(&self) -> bool {
        self.error.is_some()
    }

    pub(crate) fn finish(self) -> Result<String, Error> {
        match self.error {
            Some(error) => Err(error),
            None => {
                create(self.text.len() as u64)?;
                Ok(self.text)
            }
        }
    }
}

impl std::fmt::Write for Text {
    fn write_str(&mut self, part: &str) -> std::fmt::Result {
        self.push_str(part);
        if self.is_full() { Err(std::fmt::Error) } else { Ok(()) }
    }
}
