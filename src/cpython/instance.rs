//! Attributes of instances: where an object keeps the pointer to one.
//!
//! How depends on the version and on what has been done to the instance ([`ManagedDict`]); all roads end
//! at a table of keys, often shared by the instances of a class, and a row of pointers to values.

use std::collections::{HashMap, HashSet};

use super::batch::Pieces;
use super::decode::{pointer_at, u8_at, u64_at};
use super::dict::{Dict, Keys, KnownKey, read_dicts, read_keys};
use super::layout::{Layout, ManagedDict, ObjectsLayout};
use crate::target::memory::{ReadError, ReadMemory};
use crate::units::Address;

/// `Py_TPFLAGS_INLINE_VALUES` (CPython 3.13 `Include/object.h`).
const INLINE_VALUES: u64 = 1 << 2;

/// `Py_TPFLAGS_MANAGED_DICT` (CPython 3.11 `Include/object.h`).
const MANAGED_DICT: u64 = 1 << 4;

/// The largest instance believed, in bytes; those of `threading.Thread` take 16 to 48.
const MAX_INSTANCE: u64 = 1 << 16;

/// How many entries of an instance's dict are looked at: the classes set their attributes early.
const MAX_ATTRIBUTES: u64 = 1024;

/// For each object, where the pointer to its attribute `name` is; `None` where it has none or could not be
/// read.
///
/// # Errors
/// When nothing can be read at all.
pub(super) fn attribute_slots(
    memory: &impl ReadMemory,
    layout: &Layout,
    objects: &[Address],
    name: &mut KnownKey,
) -> Result<Vec<Option<Address>>, ReadError> {
    let places = read_places(memory, &layout.objects, objects)?;
    let places = look_inside(memory, &layout.objects, &places)?;
    let dicts = read_attribute_dicts(memory, layout, &places)?;
    let found = find_in_keys(memory, layout, &dicts, name)?;
    let slot = |dict: &Option<Dict>| {
        let dict = (*dict)?;
        let (keys, index) = found.get(&dict.keys)?;
        Some(dict.value_slot(keys, *index))
    };
    Ok(dicts.iter().map(slot).collect())
}

/// Where an instance keeps its attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// In a dict of its own.
    Dict(Address),
    /// In a dict of its own, to which this pointer leads.
    DictBehind(Address),
    /// In values whose keys its type has.
    Values(Dict),
    /// In the values inside it while they are valid, else in the dict.
    Inline { header: Address, keys: Address, dict: Address },
}

/// What a type says about its instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Type {
    basic_size: u64,
    flags: u64,
    dict_offset: u64,
    cached_keys: Address,
}

impl Type {
    fn decode(bytes: &[u8], layout: &ObjectsLayout) -> Option<Self> {
        let layout = &layout.type_object;
        let cached_keys = match layout.cached_keys {
            Some(offset) => pointer_at(bytes, offset)?,
            None => Address::NULL,
        };
        Some(Type {
            basic_size: u64_at(bytes, layout.basic_size)?,
            flags: u64_at(bytes, layout.flags)?,
            dict_offset: u64_at(bytes, layout.dict_offset)?,
            cached_keys,
        })
    }

    fn has(&self, flag: u64) -> bool {
        self.flags & flag != 0
    }

    /// Where an instance keeps a pointer to its dict that no flag tells of (`_PyObject_GetDictPtr`,
    /// CPython 3.7 to 3.10 `Objects/object.c`).
    fn dict_pointer(&self, instance: Address) -> Option<Address> {
        let plausible = self.dict_offset > 0 && self.dict_offset < MAX_INSTANCE;
        plausible.then_some(instance + self.dict_offset)
    }
}

