//! Recordings made up for tests of what is computed and drawn from them.

use std::time::Duration;

use super::*;

/// A recording of three threads at 1000 Hz, a letter a tick: `A` and `B` are threads that hold the GIL,
/// `.` nobody does, `?` not known, `_` a missed tick, `-` no GIL. Thread `C` never holds it.
pub(crate) fn recording(ticks: &str) -> Recording {
    with_names(ticks, ["spinner-1", "spinner-2", "MainThread"])
}

/// The same with other thread names.
pub(crate) fn with_names(letters: &str, names: [&str; 3]) -> Recording {
    let mut stacks = StackTable::default();
    let frame = |function: &str, line| Frame {
        function: function.into(),
        file: "/srv/app/main.py".into(),
        line: Some(line),
    };
    let of_a = stacks.intern([frame("spin_one", 16), frame("run", 3)]);
    let of_b = stacks.intern([frame("spin_two", 22), frame("run", 3)]);
    let mut ticks = Vec::new();
    for (place, letter) in letters.chars().enumerate() {
        let holder = match letter {
            'A' => Holder::Thread { thread: ThreadIndex(0), stack: of_a },
            'B' => Holder::Thread { thread: ThreadIndex(1), stack: of_b },
            '.' => Holder::Nobody,
            '-' => Holder::Disabled,
            '_' => continue,
            _ => Holder::Unknown,
        };
        ticks.push(GilTick {
            at: Timestamp::from_nanos_since_start(place as u64 * 1_000_000 + 500_000),
            weight: 1,
            holder,
        });
    }
    let duration = Duration::from_millis(letters.len() as u64);
    let thread = |(index, name): (usize, &str)| Thread {
        interpreter: 0,
        tid: Some(Tid::new(4243 + index as i32)),
        namespace_tid: Some(NamespaceTid::new(4243 + index as i32)),
        name: Some(name.to_owned()),
        first_seen: Timestamp::START,
        last_seen: Timestamp::from_duration_since_start(duration),
    };
    Recording {
        target: Target {
            pid: Pid::new(4242),
            python: "3.12.7".into(),
            free_threaded: letters.contains('-'),
            command: vec!["python3".into(), "app.py".into()],
            host: "web-7".into(),
        },
        start: jiff::Timestamp::from_second(1_795_183_331).unwrap(),
        duration,
        rate_hz: 1000,
        rate_changes: Vec::new(),
        ticks: ticks.len() as u64,
        missed_ticks: letters.matches('_').count() as u64,
        torn_ticks: letters.matches('?').count() as u64,
        own_cpu: duration / 100,
        ending: Ending::Finished,
        threads: names.into_iter().enumerate().map(thread).collect(),
        gils: vec![GilTrack {
            interpreters: vec![0],
            enabled: !letters.contains('-'),
            switch_interval: Duration::from_millis(5),
            handovers: 17,
            ticks,
        }],
        stacks,
    }
}
