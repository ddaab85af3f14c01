use proptest::prelude::*;

use super::*;
use crate::recording::fake;

fn analysis(ticks: &str) -> Analysis {
    Analysis::of(&fake::recording(ticks)).unwrap()
}

fn of_threads(rows: &[&str]) -> Analysis {
    Analysis::of(&fake::of_threads(rows)).unwrap()
}

fn waiting(analysis: &Analysis) -> &Waiting {
    analysis.gils[0].waiting.as_ref().unwrap()
}

fn rounded(seconds: f64) -> f64 {
    (seconds * 1e6).round() / 1e6
}

#[test]
fn shares_are_of_all_ticks_and_unknown_is_one_of_them() {
    let analysis = analysis("AAAB..?A");
    let gil = &analysis.gils[0];
    assert_eq!((gil.held.mean, gil.free, gil.unknown), (0.625, 0.25, 0.125));
    assert_eq!(gil.hold[&ThreadIndex(0)], 0.5);
    assert_eq!(gil.hold[&ThreadIndex(1)], 0.125);
    assert_eq!(gil.top_holders[0].held, 0.5);
}

#[test]
fn a_recording_without_ticks_has_shares_of_zero_and_no_rate() {
    let recording = fake::recording("");
    let analysis = Analysis::of(&recording).unwrap();
    assert_eq!((analysis.gils[0].held.mean, analysis.gils[0].handovers_per_s), (0.0, None));
    assert_eq!((analysis.headroom, analysis.verdict), (None, None));
    assert_eq!(overhead_cpu(&recording), 0.0);
}

#[test]
fn who_made_others_wait_most_comes_first_then_who_held_most() {
    let threads = |recording: &Recording| threads_of(recording, 0, &Analysis::of(recording).unwrap());
    let indices = |numbers: [u32; 3]| numbers.map(ThreadIndex);
    assert_eq!(threads(&fake::recording("BBBA")), indices([1, 0, 2]));
    assert_eq!(threads(&fake::of_threads(&["HHHBB", "BBBWW", "BBBHH"])), indices([2, 0, 1]));
}

#[test]
fn states_are_shares_of_a_threads_own_life() {
    let analysis = of_threads(&["HHHHSSWWNNBB??HH", "        BBBBNNNN"]);
    let states = analysis.threads[0].states.unwrap();
    assert_eq!((states.hold, states.stall, states.wait, states.native), (0.375, 0.125, 0.125, 0.125));
    assert_eq!((states.blocked, states.unknown, states.parallel), (0.125, 0.125, 0.0));
    let states = analysis.threads[1].states.unwrap();
    assert_eq!((states.blocked, states.native), (0.5, 0.5));
}

#[test]
fn where_it_is_mostly_unknown_what_threads_do_nothing_is_said_of_waiting() {
    let known = of_threads(&["HHHHHHHH", "BBBBBB??"]);
    assert_eq!(known.unknown, 0.125);
    assert!(known.gils[0].waiting.is_some() && known.verdict.is_some());
    let unknown = of_threads(&["HHHHHHHH", "BBBB????"]);
    assert_eq!(unknown.unknown, 0.25);
    assert!(unknown.gils[0].waiting.is_none());
    assert_eq!((unknown.verdict, unknown.headroom), (None, None));
}

#[test]
fn waiting_is_charged_to_whoever_holds_the_gil() {
    let analysis = of_threads(&["HHHHWWWW..", "WWWWHHHHHB", "WWBBBBBBBB"]);
    let pairs: Vec<(Option<u32>, u32, f64)> = (waiting(&analysis).pairs.iter())
        .map(|pair| (pair.holder.map(|holder| holder.0), pair.waiter.0, rounded(pair.seconds)))
        .collect();
    assert_eq!(pairs, [(Some(0), 1, 0.004), (Some(1), 0, 0.004), (Some(0), 2, 0.002)]);
    let inflicted: Vec<f64> = analysis.threads.iter().map(|thread| rounded(thread.inflicted_s)).collect();
    assert_eq!(inflicted, [0.006, 0.004, 0.0]);
    assert_eq!(waiting(&analysis).waiters.mean, 1.0);
    let blamed = |top: &TopHolder| rounded(top.blame.unwrap().inflicted.total_s());
    assert_eq!(analysis.gils[0].top_holders.iter().map(blamed).collect::<Vec<_>>(), [0.004, 0.006]);
}

