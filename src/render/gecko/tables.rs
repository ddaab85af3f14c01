//! The tables of the Firefox Profiler's processed format, version 55: columns of the same length, which refer to each
//! other by place. What they mean is written down in `docs-developer/` and `src/types/profile.ts` of
//! github.com/firefox-devtools/profiler.

use std::collections::HashMap;

use serde::Serialize;

use crate::recording::Recording;
use crate::render::chart::Element;
use crate::text;

/// A category and a subcategory of it, by their places.
pub(super) type Category = (usize, usize);

/// One thread of the profile.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Thread {
    pub(super) name: String,
    pub(super) is_main_thread: bool,
    pub(super) process_type: &'static str,
    pub(super) process_name: String,
    pub(super) process_startup_time: f64,
    pub(super) process_shutdown_time: f64,
    pub(super) register_time: f64,
    pub(super) unregister_time: f64,
    pub(super) pid: String,
    pub(super) tid: String,
    pub(super) paused_ranges: [(); 0],
    pub(super) show_markers_in_timeline: bool,
    pub(super) samples: Samples,
    pub(super) markers: Markers,
    #[serde(flatten)]
    pub(super) names: Names,
}

/// What the thread's samples saw; times are milliseconds.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Samples {
    length: usize,
    weight_type: &'static str,
    stack: Vec<Option<usize>>,
    time: Vec<f64>,
    weight: Vec<f64>,
}

impl Samples {
    pub(super) fn new() -> Self {
        Samples {
            length: 0,
            weight_type: "tracing-ms",
            stack: Vec::new(),
            time: Vec::new(),
            weight: Vec::new(),
        }
    }

    /// Adds a sample at some moment that stands for so much time, both in nanoseconds.
    pub(super) fn add(&mut self, at: u64, nanos: u64, stack: Option<usize>) {
        self.length += 1;
        self.stack.push(stack);
        self.time.push(milliseconds(at));
        self.weight.push(milliseconds(nanos));
    }
}

/// Intervals with a name and details.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Markers {
    length: usize,
    category: Vec<usize>,
    name: Vec<usize>,
    phase: Vec<u8>,
    start_time: Vec<f64>,
    end_time: Vec<f64>,
    data: Vec<Details>,
}

/// What is told of a marker; texts by their places.
#[derive(Serialize)]
#[serde(tag = "type")]
pub(super) enum Details {
    /// A thread held a GIL, for the longest in this call.
    #[serde(rename = "GIL held")]
    Held { function: usize },
    /// A thread waited for a GIL, for the longest behind this one, which was in this call.
    #[serde(rename = "GIL wait")]
    Wait { holder: usize, function: usize },
}

impl Markers {
    /// Adds one from some moment to another, in nanoseconds.
    pub(super) fn add(&mut self, start: u64, end: u64, name: usize, category: usize, data: Details) {
        const INTERVAL: u8 = 1;
        self.length += 1;
        self.category.push(category);
        self.name.push(name);
        self.phase.push(INTERVAL);
        self.start_time.push(milliseconds(start));
        self.end_time.push(milliseconds(end));
        self.data.push(data);
    }
}

