//! Files that are whole, cut off, damaged, and made to do harm.

use std::time::Duration;

use proptest::prelude::*;

use super::part::{Counted, GilPart, Part};
use super::*;
use crate::analysis::{Analysis, By, Slots, stack_times};
use crate::sample::NewStacks;

/// A small recording of three stretches.
fn small() -> Vec<u8> {
    let rows = ["HHHHWWWWHHHHWW??SSSSQQHH", "WWWWHHHHWWWWHHHHWWWWWWWW", "BBBBBBBNNNNNNNNBBBBB    "];
    let rows: Vec<(String, &str)> = (1..).map(|number| format!("thread-{number}")).zip(rows).collect();
    fake::bytes(&rows, &[10, 17], true)
}

fn read_bytes(bytes: &[u8]) -> Result<Vec<Recording>, NotARecording> {
    read(&Source::memory(bytes.to_vec()))
}

/// Where each block begins, and where the last one ends.
fn borders(bytes: &[u8]) -> Vec<usize> {
    let mut borders = vec![8];
    while let Some(&begin) = borders.last()
        && let Some(length) = bytes.get(begin..begin + 4)
    {
        borders.push(begin + 8 + u32::from_le_bytes(length.try_into().unwrap()) as usize);
    }
    borders
}

/// What is inside of the block between two borders.
fn content(bytes: &[u8], begin: usize, end: usize) -> Vec<u8> {
    zstd::bulk::decompress(&bytes[begin + 8..end], 1 << 24).unwrap()
}

fn block(content: &[u8]) -> Vec<u8> {
    let frame = zstd::bulk::compress(content, 1).unwrap();
    let length = frame.len() as u32;
    [&length.to_le_bytes()[..], &(!length).to_le_bytes(), &frame].concat()
}

/// Computes whatever is computed from recordings.
fn use_all(recordings: Vec<Recording>) {
    for recording in recordings {
        let lanes: Vec<Vec<ThreadIndex>> =
            (0..recording.threads.len() as u32).map(|thread| vec![ThreadIndex(thread)]).collect();
        for recording in [recording.clone(), recording.cut(Duration::ZERO..Duration::from_millis(9)).unwrap()]
        {
            Analysis::of(&recording).unwrap();
            for by in [By::Hold, By::Wait, By::Blame, By::Cpu, By::Wall] {
                stack_times(&recording, by).unwrap();
            }
            Slots::of(&recording, &lanes, recording.duration, 20).unwrap();
        }
    }
}

#[test]
fn cut_off_anywhere_all_whole_blocks_are_read() {
    let bytes = small();
    let borders = borders(&bytes);
    // Magic, header, process, three stretches, closing.
    assert_eq!((borders.len(), *borders.last().unwrap()), (7, bytes.len()));
    for length in 0..bytes.len() {
        let whole = borders.iter().filter(|border| **border <= length).count();
        match read_bytes(&bytes[..length]) {
            Err(error) => {
                assert!(whole < 3, "{length}: {error}");
                assert!(matches!(error, NotARecording::Empty | NotARecording::Foreign), "{length}: {error}");
            }
            Ok(recordings) => {
                assert_eq!(recordings[0].ending, Ending::Lost);
                assert_eq!(recordings[0].ticks, [0, 10, 17, 24][whole - 3], "{length}");
                use_all(recordings);
            }
        }
    }
    assert_eq!(read_bytes(&bytes).unwrap()[0].ending, Ending::Finished);
}

#[test]
fn what_was_not_on_the_disk_yet_when_the_machine_stopped_costs_no_more() {
    let bytes = small();
    let borders = borders(&bytes);
    for length in borders[4]..bytes.len() {
        let mut zeros = bytes[..length].to_vec();
        zeros.resize(bytes.len() + 4096, 0);
        let whole = borders.iter().filter(|border| **border <= length).count();
        let recording = read_bytes(&zeros).unwrap().remove(0);
        assert!(recording.ticks >= [0, 10, 17, 24][(whole - 3).min(3)], "{length}");
    }
}

