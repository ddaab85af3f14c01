#![allow(clippy::unwrap_used)]

use super::*;
use crate::recording::{Recording, fake};
use crate::units::Tid;

fn svg(recording: &Recording) -> String {
    let mut svg = Vec::new();
    write(&[Analysed::of(recording).unwrap()], &mut svg).unwrap();
    let svg = String::from_utf8(svg).unwrap();
    roxmltree::Document::parse(&svg).unwrap();
    svg
}

/// The words of a picture, without their elements.
fn words(svg: &str) -> Vec<String> {
    let document = roxmltree::Document::parse(svg).unwrap();
    let texts = document.descendants().filter(|node| node.has_tag_name("text"));
    let whole = |text: roxmltree::Node<'_, '_>| {
        text.descendants().filter(|node| node.is_text()).filter_map(|node| node.text()).collect()
    };
    texts.map(whole).collect()
}

/// The words of the lane whose thread has that name.
fn lane(svg: &str, name: &str) -> Vec<String> {
    let document = roxmltree::Document::parse(svg).unwrap();
    let lanes = document.descendants().filter(|node| node.attribute("class") == Some("lane"));
    let words = |lane: roxmltree::Node<'_, '_>| -> Vec<String> {
        let texts = lane.descendants().filter(|node| node.has_tag_name("text"));
        texts.filter_map(|text| text.text().map(str::to_owned)).collect()
    };
    lanes.map(words).find(|words| words[0] == name).unwrap_or_else(|| panic!("no lane of {name}"))
}

/// The classes of the areas that a block draws, and how wide and high their first boxes are.
fn areas(svg: &str, block: &str, place: usize) -> Vec<(String, f64, f64)> {
    let document = roxmltree::Document::parse(svg).unwrap();
    let block =
        document.descendants().filter(|node| node.attribute("class") == Some(block)).nth(place).unwrap();
    let paths = block.descendants().filter(|node| node.has_tag_name("path"));
    let measure = |path: roxmltree::Node<'_, '_>| {
        let first = path.attribute("d").unwrap().split('z').next().unwrap().to_owned();
        let (width, rest) = first.split_once('h').unwrap().1.split_once("v-").unwrap();
        let height = rest.split_once('h').unwrap().0;
        (path.attribute("class").unwrap().to_owned(), width.parse().unwrap(), height.parse().unwrap())
    };
    paths.map(measure).collect()
}

#[test]
fn every_thread_has_a_lane_with_its_shares_and_who_made_others_wait_comes_first() {
    let svg = svg(&fake::of_threads(&["WWWWHHBB", "HHHHWWBN", "WWBBBBBB"]));
    assert_eq!(lane(&svg, "thread-1"), ["thread-1", "4243", "25.0 %", "50.0 %", "·", "25.0 %"]);
    assert_eq!(lane(&svg, "thread-2"), ["thread-2", "4244", "50.0 %", "25.0 %", "12.5 %", "12.5 %"]);
    let words = words(&svg);
    let place = |wanted: &str| words.iter().position(|word| word == wanted).unwrap();
    assert!(place("thread-2") < place("thread-1") && place("thread-1") < place("thread-3"), "{words:?}");
    for heading in ["hold", "wait", "native", "blocked", "GIL holder", "Threads waiting", "Long holds"] {
        assert!(words.iter().any(|word| word == heading), "{heading}: {words:?}");
    }
}

#[test]
fn a_column_shows_the_mix_of_what_it_saw() {
    // A quarter of each column's ticks is `hold`, another `wait`.
    let (first, second) = ("HWBB".repeat(7200), "BBBB".repeat(7200));
    let svg = svg(&fake::of_threads(&[&first, &second]));
    let lane = areas(&svg, "lane", 0);
    assert_eq!(lane, [("s0".to_owned(), 720.0, 4.5), ("s4".to_owned(), 720.0, 4.5)]);
    assert_eq!(areas(&svg, "strip", 0), [("t0".to_owned(), 720.0, 5.5)]);
}

#[test]
fn a_state_of_a_lane_is_one_path() {
    let recording = fake::recording(&"AB.".repeat(2000));
    for lane in 0..2 {
        assert_eq!(areas(&svg(&recording), "lane", lane).len(), 1);
    }
}