/// The texts, functions, frames and stacks of a thread.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Names {
    string_array: Vec<String>,
    func_table: Functions,
    frame_table: Frames,
    stack_table: Stacks,
    resource_table: Resources,
    native_symbols: NativeSymbols,
    #[serde(skip)]
    known_strings: HashMap<String, usize>,
    #[serde(skip)]
    known_functions: HashMap<(usize, Option<usize>), usize>,
    #[serde(skip)]
    known_frames: HashMap<(usize, Option<u32>, Category), usize>,
    #[serde(skip)]
    known_stacks: HashMap<(Option<usize>, usize), usize>,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Functions {
    length: usize,
    name: Vec<usize>,
    #[serde(rename = "isJS")]
    is_js: Vec<bool>,
    #[serde(rename = "relevantForJS")]
    relevant_for_js: Vec<bool>,
    resource: Vec<i32>,
    file_name: Vec<Option<usize>>,
    line_number: Vec<Option<u32>>,
    column_number: Vec<Option<u32>>,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Frames {
    length: usize,
    address: Vec<i32>,
    inline_depth: Vec<u32>,
    category: Vec<usize>,
    subcategory: Vec<usize>,
    func: Vec<usize>,
    native_symbol: Vec<Option<usize>>,
    #[serde(rename = "innerWindowID")]
    inner_window_id: Vec<u32>,
    line: Vec<Option<u32>>,
    column: Vec<Option<u32>>,
}

#[derive(Default, Serialize)]
struct Stacks {
    length: usize,
    frame: Vec<usize>,
    prefix: Vec<Option<usize>>,
}

/// Libraries: none.
#[derive(Default, Serialize)]
struct Resources {
    length: usize,
    lib: [(); 0],
    name: [(); 0],
    host: [(); 0],
    r#type: [(); 0],
}

/// Symbols of libraries: none.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct NativeSymbols {
    length: usize,
    address: [(); 0],
    function_size: [(); 0],
    lib_index: [(); 0],
    name: [(); 0],
}

impl Names {
    /// The place of a text.
    pub(super) fn string(&mut self, text: &str) -> usize {
        if let Some(&place) = self.known_strings.get(text) {
            return place;
        }
        self.string_array.push(text.to_owned());
        self.known_strings.insert(text.to_owned(), self.string_array.len() - 1);
        self.string_array.len() - 1
    }

    /// The place of a stack, given outermost call first; only the innermost one has the category.
    pub(super) fn stack(
        &mut self,
        recording: &Recording,
        elements: &[Element<'_>],
        category: Category,
    ) -> Option<usize> {
        const OTHER: Category = (0, 0);
        let mut stack = None;
        for (depth, element) in elements.iter().enumerate() {
            let is_innermost = depth + 1 == elements.len();
            let frame = self.frame(recording, element, if is_innermost { category } else { OTHER });
            let (stacks, next) = (&mut self.stack_table, self.known_stacks.len());
            let place = *self.known_stacks.entry((stack, frame)).or_insert_with(|| {
                stacks.length += 1;
                stacks.frame.push(frame);
                stacks.prefix.push(stack);
                next
            });
            stack = Some(place);
        }
        stack
    }

    fn frame(&mut self, recording: &Recording, element: &Element<'_>, category: Category) -> usize {
        let (file, line) = match element {
            Element::Frame(frame) => (Some(text::name(&frame.file)), frame.line),
            _ => (None, None),
        };
        let function = self.function(&element.name(recording), file.as_deref());
        let (frames, next) = (&mut self.frame_table, self.known_frames.len());
        *self.known_frames.entry((function, line, category)).or_insert_with(|| {
            frames.length += 1;
            frames.address.push(-1);
            frames.inline_depth.push(0);
            frames.category.push(category.0);
            frames.subcategory.push(category.1);
            frames.func.push(function);
            frames.native_symbol.push(None);
            frames.inner_window_id.push(0);
            frames.line.push(line);
            frames.column.push(None);
            next
        })
    }

    fn function(&mut self, name: &str, file: Option<&str>) -> usize {
        let (name, file) = (self.string(name), file.map(|file| self.string(file)));
        let (functions, next) = (&mut self.func_table, self.known_functions.len());
        *self.known_functions.entry((name, file)).or_insert_with(|| {
            functions.length += 1;
            functions.name.push(name);
            functions.is_js.push(false);
            functions.relevant_for_js.push(false);
            functions.resource.push(-1);
            functions.file_name.push(file);
            functions.line_number.push(None);
            functions.column_number.push(None);
            next
        })
    }
}

/// Nanoseconds as the format has them.
pub(super) fn milliseconds(nanos: u64) -> f64 {
    nanos as f64 / 1e6
}