#[test]
fn a_flipped_bit_is_found_or_changes_nothing() {
    let bytes = small();
    let whole = Analysis::of(&read_bytes(&bytes).unwrap()[0]).unwrap();
    let mut unnoticed = 0;
    for place in 0..bytes.len() {
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[place] ^= 1 << bit;
            if let Ok(recordings) = read_bytes(&flipped) {
                assert_eq!(Analysis::of(&recordings[0]).unwrap(), whole, "byte {place}, bit {bit}");
                unnoticed += 1;
            }
        }
    }
    assert!(unnoticed < 50, "{unnoticed}");
}

#[test]
fn what_is_no_recording_says_so() {
    let said = |bytes: &[u8]| read_bytes(bytes).unwrap_err().to_string();
    assert!(said(b"").contains("not a recording"));
    assert!(said(b"<svg xmlns=").contains("not a recording"));
    assert!(said(b"gilspy\r\n\x01").contains("not a recording"), "transferred as text");
    assert!(said(b"gilspy\n\x01").contains("before anything was recorded"));
    assert!(said(b"gilspy\n\x02").contains("newer gilspy"));
    let mut damaged = small();
    damaged[12] ^= 1;
    assert!(said(&damaged).contains("damaged at byte 8"));
}

#[test]
fn a_later_gilspy_may_add_blocks_and_fields() {
    let bytes = small();
    let borders = borders(&bytes);
    let (header, rest) = bytes.split_at(borders[1]);
    let with = |kind: u8| read_bytes(&[header, &block(&[kind, 1, 2, 3]), rest].concat());
    assert_eq!(with(100).unwrap()[0].ticks, 24);
    assert!(matches!(with(200), Err(NotARecording::Unknown(200))));
    let closing = content(&bytes, borders[5], borders[6]);
    let longer = [&bytes[..borders[5]], &block(&[closing, vec![7; 20]].concat())].concat();
    assert_eq!(read_bytes(&longer).unwrap()[0].ending, Ending::Finished);
}

#[test]
fn a_block_that_grows_without_end_is_not_believed() {
    let bytes = small();
    let border = borders(&bytes)[2];
    let bomb = [&bytes[..border], &block(&vec![3; 20 << 20]), &bytes[border..]].concat();
    assert!(matches!(read_bytes(&bomb), Err(NotARecording::Damaged { .. })));
}

#[test]
fn a_recording_made_of_a_part_is_of_that_part_alone() {
    let rows = [
        &*("H".repeat(50) + &"W".repeat(50)),
        &("W".repeat(50) + &"H".repeat(50)),
        &("B".repeat(20) + &" ".repeat(80)),
    ];
    for ends in [&[][..], &[30], &[10, 20, 30, 40, 50, 60]] {
        let recording = fake::in_stretches(&rows, ends);
        let start = recording.start;
        let cut = recording.cut(Duration::from_millis(40)..Duration::from_millis(80)).unwrap();
        let expected =
            fake::of_threads(&[&("H".repeat(10) + &"W".repeat(30)), &("W".repeat(10) + &"H".repeat(30))]);
        assert_eq!((cut.ticks, cut.missed_ticks, cut.duration), (40, 0, Duration::from_millis(40)));
        assert_eq!(cut.start, start + Duration::from_millis(40));
        assert!(cut.shows(ThreadIndex(0)) && cut.shows(ThreadIndex(1)));
        let (of_cut, expected) = (Analysis::of(&cut).unwrap(), Analysis::of(&expected).unwrap());
        assert_eq!(of_cut.gils[0].hold, expected.gils[0].hold);
        assert_eq!(
            of_cut.gils[0].waiting.as_ref().unwrap().causes,
            expected.gils[0].waiting.as_ref().unwrap().causes
        );
        assert_eq!(of_cut.threads[..2], expected.threads);
        // And a part of the part.
        let again = cut.cut(Duration::from_millis(5)..Duration::from_millis(15)).unwrap();
        let held = Analysis::of(&again).unwrap().gils.remove(0).hold;
        assert_eq!((held[&ThreadIndex(0)], held[&ThreadIndex(1)]), (0.5, 0.5));
    }
}

