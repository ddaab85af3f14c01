//! Hostile memory and hostile recordings: what libFuzzer has found and kept (`fuzz/corpus`), what proptest thinks of, and
//! what an attacker would think of first, is read without a panic and within the bounds that gilspy states
//! (`src/sampler/bounds.rs`). Reads, their bytes and allocations are counted; nothing here is about time.
//!
//!     cargo test --test hostile_memory
//!
//! PROPTEST_CASES says how many cases there are for each layout.

#![allow(missing_docs, clippy::unwrap_used)]

mod hostile;
mod support;

use std::path::Path;

use gilspy::cpython::layout::CurrentFrame;
use gilspy::cpython::locate::{Candidate, Located};
use gilspy::cpython::threads::{ThreadHeader, ThreadList};
use gilspy::cpython::version::Version;
use gilspy::sample::{StackIndex, ThreadIndex};
use gilspy::sampler::{Sampler, bounds};
use gilspy::target::binaries::Mappings;
use gilspy::target::memory::{ReadError, ReadMemory, Segment};
use gilspy::target::process::Process;
use gilspy::target::tasks::tids;
use gilspy::units::{Address, Pid};
use hostile::allocation::{COUNTER, Counter};
use hostile::drive::own_process;
use hostile::image::{IMAGES, Image, StoredImage, Taking};
use hostile::memory::{Beyond, Hostile};
use nix::sys::signal::{Signal, kill};
use peak_alloc::PeakAlloc;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use support::*;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Cases for each layout and target, unless told otherwise.
const CASES: u32 = 12;

/// One test at a time: the allocator counts for all.
fn counting() -> std::sync::MutexGuard<'static, ()> {
    let guard = alone();
    let counter = || Counter {
        now: || ALLOCATOR.current_usage(),
        start: || ALLOCATOR.reset_peak_usage(),
        most: || ALLOCATOR.peak_usage(),
    };
    COUNTER.get_or_init(counter);
    guard
}

#[test]
fn what_fuzzing_has_found_is_read_within_the_bounds() {
    let _alone = counting();
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (name, target) in hostile::TARGETS {
        let inputs: Vec<_> = std::fs::read_dir(corpus.join(name)).unwrap().map(Result::unwrap).collect();
        assert!(!inputs.is_empty(), "no corpus of {name}");
        for input in inputs {
            let bytes = std::fs::read(input.path()).unwrap();
            if std::panic::catch_unwind(|| target(&bytes)).is_err() {
                panic!("fuzz/corpus/{name}/{}", input.file_name().display());
            }
        }
    }
}

#[test]
fn whatever_is_made_of_the_memory_of_an_interpreter_is_read_within_the_bounds() {
    let _alone = counting();
    for layout in 0..IMAGES.len() as u8 {
        for target in [hostile::image, hostile::maze, hostile::changing] {
            try_inputs(
                vec(any::<u8>(), 32..400).prop_map(move |rest| [&[layout], &rest[..]].concat()),
                target,
            );
        }
    }
}

#[test]
fn whatever_an_interpreter_publishes_of_itself_is_read_within_the_bounds() {
    let _alone = counting();
    for layout in 0..4 {
        let input = vec(any::<u8>(), 32..200).prop_map(move |rest| [&[layout], &rest[..]].concat());
        try_inputs(input, hostile::offsets);
    }
}

fn try_inputs(inputs: impl Strategy<Value = Vec<u8>>, target: hostile::Target) {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CASES);
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let run = |input: Vec<u8>| {
        target(&input);
        Ok(())
    };
    TestRunner::new(config).run(&inputs, run).unwrap();
}

/// A real interpreter's memory, and what is found in it.
struct Victim {
    memory: Hostile,
    located: Located,
    interpreter: Address,
    threads: Vec<ThreadHeader>,
}