#[test]
fn waiting_for_a_gil_that_nobody_holds_is_nobodys_fault() {
    let analysis = of_threads(&["HHBBHH", "WWWWWW"]);
    assert_eq!(rounded(waiting(&analysis).causes.between_s), 0.002);
    assert_eq!(waiting(&analysis).pairs[1].holder, None);
}

#[test]
fn a_hold_is_long_from_twice_the_switch_interval_on_while_somebody_waits() {
    let hogged = of_threads(&["HHHHHHHHHHHHHHHB", "WWWWWWWWWWWWWWWH"]);
    let [hold] = waiting(&hogged).long_holds.as_slice() else { panic!("{hogged:?}") };
    assert_eq!((rounded(hold.duration_s), hold.waiters_max, hold.stalled), (0.015, 1, 0.0));
    assert_eq!(rounded(waiting(&hogged).causes.hogged_s), 0.015);

    let nobody_waits = of_threads(&["HHHHHHHHHHHHHHHB", "BBBBBBBBBBBBBBBH"]);
    assert_eq!(waiting(&nobody_waits).long_holds, []);
    let waits_late = of_threads(&["HHHHHHHHHHHHHHHB", "BBBBBBBWWWWWWWWH"]);
    assert_eq!(waiting(&waits_late).long_holds, []);
    let short = of_threads(&["HHHHHWWWWWHHHHHWWWWW", "WWWWWHHHHHWWWWWHHHHH"]);
    assert_eq!(waiting(&short).long_holds, []);
    assert_eq!(rounded(waiting(&short).causes.shared_s), 0.02);
}

#[test]
fn a_tick_that_could_not_be_read_does_not_end_a_hold() {
    let analysis = of_threads(&["HHHHHH?HHHHHHHHB", "WWWWWWWWWWWWWWWH"]);
    let [hold] = waiting(&analysis).long_holds.as_slice() else { panic!("{analysis:?}") };
    assert_eq!(rounded(hold.duration_s), 0.015);
}

#[test]
fn lengths_of_holds_are_told_as_far_as_the_rate_goes() {
    let lengths = of_threads(&["HHHHWWWWHHHHWWWW", "WWWWHHHHWWWWHHHH"]).gils[0].hold_lengths.clone();
    let [p50, max] = [lengths.p50, lengths.max].map(|length| match length {
        Some(HoldLength::About(seconds)) => rounded(seconds),
        other => panic!("{other:?}"),
    });
    assert_eq!((lengths.count, p50, max), (4, 0.004, 0.004));

    let lengths = of_threads(&["HWHWHWHW", "WHWHWHWH"]).gils[0].hold_lengths.clone();
    assert_eq!((lengths.count, lengths.max), (8, Some(HoldLength::Below(0.002))));
}

#[test]
fn headroom_is_how_many_would_run_at_once_on_so_many_cpus() {
    let headroom = |rows: &[&str]| rounded(of_threads(rows).headroom.unwrap());
    assert_eq!(headroom(&["HHHH", "BBBB"]), 1.0);
    assert_eq!(headroom(&["HHWW", "WWHH"]), 2.0);
    assert_eq!(headroom(&["HHBB", "WWBB"]), rounded(4.0 / 3.0));
    let rows: Vec<&str> = std::iter::once("HHHH").chain(["WWWW"; 15]).collect();
    assert_eq!(headroom(&rows), 8.0);
}

/// The verdict on rows that are repeated until there are enough ticks.
fn verdict(rows: &[&str]) -> Verdict {
    let rows: Vec<String> = rows.iter().map(|row| row.repeat(50)).collect();
    let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
    of_threads(&rows).verdict.unwrap()
}

