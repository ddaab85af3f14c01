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
    let rows: Vec<(String, &str)> =
        (names.iter().zip(&rows)).map(|(name, row)| ((*name).to_owned(), row.as_str())).collect();
    of_bytes(bytes(&rows, &[], true))
}

/// A recording of threads at 1000 Hz, a row a thread and a letter a tick: `H` hold, `S` stall, `W` wait, `N`
/// native, `B` blocked, `P` parallel, `?` unknown, a space where there is no such thread; `_` a missed tick. `Q` is hold,
/// after 3 ms without a CPU.
pub(crate) fn of_threads(rows: &[&str]) -> Recording {
    in_stretches(rows, &[])
}

/// The same, in stretches that end before these ticks.
pub(crate) fn in_stretches(rows: &[&str], ends: &[usize]) -> Recording {
    of_bytes(bytes(&named(rows), ends, true))
}

/// The same, where only holders were looked at.
pub(crate) fn of_holders(rows: &[&str]) -> Recording {
    of_bytes(bytes(&named(rows), &[], false))
}

fn named<'a>(rows: &[&'a str]) -> Vec<(String, &'a str)> {
    (1..).map(|number| format!("thread-{number}")).zip(rows.iter().copied()).collect()
}

fn of_bytes(bytes: Vec<u8>) -> Recording {
    read(&Source::memory(bytes)).unwrap().remove(0)
}

/// The file that such a recording is.
pub(crate) fn bytes(rows: &[(String, &str)], ends: &[usize], sees_all_threads: bool) -> Vec<u8> {
    let rows: Vec<(&str, Vec<char>)> =
        rows.iter().map(|(name, row)| (name.as_str(), row.chars().collect())).collect();
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
        namespace_pid: None,
        python: "3.12.7".into(),
        free_threaded: rows.iter().any(|(_, row)| row.contains(&'P')),
        command: vec!["python3".into(), "app.py".into()],
        host: "web-7".into(),
    };
    let mut recorder = Recorder::new(1000);
    recorder.set_interpreters(0, [0].into_iter());
    let duration = Duration::from_millis(length as u64);
    for (number, (name, _)) in rows.iter().enumerate() {
        recorder.set_thread(
            ThreadIndex(number as u32),
            Thread {
                interpreter: 0,
                interpreters: vec![0],
                tid: Some(Tid::new(4243 + number as i32)),
                namespace_tid: Some(NamespaceTid::new(4243 + number as i32)),
                name: Some((*name).to_owned()),
                first_seen: Timestamp::START,
                last_seen: Timestamp::from_duration_since_start(duration),
                times: TaskTimes::default(),
            },
        );
    }
    let session = Session {
        host: target.host.clone(),
        start: jiff::Timestamp::from_second(1_795_183_331).unwrap(),
        rate_hz: 1000,
        sees_all_threads,
    };
    let mut file = Appender::new(Vec::new(), &session).unwrap();
    let process = NewProcess { target, cpus: 8, parent: None, since: Timestamp::START };
    file.add_process(&process).unwrap();
    let (mut handovers, mut last_holder) = (0, None);
    for tick in 0..length {
        if ends.contains(&tick) {
            recorder.confirm(Timestamp::START, &[]);
            let until = Timestamp::from_nanos_since_start(tick as u64 * 1_000_000);
            file.append(0, &recorder.take(&stacks, until, Counted::default())).unwrap();
        }
        if rows[0].1[tick] == '_' {
            continue;
        }
        let holder = rows.iter().position(|(_, row)| matches!(row[tick], 'H' | 'Q' | 'S'));
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
        let seen = if sees_all_threads { rows.as_slice() } else { &[] };
        let threads = seen.iter().enumerate().filter_map(|(number, (_, row))| {
            let state = match row[tick] {
                'H' | 'Q' => ThreadState::Hold,
                'S' => ThreadState::Stall(Syscall::from_number(230)),
                'W' => ThreadState::Wait { gil: 0 },
                'N' => ThreadState::Native,
                'B' => ThreadState::Blocked(Syscall::from_number(0)),
                'P' => ThreadState::Parallel,
                '?' => ThreadState::Unknown,
                _ => return None,
            };
            let run_queue = Duration::from_millis(if row[tick] == 'Q' { 3 } else { 0 });
            let times = TaskTimes { run_queue, ..TaskTimes::default() };
            Some(ThreadSample { thread: ThreadIndex(number as u32), state, stack: indices[number], times })
        });
        let at = Timestamp::from_nanos_since_start(tick as u64 * 1_000_000 + 500_000);
        recorder.add(at, 1, &[gil], &threads.collect::<Vec<_>>());
    }
    let missed = rows.first().map_or(0, |(_, row)| row.iter().filter(|letter| **letter == '_').count());
    let counted = Counted { missed_ticks: missed as u64, own_cpu: duration / 100, ..Counted::default() };
    recorder.confirm(Timestamp::START, &[]);
    let until = Timestamp::from_duration_since_start(duration);
    file.append(0, &recorder.take(&stacks, until, counted)).unwrap();
    file.close(0, Ending::Finished, duration).unwrap();
    file.into_inner()
}