impl Victim {
    fn of(stored: &StoredImage) -> Self {
        let image = Image::load(stored);
        let memory = Hostile::from_image(&image);
        let version = || Ok(Version::from_hex(image.version));
        let located = Located::at(&memory, Address::new(image.runtime), image.is_musl, version).unwrap();
        let interpreter = located.interpreters(&memory).unwrap()[0].address;
        let mut threads = Vec::new();
        ThreadList::new(interpreter).read(&memory, &located.layout, &mut threads).unwrap();
        Victim { memory, located, interpreter, threads }
    }

    /// The innermost frame of a thread.
    fn frame(&self, thread: &ThreadHeader) -> Address {
        match self.located.layout.thread.current_frame {
            CurrentFrame::InThread(_) => thread.frame_pointer,
            CurrentFrame::BehindCFrame { current_frame, .. } => {
                self.memory.read_pointer(thread.frame_pointer + current_frame).unwrap()
            }
        }
    }

    fn pointer(&self, address: Address) -> Address {
        Address::new(self.memory.read_pointer(address).unwrap().raw() & !7)
    }

    fn set(&self, address: Address, word: u64) {
        assert!(self.memory.set(address.raw(), word), "{address:?} is not in the image");
    }

    /// The stacks that are seen of each thread after some ticks; every step is within its bounds.
    fn look(&self) -> Vec<Option<Vec<String>>> {
        let Victim { memory, located, .. } = self;
        let sampler = || Sampler::new(own_process(), memory.clone(), located.clone()).unwrap();
        let mut sampler = memory.within(bounds::REFRESH, bounds::MEMORY, "the first look", sampler);
        for _ in 0..3 {
            let _ = memory.within(bounds::TICK, bounds::MEMORY, "a tick", || sampler.tick_all().map(drop));
            let confirm = || sampler.confirm().map(drop);
            let _ = memory.within(bounds::CONFIRMATION, bounds::MEMORY, "a confirmation", confirm);
            let _ = memory.within(bounds::REFRESH, bounds::MEMORY, "a refresh", || sampler.refresh());
        }
        let threads: Vec<ThreadIndex> = sampler.threads().all().map(|(index, _)| index).take(100).collect();
        let stacks: Vec<StackIndex> =
            threads.into_iter().map(|thread| sampler.stack(thread).unwrap()).collect();
        let frames =
            |stack| Some(sampler.stacks().frames(stack)?.map(|frame| frame.function.to_string()).collect());
        stacks.into_iter().map(frames).collect()
    }
}

#[test]
fn the_images_are_of_interpreters_whose_stacks_can_be_read() {
    let _alone = counting();
    for stored in IMAGES {
        let stacks = Victim::of(stored).look();
        let deep = stacks.iter().flatten().filter(|stack| stack.iter().any(|call| call == "descend"));
        assert!(deep.count() >= 2, "{}: {stacks:#?}", stored.series);
    }
}

#[test]
fn lists_that_lead_back_into_themselves_end() {
    let _alone = counting();
    for stored in IMAGES {
        let victim = Victim::of(stored);
        let fields = victim.located.layout.clone();
        let last = victim.threads.last().unwrap().address;
        victim.set(last + fields.thread.next, victim.threads[0].address.raw());
        victim.look();
        let victim = Victim::of(stored);
        victim.set(victim.interpreter + fields.interpreter.next, victim.interpreter.raw());
        let version = || Ok(Version::from_hex(0));
        let at = || Located::at(&victim.memory, victim.located.runtime, false, version).err();
        victim.memory.within(gilspy::cpython::locate::ATTACHING, bounds::MEMORY, "attaching", at).unwrap();
    }
}

#[test]
fn a_frame_that_is_its_own_caller_has_no_stack() {
    let _alone = counting();
    for stored in IMAGES {
        let victim = Victim::of(stored);
        let sound = victim.look();
        for thread in &victim.threads {
            let frame = victim.frame(thread);
            victim.set(frame + victim.located.layout.frame.previous, frame.raw());
        }
        assert!(sound.iter().any(Option::is_some));
        assert_eq!(victim.look().iter().flatten().count(), 0, "{}", stored.series);
    }
}