proptest! {
    /// Blocks whose frames are right and whose contents are not.
    #[test]
    fn whatever_the_blocks_say_reading_them_does_no_harm(
        place in 1_usize..6,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        is_cut in prop::bool::weighted(0.1),
    ) {
        let bytes = small();
        let borders = borders(&bytes);
        let mut changed = content(&bytes, borders[place - 1], borders[place]);
        for (at, value) in changes {
            let at = at.index(changed.len());
            changed[at] = value;
        }
        if is_cut {
            changed.truncate(cut.index(changed.len()));
        }
        let file = [&bytes[..borders[place - 1]], &block(&changed), &bytes[borders[place]..]].concat();
        if let Ok(recordings) = read_bytes(&file) {
            use_all(recordings);
        }
    }

    #[test]
    fn whatever_a_part_holds_is_read_as_it_was_written(parts in prop::collection::vec(part(), 1..4)) {
        let (mut written, mut read) = (v1::Texts::default(), v1::Texts::default());
        for part in parts {
            let block = postcard::to_stdvec(&v1::Stretch::encode(7, &part, &mut written, 10)).unwrap();
            let block: v1::Stretch = postcard::from_bytes(&block).unwrap();
            prop_assert_eq!(block.process, 7);
            prop_assert_eq!(block.decode(Some(&mut read), 10).unwrap(), part);
        }
    }
}

fn part() -> impl Strategy<Value = Part> {
    let threads = prop::collection::vec((any::<u32>(), thread()), 0..4);
    let last_seen = prop::collection::vec((any::<u32>().prop_map(ThreadIndex), moment()), 0..4);
    let gils = prop::collection::vec(gil(), 0..3);
    let ticks = prop::collection::vec((0_u64..2_000_000, 1_u32..4), 0..20);
    let tracks = prop::collection::vec((any::<u32>().prop_map(ThreadIndex), track()), 0..4);
    let rate_changes = prop::collection::vec((moment(), any::<u32>()), 0..3);
    let tables = (stacks(), threads, last_seen, gils);
    (moment(), tables, ticks, tracks, rate_changes, counted()).prop_map(
        |(until, (stacks, threads, last_seen, gils), ticks, tracks, rate_changes, counted)| {
            let mut at = 0;
            let tick = |(delta, weight)| {
                at += delta * 10;
                Tick { at: Timestamp::from_nanos_since_start(at), weight }
            };
            Part {
                until,
                stacks,
                threads: threads.into_iter().map(|(index, thread)| (ThreadIndex(index), thread)).collect(),
                last_seen,
                gils,
                ticks: ticks.into_iter().map(tick).collect(),
                tracks,
                rate_changes,
                counted,
            }
        },
    )
}

fn moment() -> impl Strategy<Value = Timestamp> {
    (0_u64..1 << 50).prop_map(Timestamp::from_nanos_since_start)
}

fn duration() -> impl Strategy<Value = Duration> {
    (0_u64..1 << 50).prop_map(Duration::from_nanos)
}

fn times() -> impl Strategy<Value = TaskTimes> {
    (duration(), duration()).prop_map(|(cpu, run_queue)| TaskTimes { cpu, run_queue })
}

fn stacks() -> impl Strategy<Value = NewStacks> {
    let line = prop::option::of(prop_oneof![0_u32..100, any::<u32>()]);
    let frame = ("[a-c]{0,2}", "[a-cé]{0,2}", line).prop_map(|(function, file, line)| Frame {
        function: function.into(),
        file: file.into(),
        line,
    });
    let stack = prop::collection::vec(0_u32..5, 0..6).prop_map(|stack| stack.into());
    (prop::collection::vec(frame, 0..5), prop::collection::vec(stack, 0..6))
        .prop_map(|(frames, stacks)| NewStacks { frames, stacks })
}

