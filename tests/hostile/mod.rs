//! Hostile memory and hostile recordings: everything that gilspy does with what it reads of a target or of a file, done
//! with whatever bytes it is given. What libFuzzer calls (`fuzz/`), and what the tests replay (`hostile_memory.rs`).

#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used)]

pub mod allocation;
pub mod drive;
pub mod image;
pub mod memory;
pub mod recording;
pub mod script;
pub mod timing;

use gilspy::cpython::layout::debug_offsets::DebugOffsets;
use gilspy::cpython::layout::table;
use gilspy::cpython::locate::Located;
use gilspy::cpython::version::Version;
use gilspy::units::Address;

use drive::{Start, drive};
use image::{IMAGES, Image};
use memory::{Beyond, Hostile, MAZE};
use script::Script;

/// What libFuzzer calls with an input.
pub type Target = fn(&[u8]);

/// All of them, by the names of their corpora.
pub const TARGETS: [(&str, Target); 5] = [
    ("image", image),
    ("offsets", offsets),
    ("maze", maze),
    ("changing", changing),
    ("recording", recording),
];

/// The memory of a real interpreter, with words of it changed before and while it is read.
pub fn image(input: &[u8]) {
    let mut script = Script::new(input);
    let image = Image::load(IMAGES[script.below(IMAGES.len())]);
    let memory = Hostile::from_image(&image);
    memory.set_beyond(Beyond::from_byte(script.byte()));
    let changes = script.below(32);
    for _ in 0..changes {
        memory.change(&mut script);
    }
    drive(&memory, &Start::of(&image), &mut script);
}

/// The same, where it is what the interpreter publishes about itself that is changed.
pub fn offsets(input: &[u8]) {
    let published: Vec<_> = IMAGES.iter().filter(|image| Image::load(image).publishes()).collect();
    let mut script = Script::new(input);
    let image = Image::load(published[script.below(published.len())]);
    let memory = Hostile::from_image(&image);
    memory.set_beyond(Beyond::from_byte(script.byte()));
    for _ in 0..script.below(16) {
        let place = image.runtime + 8 * script.below(120) as u64;
        let value = memory.value(&mut script, place);
        memory.set(place, value);
    }
    drive(&memory, &Start::of(&image), &mut script);
}

/// Words that lead to each other, or nowhere.
pub fn maze(input: &[u8]) {
    let mut script = Script::new(input);
    let located = any_layout(&mut script);
    let beyond = Beyond::from_byte(script.byte());
    let steps = script.take(16);
    let memory = Hostile::maze(script.rest());
    memory.set_beyond(beyond);
    drive(&memory, &Start::at(located), &mut Script::new(steps));
}

/// Memory that says something else each time it is asked.
pub fn changing(input: &[u8]) {
    let mut script = Script::new(input);
    let located = any_layout(&mut script);
    let steps = script.take(16);
    let memory = Hostile::changing(script.rest());
    drive(&memory, &Start::at(located), &mut Script::new(steps));
}

/// A recording: blocks of any content, or any bytes at all.
pub fn recording(input: &[u8]) {
    let mut script = Script::new(input);
    let formats = script.short();
    let is_bytes = script.byte() == 255;
    let file = if is_bytes { script.rest().to_vec() } else { recording::pack(&mut script) };
    recording::render(file, formats);
}

/// An interpreter of any layout, whose `_PyRuntime` is where the maze is.
fn any_layout(script: &mut Script<'_>) -> Located {
    let choice = script.below(6 + IMAGES.len());
    let runtime = Address::new(MAZE);
    let is_musl = script.byte() & 1 == 1;
    let version = |minor| Version { major: 3, minor, patch: 0, pre_release: String::new() };
    let image = choice.checked_sub(6).map(|place| Image::load(IMAGES[place]));
    match image.filter(Image::publishes) {
        Some(image) => {
            let memory = Hostile::from_image(&image);
            let offsets = DebugOffsets::read(&memory, Address::new(image.runtime)).unwrap().unwrap();
            let (version, free_threaded) = (offsets.version(), offsets.free_threaded());
            Located { version, free_threaded, runtime, layout: offsets.layout().unwrap(), is_musl }
        }
        None => {
            let version = version(7 + choice as u64 % 6);
            let layout = table(&version).unwrap();
            Located { version, free_threaded: false, runtime, layout, is_musl }
        }
    }
}