#[test]
fn every_kind_of_process_has_its_verdict() {
    let long = "H".repeat(30);
    let cases: [(&[&str], Kind); 8] = [
        (&["HHHHHWWWWW", "WWWWWHHHHH"], Kind::GilBound),
        (&[&(long.clone() + "WW"), &("W".repeat(30) + "HH")], Kind::GilHogged),
        (&["SSSSSSSSSW", "WWWWWWWWWH"], Kind::GilStalled),
        (&["NNNNNNNNNN", "NNNNNNNNNH"], Kind::NativeBound),
        (&["BBBBBBBBHH", "BBBBBBBBBB"], Kind::IoBound),
        (&["HHHHHHHHHH", "BBBBBBBBBB"], Kind::SingleThread),
        (&["BBBBBBBBBB", "BBBBBBBBBB"], Kind::Idle),
        (&["PPPPPPPPPP", "PPPPPBBBBB"], Kind::FreeThreaded),
    ];
    for (rows, kind) in cases {
        let verdict = verdict(rows);
        assert_eq!((verdict.kind, &verdict.second), (kind, &None), "{rows:?}");
        let words = format!("{} {}", verdict.summary, verdict.advice.join(" "));
        assert!(words.contains(" at main.py:"), "no line is named: {words}");
    }
}

#[test]
fn a_mixed_process_gets_the_two_causes_that_matter() {
    let rows = ["HHHHHHHHHHHHHHHHHHHHHHHHHWWWWWWWWWW", "WWWWWWWWWWWWWWWWWWWWWWWWWSSSSSSSSSS"];
    let verdict = verdict(&rows);
    assert_eq!((verdict.kind, verdict.second.unwrap().kind), (Kind::GilHogged, Kind::GilStalled));
}

#[test]
fn time_without_a_cpu_is_that_of_the_ticks_before() {
    let analysis = of_threads(&["HHHHHQHHHH", "WWWWWWWWWW"]);
    assert_eq!(rounded(waiting(&analysis).starved_s), 0.003);
    assert_eq!(rounded(waiting(&analysis).causes.starved_s), 0.003);
    let at_once = of_threads(&["HQ", "WW"]);
    assert_eq!(rounded(waiting(&at_once).starved_s), 0.001, "it began before the recording");
}

/// Ticks of three threads: at each of them at most one has the GIL, the others do something else.
fn ticks() -> impl Strategy<Value = Vec<String>> {
    let tick = prop_oneof![
        8 => (0_usize..3, prop::sample::select(vec!['H', 'H', 'H', 'S', 'Q']), "[WNB]{3}"),
        2 => (Just(3_usize), Just('?'), "[WNB?]{3}"),
        1 => (Just(3_usize), Just('_'), "_{3}"),
    ];
    let runs = prop::collection::vec((tick, 1_usize..25), 1..25);
    runs.prop_map(|runs| {
        let letter = |thread: usize, (holder, state, others): &(usize, char, String)| match thread == *holder
        {
            true => *state,
            false => others.chars().nth(thread).unwrap(),
        };
        let row = |thread| {
            let run = |(tick, length): &(_, usize)| std::iter::repeat_n(letter(thread, tick), *length);
            runs.iter().flat_map(run).collect()
        };
        (0..3).map(row).collect()
    })
}

proptest! {
    #[test]
    fn stretches_may_begin_and_end_anywhere(rows in ticks(), ends in prop::collection::vec(1_usize..400, 0..12)) {
        let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
        let whole = fake::in_stretches(&rows, &[]);
        let cut = fake::in_stretches(&rows, &ends);
        prop_assert_eq!(Analysis::of(&cut).unwrap(), Analysis::of(&whole).unwrap());
        for by in [By::Hold, By::Wait, By::Blame, By::Cpu, By::Wall] {
            prop_assert_eq!(stack_times(&cut, by).unwrap(), stack_times(&whole, by).unwrap());
        }
        let mixes = |recording: &Recording| -> Vec<f32> {
            let lanes: Vec<Vec<ThreadIndex>> = (0..3).map(|thread| vec![ThreadIndex(thread)]).collect();
            let slots = Slots::of(recording, &lanes, recording.duration, 7).unwrap();
            slots.lanes.iter().flat_map(|lane| lane.mixes.concat()).collect()
        };
        for (cut, whole) in mixes(&cut).into_iter().zip(mixes(&whole)) {
            prop_assert!((cut - whole).abs() < 1e-4);
        }
        let facts = |recording: &Recording| {
            (recording.ticks, recording.weight, recording.torn_ticks, recording.gils.clone(), recording.threads.clone())
        };
        prop_assert_eq!(facts(&cut), facts(&whole));
    }
}