fn thread() -> impl Strategy<Value = Thread> {
    let ids = (any::<i64>(), prop::option::of(any::<i32>()), prop::option::of(any::<i32>()));
    let interpreters = prop::collection::vec(any::<i64>(), 0..3);
    (ids, interpreters, prop::option::of(".{0,5}"), moment(), moment()).prop_map(
        |((interpreter, tid, namespace_tid), interpreters, name, first_seen, last_seen)| Thread {
            interpreter,
            interpreters,
            tid: tid.map(Tid::new),
            namespace_tid: namespace_tid.map(NamespaceTid::new),
            name,
            first_seen,
            last_seen,
            times: TaskTimes::default(),
        },
    )
}

/// Runs of these values, the first of which may begin late.
fn runs<T: Copy + PartialEq + std::fmt::Debug>(
    value: impl Strategy<Value = T>,
) -> impl Strategy<Value = Runs<T>> {
    prop::collection::vec((1_u32..9, value), 0..8).prop_map(|runs| {
        let mut place = 0;
        let begin = |(length, value)| {
            place += length;
            (place, value)
        };
        let runs: Vec<(u32, T)> = runs.into_iter().map(begin).collect();
        let end = runs.last().map_or(0, |(begin, _)| begin + 3);
        Runs::new(runs, end).unwrap()
    })
}

fn stack() -> impl Strategy<Value = StackIndex> {
    prop_oneof![Just(StackIndex::UNKNOWN), any::<u32>().prop_map(StackIndex::new)]
}

fn gil() -> impl Strategy<Value = GilPart> {
    let held = (any::<u32>(), stack())
        .prop_map(|(thread, stack)| Holder::Thread { thread: ThreadIndex(thread), stack });
    let holder = prop_oneof![
        Just(Holder::Nobody),
        Just(Holder::Disabled),
        Just(Holder::Stopped),
        Just(Holder::Unknown),
        held
    ];
    let run = (holder, any::<u32>()).prop_map(|(holder, handovers)| GilRun { holder, handovers });
    (prop::collection::vec(any::<i64>(), 0..3), duration(), runs(run))
        .prop_map(|(interpreters, switch_interval, runs)| GilPart { interpreters, switch_interval, runs })
}

fn track() -> impl Strategy<Value = ThreadTrack> {
    let syscall = || any::<u32>().prop_map(Syscall::from_number);
    let state = prop_oneof![
        Just(ThreadState::Hold),
        Just(ThreadState::Native),
        Just(ThreadState::Parallel),
        Just(ThreadState::Unknown),
        any::<u16>().prop_map(|gil| ThreadState::Wait { gil }),
        syscall().prop_map(ThreadState::Stall),
        syscall().prop_map(ThreadState::Blocked),
    ];
    let run = (state, stack()).prop_map(|(state, stack)| ThreadRun { state, stack });
    let starvation = (any::<u32>(), duration()).prop_map(|(tick, duration)| Starvation { tick, duration });
    (runs(run), times(), prop::collection::vec(starvation, 0..3))
        .prop_map(|(runs, times, starvations)| ThreadTrack { runs, times, starvations })
}

fn counted() -> impl Strategy<Value = Counted> {
    let throttling = (any::<u64>(), any::<u64>(), duration(), prop::option::of(0.0..99.0)).prop_map(
        |(periods, throttled_periods, throttled, quota_cpus)| Throttling {
            periods,
            throttled_periods,
            throttled,
            quota_cpus,
        },
    );
    let native = (any::<i32>(), prop::option::of(".{0,5}"), times())
        .prop_map(|(tid, name, times)| NativeThread { tid: Tid::new(tid), name, times });
    (any::<u64>(), duration(), prop::option::of(throttling), prop::collection::vec(native, 0..3)).prop_map(
        |(missed_ticks, own_cpu, throttling, native_threads)| Counted {
            missed_ticks,
            own_cpu,
            throttling,
            native_threads,
        },
    )
}
