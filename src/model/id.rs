//! What things are called by programs: a UUID.

use std::fmt;

/// The id of an app, a release, a domain: a UUID (RFC 9562). Some clients tell ids from names by this shape.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id(u128);

impl Id {
    /// Makes one of 16 random bytes (version 4).
    pub fn of_random(mut bytes: [u8; 16]) -> Self {
        // RFC 9562 §4.1, §4.2: the version in the seventh byte, the variant in the ninth.
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Self::of_bytes(bytes)
    }

    /// Makes one of 16 bytes as they are: what they are a hash of has its id.
    pub fn of_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }

    /// Parses the usual form, `8-4-4-4-12` hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let digits: Vec<&str> = text.split('-').collect();
        if digits.iter().map(|part| part.len()).ne([8, 4, 4, 4, 12]) {
            return None;
        }
        let digits = digits.concat();
        // from_str_radix would take a sign.
        let hexadecimal = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        hexadecimal.then(|| u128::from_str_radix(&digits, 16).ok()).flatten().map(Self)
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let id = self.0;
        let [low, mid, high] =
            [(id >> 96) as u32, (id >> 80) as u32 & 0xffff, (id >> 64) as u32 & 0xffff];
        let [clock, node] = [(id >> 48) as u64 & 0xffff, id as u64 & 0xffff_ffff_ffff];
        write!(f, "{low:08x}-{mid:04x}-{high:04x}-{clock:04x}-{node:012x}")
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ids_have_the_form_of_uuids() {
        let all = Id::of_random([0xff; 16]).to_string();
        assert_eq!(all, "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(Id::of_random([0; 16]).to_string(), "00000000-0000-4000-8000-000000000000");
        for bad in [
            "",
            "shop",
            "ffffffff-ffff-4fff-bfff-fffffffffff",
            "+fffffff-ffff-4fff-bfff-ffffffffffff",
        ] {
            assert_eq!(Id::parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_parsed(bytes: [u8; 16]) {
            let id = Id::of_random(bytes);
            prop_assert_eq!(Id::parse(&id.to_string()), Some(id));
        }
    }
}
