//! Addresses of other servers. They may hold a password, which is never printed.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

/// `scheme://user:password@host:port/name`
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Address(String);

impl Address {
    /// With the password, for the one that connects.
    #[must_use]
    pub fn revealed(&self) -> &str {
        &self.0
    }

    /// What stands before `://`.
    pub(crate) fn scheme(&self) -> Option<&str> {
        self.0.split_once("://").map(|(scheme, _)| scheme)
    }
}

impl FromStr for Address {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.into()))
    }
}

/// Without user and password, and without what follows `?`. Where a password may be on either side of that, nothing is printed.
impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((scheme, rest)) = self.0.split_once("://") else { return f.write_str("…") };
        if !scheme.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return f.write_str("…");
        }
        let (place, more) = rest.split_once('?').unwrap_or((rest, ""));
        if more.contains('@') {
            return write!(f, "{scheme}://…");
        }
        let host = place.rsplit_once('@').map_or(place, |(_, host)| host);
        write!(f, "{scheme}://{host}")
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn password_is_never_printed() {
        let shown = |text: &str| format!("{:?}", text.parse::<Address>().unwrap());
        assert_eq!(
            shown("postgresql://u:p@w@host:5432/db?password=p"),
            "postgresql://host:5432/db"
        );
        assert_eq!(shown("nats://host:4222"), "nats://host:4222");
        assert_eq!(shown("redis://:p@host:6379/0"), "redis://host:6379/0");
        for open in ["u:pa?ss@host/db", "host/db?password=p@ss", "u:p@ss?w@host/db"] {
            assert_eq!(shown(&format!("postgresql://{open}")), "postgresql://…");
        }
        for pairs in ["host=h password=p", "host=h password=a://b"] {
            assert_eq!(shown(pairs), "…");
        }
    }
}
