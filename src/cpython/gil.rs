//! The state of one GIL: who holds it, how often it changed hands.
//!
//! The struct has been the same from 3.7 (`Python/ceval_gil.h`) to 3.15
//! (`Include/internal/pycore_gil.h`), save that free-threaded builds put `enabled` in front.

use std::time::Duration;

use super::decode::{i32_at, pointer_at, u64_at};
use super::layout::{GilLayout, GilPlace};
use crate::target::memory::{ReadError, ReadMemory};
use crate::units::Address;

/// How many bytes of the struct hold the fields that gilspy reads, in every version.
pub const GIL_BYTES: usize = 40;

/// The longest switch interval believed.
const LONGEST_INTERVAL: Duration = Duration::from_secs(24 * 60 * 60);

/// The fields of a GIL as one read brought them; perhaps torn, see [`GilReading::agrees_with`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GilReading {
    /// Whether there is a GIL to hold; always true where the build is not free-threaded.
    pub enabled: bool,
    /// The switch interval.
    pub switch_interval: Duration,
    /// The thread state that holds it, or that held it last.
    pub last_holder: Address,
    /// 1 held, 0 free, -1 not initialised.
    pub locked: i32,
    /// Handovers since the interpreter started, counted by the interpreter.
    pub switch_number: u64,
}

/// Who holds a GIL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GilState {
    /// The thread with this thread state.
    Held(Address),
    /// Nobody.
    Free,
    /// There is none (free-threaded build, GIL off).
    Disabled,
    /// Its fields contradict each other, for instance in the instant between two of them being written.
    Unknown,
}

impl GilReading {
    /// The fields out of the struct's bytes.
    pub fn decode(bytes: &[u8; GIL_BYTES], layout: &GilLayout) -> Option<Self> {
        Some(GilReading {
            enabled: match layout.enabled {
                Some(offset) => i32_at(bytes, offset)? != 0,
                None => true,
            },
            switch_interval: Duration::from_micros(u64_at(bytes, layout.interval)?),
            last_holder: pointer_at(bytes, layout.last_holder)?,
            locked: i32_at(bytes, layout.locked)?,
            switch_number: u64_at(bytes, layout.switch_number)?,
        })
    }

    /// Who holds it. `last_holder` outlives the release, so it counts only while `locked`.
    pub fn state(&self) -> GilState {
        match self.locked {
            _ if !self.enabled => GilState::Disabled,
            0 => GilState::Free,
            1 if self.last_holder.is_null() || self.last_holder == Address::new(u64::MAX) => {
                GilState::Unknown
            }
            1 => GilState::Held(self.last_holder),
            _ => GilState::Unknown,
        }
    }

    /// Whether nothing changed hands between two readings: then what was read in between belongs to one
    /// moment as far as the GIL goes.
    pub fn agrees_with(&self, other: &GilReading) -> bool {
        self == other
    }

    /// Whether these can be the fields of a live GIL.
    pub fn is_plausible(&self) -> bool {
        (0..=1).contains(&self.locked) && self.plausible_interval().is_some()
    }

    /// The switch interval, if it can be one.
    pub fn plausible_interval(&self) -> Option<Duration> {
        let is_plausible = |interval: &Duration| !interval.is_zero() && *interval <= LONGEST_INTERVAL;
        Some(self.switch_interval).filter(is_plausible)
    }
}

/// Where the GIL of `interpreter` is. Interpreters with the same answer share one.
///
/// # Errors
/// When the pointer to it could not be read.
pub fn gil_address(
    memory: &impl ReadMemory,
    layout: &GilLayout,
    runtime: Address,
    interpreter: Address,
) -> Result<Address, ReadError> {
    match layout.place {
        GilPlace::InRuntime(offset) => Ok(runtime + offset),
        GilPlace::BehindInterpreter(offset) => memory.read_pointer(interpreter + offset),
    }
}

/// Reads a GIL once; `None` where the bytes make no sense.
///
/// # Errors
/// When the memory could not be read.
pub fn read_gil(
    memory: &impl ReadMemory,
    layout: &GilLayout,
    gil: Address,
) -> Result<Option<GilReading>, ReadError> {
    let mut bytes = [0; GIL_BYTES];
    memory.read(gil, &mut bytes)?;
    Ok(GilReading::decode(&bytes, layout))
}

/// More threads than can usefully wait, for all GILs together; a longer list is damaged or a trap.
pub const MAX_WAITERS: usize = 4096;

