//! A recording from who knows where: read, added up, cut, compared, and written in every format.

use std::io::{Write, sink};
use std::time::Duration;

use anstyle::Style;
use gilspy::analysis::{Analysed, By, Changes};
use gilspy::recording::{Recording, Source, read};
use gilspy::render::flamegraph::Place;

use gilspy::render::StackOptions;
use gilspy::render::{
    chrometrace, diff, differential, flamegraph, folded, gecko, html, pprof, report, speedscope,
    summary_of_several, timeline,
};

use super::script::Script;

/// What a recording begins with, with its version.
const MAGIC: &[u8] = b"gilspy\n\x01";

/// Blocks of an input at most.
const BLOCKS: usize = 64;

/// What the blocks of an input are, each its kind, its length and what is in it, as a recording.
pub fn pack(script: &mut Script<'_>) -> Vec<u8> {
    let mut file = MAGIC.to_vec();
    for _ in 0..BLOCKS {
        if script.is_empty() {
            break;
        }
        let kind = script.byte();
        let length = script.short();
        let block = [&[kind], script.take(usize::from(length))].concat();
        let frame = zstd::bulk::compress(&block, 1).unwrap();
        let length = frame.len() as u32;
        file.extend(length.to_le_bytes());
        file.extend((!length).to_le_bytes());
        file.extend(frame);
    }
    file
}

/// The opposite; `None` for a block that is too long for it.
pub fn unpack(mut file: &[u8]) -> Option<Vec<u8>> {
    file = file.strip_prefix(MAGIC)?;
    let mut input = Vec::new();
    while let Some((lengths, rest)) = file.split_first_chunk::<8>() {
        let length = u32::from_le_bytes(*lengths.first_chunk()?) as usize;
        let block = zstd::bulk::decompress(rest.get(..length)?, 16 << 20).ok()?;
        let (kind, content) = block.split_first()?;
        input.push(*kind);
        input.extend(u16::try_from(content.len()).ok()?.to_le_bytes());
        input.extend(content);
        file = &rest[length..];
    }
    Some(input)
}

/// Reads a file and writes it in the formats that the number has bits of.
pub fn render(file: Vec<u8>, formats: u16) {
    let Ok(mut recordings) = read(&Source::memory(file)) else { return };
    let has = |bit: u32| formats >> bit & 1 == 1;
    if has(0) {
        let cut = |recording: Recording| {
            let (from, to) = (recording.duration / 3, recording.duration.saturating_mul(2) / 3);
            recording.cut(from..to.max(from + Duration::from_nanos(1)))
        };
        let Ok(all) = recordings.into_iter().map(cut).collect() else { return };
        recordings = all;
        recordings.iter_mut().for_each(|recording| recording.show_only(|thread, _| thread.0 % 2 == 0));
    }
    let Ok(analysed) = recordings.iter().map(Analysed::of).collect::<Result<Vec<_>, _>>() else { return };
    let by = By::ALL[usize::from(formats >> 13) % By::ALL.len()];
    let options = StackOptions {
        by,
        merge_threads: has(1),
        merge_lines: has(2),
        full_filenames: has(1),
        reversed: has(2),
    };
    let mut writer = sink();
    let mut written = Vec::new();
    for bit in (3..13).filter(|bit| has(*bit)) {
        written.push(match bit {
            3 => flamegraph::write(&analysed, options, Place::Window, &mut writer).is_ok(),
            4 => timeline::write(&analysed, &mut writer).is_ok(),
            5 => html::write(&analysed, options, &mut writer).is_ok(),
            6 => folded::write(&analysed, options, &mut writer).is_ok(),
            7 => chrometrace::write(&analysed, &mut writer).is_ok(),
            8 => speedscope::write(&analysed, &mut writer).is_ok(),
            9 => pprof::write(&analysed, &mut writer).is_ok(),
            10 => gecko::write(&analysed, &mut writer).is_ok(),
            11 => report::write(&analysed, &mut writer).is_ok(),
            _ => compare(&analysed[0], &analysed[analysed.len() - 1], by, &mut writer),
        });
    }
    summary_of_several::text(&analysed, Style::new());
    assert!(written.iter().all(|written| *written), "a recording that is read can be written: {written:?}");
}

fn compare(before: &Analysed<'_>, after: &Analysed<'_>, by: By, writer: &mut impl Write) -> bool {
    let Ok(changes) = Changes::between(before, after, by) else { return false };
    diff::text(before, after, &changes, by, Style::new());
    differential::write(before, after, by, writer).is_ok()
}