/// Where an instance of a type keeps its attributes, from the pointers before it.
fn place(instance: Address, before: &[u8], instance_type: &Type, managed_dict: ManagedDict) -> Option<Place> {
    if !instance_type.has(MANAGED_DICT) {
        return instance_type.dict_pointer(instance).map(Place::DictBehind);
    }
    let keys = instance_type.cached_keys;
    let pointer = |distance: u64| pointer_at(before, managed_dict.extent_before().checked_sub(distance)?);
    let values = |values| Place::Values(Dict { keys, values: Some(values) });
    Some(match managed_dict {
        ManagedDict::Absent => return None,
        // _PyObject_ValuesPointer, _PyObject_ManagedDictPointer: 3.11 Include/internal/pycore_object.h.
        ManagedDict::TwoPointers { values_before, dict_before } => match pointer(values_before)? {
            Address::NULL => Place::Dict(pointer(dict_before)?),
            address => values(address),
        },
        // _PyDictOrValues_IsValues, _PyDictOrValues_GetValues: 3.12 Include/internal/pycore_object.h.
        ManagedDict::Tagged { before } => match pointer(before)? {
            tagged if tagged.raw() & 1 == 1 => values(tagged + 1),
            dict => Place::Dict(dict),
        },
        // _PyObject_InlineValues: 3.14 Include/internal/pycore_object.h; 3.13 says sizeof(PyObject), which
        // it asserts to be tp_basicsize.
        ManagedDict::Inline { dict_before, .. } => {
            let dict = pointer(dict_before)?;
            if instance_type.has(INLINE_VALUES) && instance_type.basic_size < MAX_INSTANCE {
                let header = instance + instance_type.basic_size;
                Place::Inline { header, keys, dict }
            } else {
                Place::Dict(dict)
            }
        }
    })
}

/// Where each instance keeps its attributes, from its own header and its type.
fn read_places(
    memory: &impl ReadMemory,
    layout: &ObjectsLayout,
    objects: &[Address],
) -> Result<Vec<Option<Place>>, ReadError> {
    let before = layout.managed_dict.extent_before();
    let starts = objects.iter().map(|object| Address::new(object.raw().wrapping_sub(before)));
    let headers = Pieces::read_equal(memory, starts, before + layout.object_type + 8)?;
    let type_of = |header: &[u8]| pointer_at(header, before + layout.object_type);
    let types = read_types(memory, layout, headers.iter().flatten().filter_map(type_of))?;
    Ok((headers.iter().zip(objects))
        .map(|(header, &object)| {
            let header = header?;
            place(object, header, types.get(&type_of(header)?)?, layout.managed_dict)
        })
        .collect())
}

/// The types at these addresses, each read once.
fn read_types(
    memory: &impl ReadMemory,
    layout: &ObjectsLayout,
    addresses: impl Iterator<Item = Address>,
) -> Result<HashMap<Address, Type>, ReadError> {
    let addresses: HashSet<_> = addresses.collect();
    let extent = layout.type_object.extent();
    let pieces = Pieces::read_equal(memory, addresses.iter().copied(), extent)?;
    Ok(addresses
        .iter()
        .zip(pieces.iter())
        .filter_map(|(&address, bytes)| Some((address, Type::decode(bytes?, layout)?)))
        .collect())
}

/// Settles the places that depend on what is inside the instances: then all are dicts or values.
fn look_inside(
    memory: &impl ReadMemory,
    layout: &ObjectsLayout,
    places: &[Option<Place>],
) -> Result<Vec<Option<Place>>, ReadError> {
    let valid = match layout.managed_dict {
        ManagedDict::Inline { valid, .. } => valid,
        _ => 0,
    };
    let wanted: Vec<_> = places
        .iter()
        .map(|place| match place {
            Some(Place::DictBehind(pointer)) => (*pointer, 8),
            Some(Place::Inline { header, .. }) => (*header + valid, 1),
            _ => (Address::NULL, 0),
        })
        .collect();
    let settle = |(place, bytes): (&Option<Place>, Option<&[u8]>)| match place.as_ref()? {
        Place::DictBehind(_) => Some(Place::Dict(pointer_at(bytes?, 0)?)),
        Place::Inline { header, keys, dict } => match u8_at(bytes?, 0)? {
            0 => Some(Place::Dict(*dict)),
            _ => Some(Place::Values(Dict { keys: *keys, values: Some(*header + layout.dict.first_value) })),
        },
        settled => Some(*settled),
    };
    let pieces = Pieces::read(memory, &wanted)?;
    Ok(places.iter().zip(pieces.iter()).map(settle).collect())
}

