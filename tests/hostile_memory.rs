//! Hostile memory and hostile recordings: what libFuzzer has found and kept (`fuzz/corpus`), and what proptest thinks of,
//! is read without a panic and within the bounds that gilspy states.

#![allow(missing_docs, clippy::unwrap_used)]

mod hostile;
mod support;

use std::path::Path;

use gilspy::cpython::locate::Candidate;
use gilspy::sampler::Sampler;
use gilspy::target::binaries::Mappings;
use gilspy::target::process::Process;
use gilspy::target::tasks::tids;
use gilspy::units::Pid;
use hostile::image::{IMAGES, Image, Taking};
use nix::sys::signal::{Signal, kill};
use support::*;

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
        let at = gilspy::cpython::locate::Located::at(&*memory, located.runtime, located.is_musl, || {
            Ok(located.version.clone())
        });
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

impl<M: gilspy::target::memory::ReadMemory> gilspy::target::memory::ReadMemory for Shared<M> {
    fn read_batch(
        &self,
        segments: &mut [gilspy::target::memory::Segment<'_>],
    ) -> Result<(), gilspy::target::memory::ReadError> {
        self.0.read_batch(segments)
    }
}
