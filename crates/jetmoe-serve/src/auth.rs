//! API keys of clients, and how many requests each may send.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::Path;
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode, header};
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use subtle::{Choice, ConstantTimeEq};

use crate::error::{ApiError, ApiResult};

/// The API keys of a server.
pub struct Keys(Vec<Vec<u8>>);

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} keys", self.0.len())
    }
}

/// Why a file of keys cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeysError {
    /// It cannot be read.
    #[error("cannot read keys_file: {0}")]
    Read(#[from] std::io::Error),
    /// A line that no client can send.
    #[error("line {line} of keys_file is no key\n  a key has visible ASCII characters only, and no space")]
    Line {
        /// Its number, from 1.
        line: usize,
    },
    /// Without a key no request would be answered.
    #[error("keys_file has no key\n  add one, or leave keys_file out")]
    Empty,
}

impl Keys {
    /// Reads a file of keys, one a line. Empty lines and lines that begin with `#` are skipped.
    ///
    /// # Errors
    /// A file that cannot be read, that has no key, or a line that is none.
    pub fn read(path: &Path) -> Result<Self, KeysError> {
        let text = std::fs::read_to_string(path)?;
        let mut keys = Vec::new();
        for (index, line) in text.lines().map(str::trim).enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if !line.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(KeysError::Line { line: index + 1 });
            }
            keys.push(line.as_bytes().to_vec());
        }
        if keys.is_empty() { Err(KeysError::Empty) } else { Ok(Keys(keys)) }
    }

    /// The index of the key that a request has, as `Authorization: Bearer KEY` or `x-api-key: KEY`. The comparison takes the same
    /// time for every key of one length.
    ///
    /// # Errors
    /// Status 401 for no key or an unknown one.
    pub(crate) fn check(&self, headers: &HeaderMap) -> ApiResult<usize> {
        let refused = |code, message: &str| {
            ApiError::new(StatusCode::UNAUTHORIZED, code, message)
                .with_advice("send the header Authorization: Bearer KEY")
        };
        let given = given(headers).ok_or_else(|| refused("missing_api_key", "the request has no API key"))?;
        let mut found: Option<usize> = None;
        for (index, key) in self.0.iter().enumerate() {
            let is_equal: Choice = key.as_slice().ct_eq(given);
            if is_equal.into() {
                found = Some(index);
            }
        }
        found.ok_or_else(|| refused("invalid_api_key", "the API key is not known"))
    }
}

fn given(headers: &HeaderMap) -> Option<&[u8]> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let (scheme, key) = value.as_bytes().split_at_checked(7)?;
        return scheme.eq_ignore_ascii_case(b"bearer ").then_some(key.trim_ascii());
    }
    headers.get("x-api-key").map(|value| value.as_bytes())
}

/// Who sends requests: a key, or without keys an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Client {
    Key(usize),
    Address(Option<IpAddr>),
}

/// Counts the requests of each client.
#[derive(Debug)]
pub(crate) struct RateLimit {
    limiter: DefaultKeyedRateLimiter<Client>,
}

/// Clients that are remembered before those that have their whole quota are forgotten.
const REMEMBERED: usize = 10_000;

impl RateLimit {
    /// So many requests per minute, all of them at once if the client waited a minute before.
    pub(crate) fn per_minute(requests: NonZeroU32) -> Self {
        RateLimit { limiter: RateLimiter::keyed(Quota::per_minute(requests)) }
    }

    /// Counts a request.
    ///
    /// # Errors
    /// Status 429, with the time until the next request is allowed.
    pub(crate) fn check(&self, client: Client) -> ApiResult<()> {
        if self.limiter.len() > REMEMBERED {
            self.limiter.retain_recent();
        }
        self.limiter.check_key(&client).map_err(|not_until| {
            let wait: Duration = not_until.wait_time_from(DefaultClock::default().now());
            ApiError::new(
                StatusCode::TOO_MANY_REQUESTS,
                "rate_limit_exceeded",
                "the client has sent too many requests",
            )
            .with_advice("repeat the request after the time of Retry-After")
            .with_retry_after(wait)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(text: &str) -> Result<Keys, KeysError> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Keys::read(file.path())
    }

    fn check(keys: &Keys, name: &'static str, value: &str) -> ApiResult<usize> {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        keys.check(&headers)
    }

    #[test]
    fn a_key_is_found_and_others_are_refused() {
        let keys = keys("# of the team\nfirst\n\nsecond\n").unwrap();
        assert_eq!(check(&keys, "authorization", "Bearer second"), Ok(1));
        assert_eq!(check(&keys, "authorization", "bearer first"), Ok(0));
        assert_eq!(check(&keys, "x-api-key", "first"), Ok(0));
        for (name, value) in
            [("authorization", "Bearer firs"), ("authorization", "Basic first"), ("x-other", "first")]
        {
            assert_eq!(
                check(&keys, name, value).unwrap_err().status(),
                StatusCode::UNAUTHORIZED,
                "{name}: {value}"
            );
        }
    }

    #[test]
    fn a_file_without_a_usable_key_is_refused() {
        assert!(matches!(keys("# none\n"), Err(KeysError::Empty)));
        assert!(matches!(keys("a\nb c\n"), Err(KeysError::Line { line: 2 })));
    }

    #[test]
    fn keys_are_not_printed() {
        assert_eq!(format!("{:?}", keys("first\n").unwrap()), "1 keys");
    }

    #[test]
    fn a_client_has_its_own_quota() {
        let limit = RateLimit::per_minute(NonZeroU32::new(2).unwrap());
        assert!(limit.check(Client::Key(0)).is_ok() && limit.check(Client::Key(0)).is_ok());
        assert_eq!(limit.check(Client::Key(0)).unwrap_err().code(), "rate_limit_exceeded");
        assert!(limit.check(Client::Key(1)).is_ok());
    }
}