/// The keys and values of each settled place.
fn read_attribute_dicts(
    memory: &impl ReadMemory,
    layout: &Layout,
    places: &[Option<Place>],
) -> Result<Vec<Option<Dict>>, ReadError> {
    let addresses: Vec<_> = places
        .iter()
        .map(|place| match place {
            Some(Place::Dict(address)) => *address,
            _ => Address::NULL,
        })
        .collect();
    let dicts = read_dicts(memory, layout, &addresses)?;
    Ok((places.iter().zip(dicts))
        .map(|(place, dict)| match place {
            Some(Place::Values(values)) => Some(*values),
            _ => dict,
        })
        .collect())
}

/// Which entry `name` is in each of the dicts' keys, by the keys' address; most instances share theirs.
fn find_in_keys(
    memory: &impl ReadMemory,
    layout: &Layout,
    dicts: &[Option<Dict>],
    name: &mut KnownKey,
) -> Result<HashMap<Address, (Keys, usize)>, ReadError> {
    let addresses: HashSet<_> = dicts.iter().flatten().map(|dict| dict.keys).collect();
    let addresses: Vec<_> = addresses.into_iter().collect();
    let tables = read_keys(memory, layout, &addresses, MAX_ATTRIBUTES)?;
    let mut found = HashMap::new();
    for (address, keys) in addresses.into_iter().zip(tables) {
        if let Some(keys) = keys
            && let Some(index) = name.find(memory, layout, &keys)?
        {
            found.insert(address, (keys, index));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const INSTANCE: Address = Address::new(0x5000);
    const KEYS: Address = Address::new(0x6000);
    const INLINE: ManagedDict = ManagedDict::Inline { dict_before: 24, valid: 3 };

    fn place_of(flags: u64, dict_offset: i64, before: &[u64], managed_dict: ManagedDict) -> Option<Place> {
        let dict_offset = dict_offset as u64;
        let instance_type = Type { basic_size: 16, flags, dict_offset, cached_keys: KEYS };
        let bytes: Vec<u8> = before.iter().flat_map(|word| word.to_le_bytes()).collect();
        place(INSTANCE, &bytes, &instance_type, managed_dict)
    }

    fn values(address: u64) -> Option<Place> {
        Some(Place::Values(Dict { keys: KEYS, values: Some(Address::new(address)) }))
    }

    fn dict(address: u64) -> Option<Place> {
        Some(Place::Dict(Address::new(address)))
    }

    #[test]
    fn without_a_managed_dict_the_type_says_where_the_pointer_is() {
        let behind = Some(Place::DictBehind(Address::new(0x5010)));
        assert_eq!(place_of(0, 16, &[], ManagedDict::Absent), behind);
        assert_eq!(place_of(0, 16, &[1, 2, 3], INLINE), behind);
        assert_eq!(place_of(0, 0, &[], ManagedDict::Absent), None);
        assert_eq!(place_of(0, -8, &[], ManagedDict::Absent), None);
    }

    #[test]
    fn in_3_11_there_are_values_or_a_dict() {
        let two = ManagedDict::TwoPointers { values_before: 32, dict_before: 24 };
        assert_eq!(place_of(MANAGED_DICT, -1, &[0x7000, 0, 1, 2], two), values(0x7000));
        assert_eq!(place_of(MANAGED_DICT, -1, &[0, 0x8000, 1, 2], two), dict(0x8000));
    }

    #[test]
    fn in_3_12_an_odd_pointer_leads_to_the_byte_before_the_values() {
        let tagged = ManagedDict::Tagged { before: 24 };
        assert_eq!(place_of(MANAGED_DICT, -1, &[0x6fff, 1, 2], tagged), values(0x7000));
        assert_eq!(place_of(MANAGED_DICT, -1, &[0x8000, 1, 2], tagged), dict(0x8000));
    }

    #[test]
    fn from_3_13_on_values_may_be_inside_the_instance() {
        let flags = MANAGED_DICT | INLINE_VALUES;
        let inline = Place::Inline { header: Address::new(0x5010), keys: KEYS, dict: Address::new(0x8000) };
        assert_eq!(place_of(flags, -1, &[0x8000, 1, 2], INLINE), Some(inline));
        assert_eq!(place_of(MANAGED_DICT, -1, &[0x8000, 1, 2], INLINE), dict(0x8000));
    }
}
