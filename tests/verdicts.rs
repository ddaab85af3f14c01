//! What gilspy says of processes of one behaviour each, on every interpreter of this machine.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::fmt::Write;

use serde_json::Value;
use support::*;

/// The programs of `fixtures/programs/README.md` and what limits them, with the seconds that it takes to see.
const VERDICTS: [(&str, &str, &str); 19] = [
    ("two_spinners.py", "gil-bound", "1"),
    ("c_holds_gil.py", "gil-hogged", "1.5"),
    ("regex_backtrack.py", "gil-hogged", "1"),
    ("demo.py", "gil-hogged", "3"),
    ("c_stalls_gil.py", "gil-stalled", "1"),
    ("cpu_starved.py", "cpu-starved", "1"),
    ("hash_pool.py", "native-bound", "1"),
    ("echo_clients.py", "io-bound", "1"),
    ("sleepers.py", "idle", "0.5"),
    ("unequal_share.py", "single-thread", "1"),
    ("deep_recursion.py", "single-thread", "0.5"),
    ("asyncio_tasks.py", "single-thread", "1"),
    ("short_lived.py", "single-thread", "0.5"),
    ("process_pool.py", "idle", "1"),
    ("parked_stacks.py", "idle", "0.5"),
    ("call_pairs.py", "gil-bound", "1"),
    ("non_ascii_names.py", "gil-bound", "1"),
    ("generator_churn.py", "gil-bound", "1"),
    ("thread_churn.py", "gil-bound", "1"),
];

/// Verdicts that hold without a GIL too.
const WITHOUT_A_GIL: [&str; 3] = ["idle", "native-bound", "io-bound"];

#[test]
fn every_program_has_its_verdict() {
    let mut wrong = String::new();
    for interpreter in all_interpreters() {
        for (name, kind, seconds) in VERDICTS {
            let fixture = Fixture::start(interpreter, name, &[]);
            let report = report(&["-d", seconds, "--max-overhead", "50", "-p", &fixture.pid()]);
            let verdict = &report["verdict"];
            let free_threaded = interpreter.free_threaded && verdict["kind"] == "free-threaded";
            if verdict["kind"] != kind && !free_threaded {
                let gil = &report["interpreters"][0]["gil"];
                writeln!(wrong, "{name} on {}: {} {gil}", interpreter.version, verdict).unwrap();
            }
            assert!(!verdict["summary"].as_str().unwrap().is_empty() || WITHOUT_A_GIL.contains(&kind));
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}