/// Where the threads sleep that wait for a GIL of a program linked with musl. With glibc that is inside of the GIL; in
/// musl each waiter has a futex on its own stack, and the condition variable has a list of them (musl 1.2
/// `src/thread/pthread_cond_timedwait.c`: `struct waiter`, whose `barrier` is slept on, and `_c_head`).
///
/// The list changes while it is read: a walk that fails is broken off, and what it found until then stays. At most `most`
/// are found.
pub fn musl_waiters(memory: &impl ReadMemory, layout: &GilLayout, gil: Address, most: usize) -> Vec<Address> {
    let mut found = Vec::new();
    // `cond`, and after it and `mutex` `switch_cond` (48, 40 and 48 bytes, `include/alltypes.h.in`).
    for cond in [gil + layout.switch_number + 8, gil + layout.switch_number + 8 + 48 + 40] {
        let Ok(mut waiter) = memory.read_pointer(cond + 8) else { continue };
        while !waiter.is_null() && found.len() < most {
            found.push(waiter + 20);
            let Ok(next) = memory.read_pointer(waiter + 8) else { break };
            waiter = next;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::cpython::layout;
    use crate::cpython::version::Version;
    use crate::target::memory::Segment;

    fn reading(locked: i32, last_holder: u64) -> GilReading {
        let mut bytes = [0; GIL_BYTES];
        bytes[..8].copy_from_slice(&5000_u64.to_le_bytes());
        bytes[8..16].copy_from_slice(&last_holder.to_le_bytes());
        bytes[16..20].copy_from_slice(&locked.to_le_bytes());
        bytes[24..32].copy_from_slice(&77_u64.to_le_bytes());
        let layout = layout::table(&Version::from_hex(0x030c_01f0)).unwrap();
        GilReading::decode(&bytes, &layout.gil).unwrap()
    }

    #[test]
    fn a_gil_is_held_only_while_locked() {
        assert_eq!(reading(1, 0x1000).state(), GilState::Held(Address::new(0x1000)));
        assert_eq!(reading(0, 0x1000).state(), GilState::Free);
    }

    #[test]
    fn fields_that_contradict_each_other_are_unknown_not_free() {
        assert_eq!(reading(1, 0).state(), GilState::Unknown);
        assert_eq!(reading(1, u64::MAX).state(), GilState::Unknown);
        assert_eq!(reading(-1, 0).state(), GilState::Unknown);
        assert!(!reading(-1, 0).is_plausible());
    }

    /// Memory of 64-bit words by their addresses; what is not there cannot be read.
    struct Words(HashMap<u64, u64>);

    impl ReadMemory for Words {
        fn read_batch(&self, segments: &mut [Segment<'_>]) -> Result<(), ReadError> {
            for segment in segments {
                if let Some(word) = self.0.get(&segment.address.raw()) {
                    segment.buffer.copy_from_slice(&word.to_le_bytes());
                    segment.arrived = true;
                }
            }
            Ok(())
        }
    }

    fn waiters(words: &[(u64, u64)]) -> Vec<u64> {
        let layout = layout::table(&Version::from_hex(0x030c_01f0)).unwrap();
        let memory = Words(words.iter().copied().collect());
        let found = musl_waiters(&memory, &layout.gil, Address::new(0x1000), MAX_WAITERS);
        found.into_iter().map(Address::raw).collect()
    }

    #[test]
    fn those_who_wait_in_musl_are_found_through_both_condition_variables() {
        let (cond, switch_cond) = (0x1000 + 32, 0x1000 + 120);
        let words =
            [(cond + 8, 0x7000), (0x7008, 0x8000), (0x8008, 0), (switch_cond + 8, 0x9000), (0x9008, 0)];
        assert_eq!(waiters(&words), [0x7014, 0x8014, 0x9014]);
        assert_eq!(waiters(&[(cond + 8, 0), (switch_cond + 8, 0)]), [0_u64; 0]);
    }

    #[test]
    fn a_list_of_waiters_that_ends_nowhere_is_broken_off() {
        assert_eq!(waiters(&[(0x1028, 0x7000), (0x7008, 0x8000)]), [0x7014, 0x8014]);
        assert_eq!(waiters(&[(0x1028, 0x7000), (0x7008, 0x7000)]).len(), MAX_WAITERS);
    }

    #[test]
    fn interval_and_handovers_are_read() {
        let reading = reading(1, 0x1000);
        assert_eq!(reading.switch_interval, Duration::from_millis(5));
        assert_eq!(reading.switch_number, 77);
    }
}
