//! What several processes come to together.

use serde::Serialize;

use super::{Analysed, GilAnalysis};

/// Sums over all processes of a recording.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Totals {
    /// How many processes there were.
    pub processes: usize,
    /// How many GILs they had.
    pub gils: usize,
    /// Until when the last of them was recorded, in seconds since the start.
    pub duration_s: f64,
    /// For how long GILs were held, all added up, in seconds.
    pub held_s: f64,
    /// For how long threads waited for one, in thread-seconds; `None` where only holders were looked at.
    pub waited_s: Option<f64>,
    /// CPU time of the threads that have Python, in seconds; `None` where only holders were looked at.
    pub cpu_s: Option<f64>,
    /// gilspy's own CPU time as a share of one CPU.
    pub overhead_cpu: f64,
}

impl Totals {
    /// Adds processes up.
    pub fn of(processes: &[Analysed<'_>]) -> Self {
        let recordings = || processes.iter().map(|process| process.recording);
        let duration_s = recordings().map(|it| it.duration.as_secs_f64()).fold(0.0, f64::max);
        let sees_all = recordings().all(|recording| recording.sees_all_threads);
        let own_cpu_s: f64 = recordings().map(|recording| recording.own_cpu.as_secs_f64()).sum();
        let cpu_s = || {
            let threads = recordings().flat_map(|recording| &recording.threads);
            threads.map(|thread| thread.times.cpu.as_secs_f64()).sum()
        };
        Totals {
            processes: processes.len(),
            gils: recordings().map(|recording| recording.gils.len()).sum(),
            duration_s,
            held_s: processes.iter().map(held_s).sum(),
            waited_s: sees_all.then(|| processes.iter().map(waited_s).sum()),
            cpu_s: sees_all.then(cpu_s),
            overhead_cpu: if duration_s > 0.0 { own_cpu_s / duration_s } else { 0.0 },
        }
    }
}

/// For how long a process's GILs were held, added up.
fn held_s(process: &Analysed<'_>) -> f64 {
    let of_gil = |gil: &GilAnalysis| gil.hold.values().sum::<f64>() * gil.seen_s;
    process.analysis.gils.iter().map(of_gil).sum()
}

/// For how long threads waited for a process's GILs, added up.
pub fn waited_s(process: &Analysed<'_>) -> f64 {
    let waiting = process.analysis.gils.iter().filter_map(|gil| gil.waiting.as_ref());
    waiting.map(|waiting| waiting.causes.total_s()).sum()
}
