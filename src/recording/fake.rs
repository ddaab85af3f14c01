//! Recordings made up for tests of what is computed and drawn from them.

use std::time::Duration;

use super::*;
use crate::sample::{GilSample, ThreadSample};

/// A recording of three threads at 1000 Hz, a letter a tick: `A` and `B` are threads that hold the GIL,
/// `.` nobody does, `?` not known, `_` a missed tick, `-` no GIL. Thread `C` never holds it.
pub(crate) fn recording(ticks: &str) -> Recording {
    with_names(ticks, ["spinner-1", "spinner-2", "MainThread"])
}

/// The same with other thread names.
pub(crate) fn with_names(letters: &str, names: [&str; 3]) -> Recording {
    let row = |own: char| -> String {
        let letter = |letter: char| match letter {
            _ if letter == own => 'H',
            '_' | '?' => letter,
            '-' if own == 'C' => 'B',
            '-' => 'P',
            _ => 'B',
        };
        letters.chars().map(letter).collect()
    };
    let rows = ['A', 'B', 'C'].map(row);
    of_named_threads(&[(names[0], &rows[0]), (names[1], &rows[1]), (names[2], &rows[2])])
}

/// A recording of threads at 1000 Hz, a row a thread and a letter a tick: `H` hold, `S` stall, `W` wait, `N`
/// native, `B` blocked, `P` parallel, `?` unknown, a space where there is no such thread; `_` a missed tick.
pub(crate) fn of_threads(rows: &[&str]) -> Recording {
    let names: Vec<String> = (1..=rows.len()).map(|number| format!("thread-{number}")).collect();
    let rows: Vec<(&str, &str)> = names.iter().map(String::as_str).zip(rows.iter().copied()).collect();
    of_named_threads(&rows)
}

fn of_named_threads(rows: &[(&str, &str)]) -> Recording {
    let rows: Vec<(&str, Vec<char>)> =
        rows.iter().map(|(name, row)| (*name, row.chars().collect())).collect();
    let length = rows.first().map_or(0, |(_, row)| row.len());
    let mut stacks = StackTable::default();
    let function = |number: usize| match number {
        0 => ("spin_one".to_owned(), 16),
        1 => ("spin_two".to_owned(), 22),
        _ => (format!("spin_{number}"), 20 + number as u32),
    };
    let stack = |stacks: &mut StackTable, number: usize| {
        let frame = |function: &str, line| Frame {
            function: function.into(),
            file: "/srv/app/main.py".into(),
            line: Some(line),
        };
        let (name, line) = function(number);
        stacks.intern([frame(&name, line), frame("run", 3)])
    };
    let indices: Vec<StackIndex> = (0..rows.len()).map(|number| stack(&mut stacks, number)).collect();
    let target = Target {
        pid: Pid::new(4242),
        python: "3.12.7".into(),
        free_threaded: rows.iter().any(|(_, row)| row.contains(&'P')),
        command: vec!["python3".into(), "app.py".into()],
        host: "web-7".into(),
    };
    let mut recorder = Recorder::new(target, 1000, true);
    recorder.set_interpreters(0, [0].into_iter());
    let duration = Duration::from_millis(length as u64);
    for (number, (name, _)) in rows.iter().enumerate() {
        recorder.set_thread(
            ThreadIndex(number as u32),
            Thread {
                interpreter: 0,
                tid: Some(Tid::new(4243 + number as i32)),
                namespace_tid: Some(NamespaceTid::new(4243 + number as i32)),
                name: Some((*name).to_owned()),
                first_seen: Timestamp::START,
                last_seen: Timestamp::from_duration_since_start(duration),
                track: ThreadTrack::default(),
            },
        );
    }
    let (mut handovers, mut last_holder) = (0, None);
    for tick in (0..length).filter(|tick| rows[0].1[*tick] != '_') {
        let holder = rows.iter().position(|(_, row)| matches!(row[tick], 'H' | 'S'));
        handovers += u64::from(holder.is_some() && last_holder.replace(holder) != Some(holder));
        let is = |letter: char| rows.iter().any(|(_, row)| row[tick] == letter);
        let holder = match holder {
            Some(number) => Holder::Thread { thread: ThreadIndex(number as u32), stack: indices[number] },
            None if is('?') => Holder::Unknown,
            None if is('P') => Holder::Disabled,
            None => Holder::Nobody,
        };
        let gil = GilSample {
            holder,
            switch_number: Some(1000 + handovers),
            switch_interval: Some(Duration::from_millis(5)),
        };
        let threads = rows.iter().enumerate().filter_map(|(number, (_, row))| {
            let state = match row[tick] {
                'H' => ThreadState::Hold,
                'S' => ThreadState::Stall(Syscall::from_number(230)),
                'W' => ThreadState::Wait { gil: 0 },
                'N' => ThreadState::Native,
                'B' => ThreadState::Blocked(Syscall::from_number(0)),
                'P' => ThreadState::Parallel,
                '?' => ThreadState::Unknown,
                _ => return None,
            };
            let times = TaskTimes::default();
            Some(ThreadSample { thread: ThreadIndex(number as u32), state, stack: indices[number], times })
        });
        let at = Timestamp::from_nanos_since_start(tick as u64 * 1_000_000 + 500_000);
        recorder.add(at, 1, &[gil], &threads.collect::<Vec<_>>());
    }
    let closing = Closing {
        ending: Ending::Finished,
        duration,
        missed_ticks: rows.first().map_or(0, |(_, row)| row.iter().filter(|letter| **letter == '_').count())
            as u64,
        own_cpu: duration / 100,
        native_threads: Vec::new(),
        throttling: None,
        cpus: 8,
    };
    let recording = recorder.finish(stacks, closing);
    Recording { start: jiff::Timestamp::from_second(1_795_183_331).unwrap(), ..recording }
}
