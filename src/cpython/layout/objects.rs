//! Where attributes are: of a module, of an instance, down to dicts and ints.

/// Fields of the objects on the way to an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectsLayout {
    /// `PyObject.ob_type`, pointer to an object's type.
    pub object_type: u64,
    /// `PyModuleObject.md_dict`, pointer to a module's dict.
    pub module_dict: u64,
    /// `PyTypeObject` and `PyHeapTypeObject`.
    pub type_object: TypeLayout,
    /// How an instance keeps its attributes if its type says that the interpreter manages its dict.
    pub managed_dict: ManagedDict,
    /// `PyDictObject`.
    pub dict: DictLayout,
    /// `PyDictKeysObject`.
    pub dict_keys: DictKeysLayout,
    /// `PyLongObject`.
    pub int: IntLayout,
}

/// Fields of `PyTypeObject` and `PyHeapTypeObject`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TypeLayout {
    /// `Py_ssize_t tp_basicsize`: how long an instance is, without inline values.
    pub basic_size: u64,
    /// `unsigned long tp_flags`.
    pub flags: u64,
    /// `Py_ssize_t tp_dictoffset`: where in an instance the pointer to its dict is, if positive.
    pub dict_offset: u64,
    /// `ht_cached_keys`, pointer to the keys that instances share (read from 3.11 on).
    pub cached_keys: Option<u64>,
}

impl TypeLayout {
    /// How many bytes of a type hold all the fields gilspy reads.
    pub fn extent(&self) -> u64 {
        [self.basic_size, self.flags, self.dict_offset].into_iter().chain(self.cached_keys).fold(0, u64::max)
            + 8
    }
}

/// How an instance keeps its attributes if its type has `Py_TPFLAGS_MANAGED_DICT`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ManagedDict {
    /// No type has that flag (to 3.10).
    Absent,
    /// Before the instance there is a pointer to the values, and one to the dict (3.11).
    TwoPointers {
        /// How many bytes before the instance the pointer to the values is.
        values_before: u64,
        /// How many bytes before the instance the pointer to the dict is.
        dict_before: u64,
    },
    /// One pointer before the instance, to the dict, or, if odd, to the byte before the values (3.12).
    Tagged {
        /// How many bytes before the instance it is.
        before: u64,
    },
    /// A pointer to the dict before the instance and, if the type has `Py_TPFLAGS_INLINE_VALUES`, the
    /// values after it (from 3.13 on).
    Inline {
        /// How many bytes before the instance the pointer to the dict is.
        dict_before: u64,
        /// `uint8_t valid` of the values; zero where only the dict counts.
        valid: u64,
    },
}

impl ManagedDict {
    /// How many bytes before an instance have to be read with it.
    pub fn extent_before(self) -> u64 {
        match self {
            ManagedDict::Absent => 0,
            ManagedDict::TwoPointers { values_before, dict_before } => values_before.max(dict_before),
            ManagedDict::Tagged { before } => before,
            ManagedDict::Inline { dict_before, .. } => dict_before,
        }
    }
}

/// Fields of `PyDictObject` and `PyDictValues`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DictLayout {
    /// Pointer to the keys.
    pub keys: u64,
    /// Pointer to the values, null where they are among the keys.
    pub values: u64,
    /// Where in the values the first pointer is.
    pub first_value: u64,
}

impl DictLayout {
    /// How many bytes of a dict hold all the fields gilspy reads.
    pub fn extent(&self) -> u64 {
        self.keys.max(self.values) + 8
    }
}

/// Fields of `PyDictKeysObject`: a header, a table of indices, the entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DictKeysLayout {
    /// `Py_ssize_t dk_nentries`: how many entries are or were in use.
    pub used_entries: u64,
    /// Where the table of indices starts: the length of the header.
    pub indices: u64,
    /// How long the table of indices is.
    pub index_table: IndexTable,
}

/// What says how long a dict's table of indices is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IndexTable {
    /// `Py_ssize_t dk_size`, how many indices there are; their width follows from it (to 3.10).
    Size(u64),
    /// The logarithm of its length in bytes (from 3.11 on).
    Logarithm {
        /// `uint8_t dk_log2_index_bytes`.
        log2_bytes: u64,
        /// `uint8_t dk_kind`: 0 where entries hold the key's hash as well.
        kind: u64,
    },
}

/// Fields of `PyLongObject`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IntLayout {
    /// The 64 bits that hold how many digits there are.
    pub size: u64,
    /// By how many bits the number of digits is shifted: 0 (`ob_size`) or 3 (`lv_tag`, from 3.12 on).
    pub size_shift: u32,
    /// The bits that are zero in a positive number; up to 3.11 a negative one has a negative size.
    pub sign_mask: u64,
    /// Where the digits of 30 bits start, the lowest first.
    pub digits: u64,
}