#[test]
fn strings_and_tables_of_any_length_are_read_as_far_as_they_are_believed() {
    let _alone = counting();
    for stored in IMAGES {
        for length in [1 << 60, u64::MAX, i64::MIN as u64, 1 << 32, (1 << 20) + 1, 1 << 20] {
            for beyond in [Beyond::Nothing, Beyond::Zeros] {
                let victim = Victim::of(stored);
                let layout = &victim.located.layout;
                for thread in &victim.threads {
                    let code = victim.pointer(victim.frame(thread) + layout.frame.code);
                    let name = victim.pointer(code + layout.code.filename);
                    let table = victim.pointer(code + layout.code.line_table.offset());
                    victim.set(name + layout.unicode.length, length);
                    victim.set(table + layout.bytes.size, length);
                }
                victim.memory.set_beyond(beyond);
                let names: Vec<String> = victim.look().into_iter().flatten().flatten().collect();
                assert!(names.iter().all(|name| name.chars().count() <= 4097), "{}", stored.series);
            }
        }
    }
}

/// Takes the images anew that `fixtures/memory` has, of every interpreter of this machine.
#[test]
#[ignore = "writes fixtures/memory"]
fn take_images() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/memory");
    for stored in IMAGES {
        let interpreter = all_interpreters().iter().find(|interpreter| interpreter.series() == stored.series);
        let Some(interpreter) = interpreter else {
            eprintln!("no {}", stored.series);
            continue;
        };
        let fixture = Fixture::start(
            interpreter,
            "deep_threads.py",
            &["--threads", "4", "--depth", "9", "--seconds", "600"],
        );
        let process = Process::open(Pid::new(fixture.child.id() as i32)).unwrap();
        let mappings = Mappings::of(&process).unwrap();
        let located = Candidate::new(mappings.parse(&process)).locate(&process.memory()).unwrap();
        kill(nix::unistd::Pid::from_raw(process.pid().raw()), Signal::SIGSTOP).unwrap();
        let memory = std::rc::Rc::new(Taking::new(process.memory()));
        let own = process.entry().clone();
        let at = Located::at(&*memory, located.runtime, located.is_musl, || Ok(located.version.clone()));
        let mut sampler = Sampler::new(own, Shared(memory.clone()), at.unwrap()).unwrap();
        for _ in 0..4 {
            sampler.tick_all().unwrap();
            sampler.confirm().unwrap();
            sampler.refresh().unwrap();
        }
        let version = &located.version;
        let image = Image {
            version: (version.major << 24 | version.minor << 16 | version.patch << 8 | 0xf0) as u32,
            free_threaded: located.free_threaded,
            is_musl: located.is_musl,
            runtime: located.runtime.raw(),
            pieces: memory.pieces(),
        };
        let tids: Vec<i32> = tids(process.entry()).iter().map(|tid| tid.raw()).collect();
        let bytes = image.pack(&tids);
        eprintln!("{}: {} bytes", stored.series, bytes.len());
        std::fs::write(directory.join(format!("{}.image", stored.series)), bytes).unwrap();
    }
}

/// Makes the first inputs of libFuzzer for recordings out of those of the other tests.
#[test]
#[ignore = "writes fuzz/corpus"]
fn take_recordings() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (number, entry) in std::fs::read_dir(root.join("fixtures/recordings")).unwrap().enumerate() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "gilspy") {
            let input = hostile::recording::unpack(&std::fs::read(&path).unwrap()).unwrap();
            let [low, high] = (8_u16 << number).to_le_bytes();
            let formats = [low, high, 0];
            let name = path.file_stem().unwrap();
            std::fs::write(root.join("fuzz/corpus/recording").join(name), [&formats[..], &input].concat())
                .unwrap();
        }
    }
}

struct Shared<M>(std::rc::Rc<Taking<M>>);

impl<M: ReadMemory> ReadMemory for Shared<M> {
    fn read_batch(&self, segments: &mut [Segment<'_>]) -> Result<(), ReadError> {
        self.0.read_batch(segments)
    }
}
