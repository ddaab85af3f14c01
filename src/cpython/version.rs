//! CPython's version numbers.

use std::fmt;

/// An interpreter's version.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// 3 in 3.14.10.
    pub major: u64,
    /// 14 in 3.14.10.
    pub minor: u64,
    /// 10 in 3.14.10.
    pub patch: u64,
    /// `rc1` in 3.15.0rc1; empty for a final release.
    pub pre_release: String,
}

impl Version {
    /// From `PY_VERSION_HEX` (CPython `Include/patchlevel.h`): 0x030D00F0 is 3.13.0.
    pub fn from_hex(hex: u32) -> Self {
        let serial = hex & 0xf;
        let pre_release = match (hex >> 4) & 0xf {
            0xa => format!("a{serial}"),
            0xb => format!("b{serial}"),
            0xc => format!("rc{serial}"),
            _ => String::new(),
        };
        Version {
            major: u64::from(hex >> 24),
            minor: u64::from((hex >> 16) & 0xff),
            patch: u64::from((hex >> 8) & 0xff),
            pre_release,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}{}", self.major, self.minor, self.patch, self.pre_release)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn py_version_hex_is_read_as_cpython_writes_it() {
        assert_eq!(Version::from_hex(0x030e_0af0).to_string(), "3.14.10");
        assert_eq!(Version::from_hex(0x030f_00c1).to_string(), "3.15.0rc1");
    }
}