#[test]
fn long_holds_and_stalls_have_marks_of_their_own_and_rows_in_a_table() {
    let (hog, stall) = ("H".repeat(30) + &"W".repeat(40), "W".repeat(30) + &"S".repeat(40));
    let svg = svg(&fake::of_threads(&[&hog, &stall]));
    let document = roxmltree::Document::parse(&svg).unwrap();
    let marks = document.descendants().find(|node| node.attribute("class") == Some("marks")).unwrap();
    let paths = marks.descendants().filter(|node| node.has_tag_name("path"));
    assert_eq!(paths.map(|path| path.attribute("class").unwrap()).collect::<Vec<_>>(), ["long", "stalled"]);
    let words = words(&svg);
    for row in
        ["thread-1 in spin_one  main.py:16, 1 waited", "thread-2 in spin_two  main.py:22, blocked, 1 waited"]
    {
        assert!(words.iter().any(|word| word == row), "{row}: {words:?}");
    }
    for code in ["spin_one  main.py:16", "spin_two  main.py:22 (blocked in clock_nanosleep)"] {
        assert!(words.iter().any(|word| word == code), "{code}: {words:?}");
    }
}

#[test]
fn it_says_what_was_recorded_and_what_that_comes_to() {
    let recording = fake::recording(&"A".repeat(1000));
    let words = words(&svg(&recording)).join("\n");
    for part in [
        "python3 app.py · pid 4242 on web-7 · CPython 3.12.7",
        "UTC, 1.0 s at 1000 Hz · 1000 ticks, 0 missed, 0 torn",
        "Single-thread: the GIL is held 100 % of the time",
        "held 100.0 ± 0.3 %",
    ] {
        assert!(words.contains(part), "{part}: {words}");
    }
}

#[test]
fn nothing_to_see_is_a_picture_too() {
    for (ticks, expected) in [
        ("....", "Idle: hardly anything runs"),
        ("", "The recording ended before the first look."),
        ("--", "Free-threaded: there is no GIL"),
        ("??", "Nobody was seen to hold the GIL"),
        ("A", "Single-thread: the GIL is held 100 %"),
    ] {
        let words = words(&svg(&fake::recording(ticks)));
        assert!(words.iter().any(|word| word.starts_with(expected)), "{ticks}: {words:?}");
    }
}

#[test]
fn where_only_holders_were_looked_at_nothing_is_said_of_others() {
    let recording = fake::of_holders(&["HHHBBB?H", "BBBHBB?B"]);
    let svg = svg(&recording);
    assert_eq!(lane(&svg, "thread-1"), ["thread-1", "4243", "50.0 %"]);
    let words = words(&svg);
    assert!(words.iter().any(|word| word.contains("who waits is not known")), "{words:?}");
    assert!(!words.iter().any(|word| word == "Threads waiting"), "{words:?}");
    assert!(words.iter().any(|word| word == "Code that held the GIL"), "{words:?}");
}

#[test]
fn without_a_gil_it_shows_how_many_run_python_at_once() {
    let svg = svg(&fake::of_threads(&["PPPP", "PPBB"]));
    let words = words(&svg);
    assert!(words.iter().any(|word| word == "1.5 threads at once"), "{words:?}");
    assert!(!words.iter().any(|word| word == "GIL holder"), "{words:?}");
    assert_eq!(lane(&svg, "thread-2"), ["thread-2", "4244", "50.0 %", "·", "50.0 %"]);
}

#[test]
fn what_was_not_seen_is_not_shown_as_free() {
    let gap = format!("{}{}{}", "A".repeat(50), "_".repeat(100), "A".repeat(50));
    assert!(svg(&fake::recording(&gap)).contains("not seen: no tick"));
    assert!(!svg(&fake::recording(&"A".repeat(200))).contains("not seen: no tick"));
}

