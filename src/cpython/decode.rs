//! Little-endian fields at checked places of bytes that came from the target.

use crate::units::Address;

/// The `N` bytes at `offset`, if they are there.
fn array_at<const N: usize>(bytes: &[u8], offset: u64) -> Option<[u8; N]> {
    let start = usize::try_from(offset).ok()?;
    bytes.get(start..start.checked_add(N)?)?.try_into().ok()
}

/// The unsigned byte at `offset`.
pub(super) fn u8_at(bytes: &[u8], offset: u64) -> Option<u8> {
    array_at::<1>(bytes, offset).map(|[byte]| byte)
}

/// The unsigned 32-bit number at `offset`.
pub(super) fn u32_at(bytes: &[u8], offset: u64) -> Option<u32> {
    array_at(bytes, offset).map(u32::from_le_bytes)
}

/// The signed 32-bit number at `offset`.
pub(super) fn i32_at(bytes: &[u8], offset: u64) -> Option<i32> {
    array_at(bytes, offset).map(i32::from_le_bytes)
}

/// The unsigned 64-bit number at `offset`.
pub(super) fn u64_at(bytes: &[u8], offset: u64) -> Option<u64> {
    array_at(bytes, offset).map(u64::from_le_bytes)
}

/// The pointer at `offset`.
pub(super) fn pointer_at(bytes: &[u8], offset: u64) -> Option<Address> {
    u64_at(bytes, offset).map(Address::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_outside_the_bytes_is_none_never_a_panic() {
        let bytes = [1, 0, 0, 0, 0, 0, 0, 0, 255];
        assert_eq!(u64_at(&bytes, 0), Some(1));
        assert_eq!(u64_at(&bytes, 2), None);
        assert_eq!(i32_at(&bytes, 5), Some(i32::from_le_bytes([0, 0, 0, 255])));
        assert_eq!(u8_at(&bytes, 9), None);
        assert_eq!(u32_at(&bytes, u64::MAX), None);
        assert_eq!(pointer_at(&bytes, u64::MAX - 3), None);
    }
}
