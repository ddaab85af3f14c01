//! `gilspy dump` of real processes, on every interpreter of this machine.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use serde_json::Value;
use support::*;

#[test]
fn two_spinners_share_the_gil_and_the_main_thread_has_none_of_it() {
    for interpreter in interpreters() {
        let fixture = Fixture::start(interpreter, "two_spinners.py", &[]);
        let dump = dump_json(&fixture.pid());

        let context = format!("{}: {dump:#}", interpreter.version);
        assert_eq!(dump["target"]["python"], interpreter.version.as_str(), "{context}");
        let gil = &dump["interpreters"][0]["gil"];
        assert_eq!((&gil["enabled"], &gil["locked"]), (&Value::Bool(true), &Value::Bool(true)), "{context}");
        assert_eq!(gil["switch_interval_us"], 5000, "{context}");
        assert!(gil["handovers"].as_u64() > Some(0), "{context}");

        let spinners = ["spinner-1", "spinner-2"].map(|name| thread(&dump, name));
        let holder = spinners.iter().find(|spinner| spinner["tid"] == gil["holder_tid"]);
        assert!(holder.is_some(), "{context}");
        for (spinner, function) in spinners.iter().zip(["spin_one", "spin_two"]) {
            assert_eq!(functions(spinner)[0], function, "{context}");
        }
        // It needs the GIL once more to come back from telling that it is ready.
        assert!(["rest", "ready"].contains(&functions(thread(&dump, "MainThread"))[0]), "{context}");
        let looks = &dump["interpreters"][0]["looks"];
        let held = looks["held_by"].as_array().unwrap().iter().map(|by| by["looks"].as_u64().unwrap());
        let others = looks["free"].as_u64().unwrap() + looks["unknown"].as_u64().unwrap();
        assert_eq!(held.sum::<u64>() + others, looks["total"].as_u64().unwrap(), "{context}");
    }
}

#[test]
fn thread_ids_are_those_that_the_program_itself_sees() {
    for interpreter in all_interpreters() {
        let fixture = Fixture::start(interpreter, "two_spinners.py", &[]);
        let dump = dump_json(&fixture.pid());
        for name in ["MainThread", "spinner-1", "spinner-2"] {
            let found = thread(&dump, name);
            // 3.7 does not know its threads' ids.
            if let Some(tid) = fixture.tid(name) {
                assert_eq!(found["tid"], tid, "{} {name}", interpreter.version);
            }
            assert!(found["tid"].is_i64() && found["namespace_tid"] == found["tid"], "{dump:#}");
        }
    }
}

#[test]
fn when_all_sleep_nobody_holds_the_gil_and_that_is_no_error() {
    for interpreter in interpreters() {
        let fixture = Fixture::start(interpreter, "sleepers.py", &[]);
        let dump = dump_json(&fixture.pid());
        let gil = &dump["interpreters"][0]["gil"];
        assert_eq!(gil["locked"], false, "{}: {dump:#}", interpreter.version);
        assert_eq!(gil["holder_tid"], Value::Null);

        let text = stdout(&run(["dump", "--gil", "-p", &fixture.pid()]));
        assert!(text.contains("Nobody holds the GIL"), "{text}");
        assert!(!text.contains("MainThread"), "only the holder was asked for: {text}");
    }
}

#[test]
fn the_holder_alone_is_shown_with_how_often_it_was_seen() {
    for interpreter in interpreters() {
        let fixture = Fixture::start(interpreter, "c_holds_gil.py", &[]);
        let text = stdout(&run(["dump", "--gil", "-p", &fixture.pid()]));
        assert!(text.contains("GIL held by hogger ("), "{}: {text}", interpreter.version);
        assert!(text.contains(" looks over "), "{text}");
        assert!(text.contains("hog "), "{text}");
        assert!(!text.contains("MainThread"), "only the holder was asked for: {text}");
    }
}

#[test]
fn every_frame_of_a_deep_recursion_is_there() {
    for interpreter in interpreters() {
        let fixture = Fixture::start(interpreter, "deep_recursion.py", &[]);
        let dump = dump_json(&fixture.pid());
        let main = functions(thread(&dump, "MainThread")).into_iter();
        let descends = main.filter(|function| *function == "descend").count();
        assert_eq!(descends, 900, "{}", interpreter.version);
    }
}

#[test]
fn stacks_are_those_that_the_interpreters_own_traceback_shows() {
    for interpreter in interpreters() {
        let fixture = Fixture::start(interpreter, "parked_stacks.py", &[]);
        let dump = dump_json(&fixture.pid());
        for (name, expected) in fixture.ready["stacks"].as_object().unwrap() {
            let qualified = fixture.ready["qualnames"][name].as_array().unwrap();
            let expected: Vec<Value> = (expected.as_array().unwrap().iter().zip(qualified))
                .map(|(frame, qualified)| {
                    let function = if qualified.is_null() { &frame[0] } else { qualified };
                    serde_json::json!({"function": function, "file": frame[1], "line": frame[2]})
                })
                .collect();
            let seen = &thread(&dump, name)["frames"];
            assert_eq!(seen, &Value::Array(expected), "{} {name}", interpreter.version);
        }
    }
}

#[test]
fn names_of_any_script_are_whole_in_json_and_harmless_in_a_terminal() {
    for interpreter in interpreters() {
        let fixture = Fixture::start(interpreter, "non_ascii_names.py", &[]);
        let dump = dump_json(&fixture.pid());
        for name in fixture.ready["threads"].as_object().unwrap().keys() {
            thread(&dump, name);
        }
        let text = stdout(&run(["dump", "-p", &fixture.pid()]));
        let is_harmful = |character: char| character.is_control() && character != '\n';
        assert!(!text.contains(is_harmful), "{}: {text:?}", interpreter.version);
        assert!(text.contains("потік-α"), "{text}");
    }
}

#[test]
fn a_free_threaded_build_says_that_there_is_no_gil() {
    for interpreter in all_interpreters().iter().filter(|interpreter| interpreter.free_threaded) {
        let fixture = Fixture::start(interpreter, "two_spinners.py", &[]);
        let dump = dump_json(&fixture.pid());
        assert_eq!(dump["target"]["free_threaded"], true);
        assert_eq!(dump["interpreters"][0]["gil"]["enabled"], false);
        assert_eq!(functions(thread(&dump, "spinner-1")).last(), Some(&"Thread._bootstrap"));
        let text = stdout(&run(["dump", "-p", &fixture.pid()]));
        assert!(text.contains("There is no GIL to hold"), "{text}");
    }
}