#[test]
fn hostile_names_stay_text_and_keep_to_their_column() {
    let long = "x".repeat(10_000);
    let recording =
        fake::with_names("AB.", ["</script><script>alert(1)</script>", "\"'&\x1b[31m\u{202e}\n]]>", &long]);
    let svg = svg(&recording);
    let document = roxmltree::Document::parse(&svg).unwrap();
    let scripts: Vec<_> = document.descendants().filter(|node| node.has_tag_name("script")).collect();
    assert_eq!(scripts.len(), 2, "the data and ours");
    let data: serde_json::Value = serde_json::from_str(scripts[0].text().unwrap()).unwrap();
    assert_eq!(data["lanes"][0]["name"], "</script><script>alert(1)</script>");
    assert_eq!(data["lanes"][1]["name"], "\"'&␛[31m⟨U+202E⟩␊]]>");
    assert!(words(&svg).iter().all(|word| word.chars().count() < 250));
    assert!(svg.len() < 100_000, "{}", svg.len());
}

#[test]
fn quiet_threads_and_those_that_are_too_many_share_a_lane_each() {
    let busy: Vec<&str> = ["HB"].into_iter().chain(["WB"; 60]).chain(["BB"; 140]).collect();
    let words = words(&svg(&fake::of_threads(&busy)));
    for (name, note) in [("140 quiet threads", "folded"), ("23 more threads", "folded")] {
        let place = words.iter().position(|word| word == name).unwrap_or_else(|| panic!("{name}: {words:?}"));
        assert_eq!(words[place + 1], note);
    }
}

#[test]
fn each_gil_has_a_section() {
    let mut recording = fake::recording("AB.");
    let mut second = recording.gils[0].clone();
    second.interpreters = vec![1, 2];
    recording.gils.push(second);
    let words = words(&svg(&recording));
    for heading in ["GIL of interpreter 0", "GIL of interpreter 1, 2"] {
        assert!(words.iter().any(|word| word == heading), "{words:?}");
    }
}

#[test]
fn several_processes_have_a_section_each_on_one_axis() {
    let (first, mut second) = (fake::recording("AAAA"), fake::recording("BB"));
    second.target.pid = crate::units::Pid::new(4300);
    second.threads[1].tid = Some(Tid::new(4301));
    let processes = [&first, &second].map(|recording| Analysed::of(recording).unwrap());
    let mut svg = Vec::new();
    write(&processes, &mut svg).unwrap();
    let svg = String::from_utf8(svg).unwrap();
    let words = words(&svg);
    for words_of in ["2 processes on web-7", "pid 4242", "pid 4300"] {
        assert!(words.iter().any(|word| word.contains(words_of)), "{words_of}: {words:?}");
    }
    // The second one was there for half of the time.
    assert_eq!(areas(&svg, "strip", 1)[0].1, 360.0);
}

#[test]
fn the_data_for_the_script_are_what_the_picture_shows() {
    let svg = svg(&fake::of_threads(&["HHHHWWWW", "WWWWHHHH"]));
    let document = roxmltree::Document::parse(&svg).unwrap();
    let script =
        document.descendants().find(|node| node.attribute("type") == Some("application/json")).unwrap();
    let data: serde_json::Value = serde_json::from_str(script.text().unwrap()).unwrap();
    let slots = data["slots"].as_u64().unwrap();
    let mix = |place: &serde_json::Value| data["mixes"][place.as_u64().unwrap() as usize].clone();
    let runs = data["lanes"][0]["runs"].as_array().unwrap();
    let lengths: Vec<u64> = runs.chunks(3).map(|run| run[0].as_u64().unwrap()).collect();
    assert_eq!(lengths, [slots / 2, slots / 2]);
    assert_eq!(mix(&runs[1])[0], 20, "held the GIL all the while");
    assert_eq!(mix(&runs[4])[4], 20, "waited all the while");
    let stack = &data["stacks"][runs[2].as_u64().unwrap() as usize];
    assert_eq!(data["frames"][stack[0].as_u64().unwrap() as usize], "spin_one\tapp/main.py:16");
}

#[test]
fn a_holder_that_is_not_shown_does_not_look_like_nobody() {
    let mut recording = fake::of_threads(&["HHHHBBBB", "BBBBHHHH"]);
    recording.show_only(|thread, _| thread.0 == 0);
    let svg = svg(&recording);
    let classes: Vec<String> = areas(&svg, "strip", 0).into_iter().map(|(class, ..)| class).collect();
    assert_eq!(classes, ["t0", "t9"]);
    assert!(!words(&svg).iter().any(|word| word == "thread-2"));
}
