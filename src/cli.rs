//! The command line, as text only: parsing it touches neither files nor processes.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValue;
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::analysis::By;
use crate::units::Pid;

/// Shows who holds the GIL of a running CPython process, who waits for it, and which code makes them wait
///
/// gilspy looks from outside: the process is neither restarted nor changed, nor paused unless asked for.
#[derive(Debug, Parser)]
#[command(name = "gilspy", version, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// Refuses what the definitions alone cannot.
    ///
    /// # Errors
    /// When options contradict each other.
    pub fn checked(self) -> Result<Self, clap::Error> {
        match &self.command {
            Command::Record(args) if args.gil && args.stacks.by() != By::Hold => {
                let by = args.stacks.by().name();
                let message =
                    format!("--gil looks only at who holds the GIL, which tells nothing for --by {by}");
                Err(Cli::command().error(ErrorKind::ArgumentConflict, message))
            }
            _ => Ok(self),
        }
    }
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Record who holds the GIL and who waits for it, and draw it: flame graph and timeline
    ///
    /// Records until the duration is over, the process ends, or Ctrl-C; the pictures are written in
    /// every case. SIGUSR1 writes those of what is recorded so far, and recording goes on.
    Record(RecordArgs),
    /// Show every thread's stack and what it does, and who holds the GIL
    ///
    /// Looks for 50 ms, many times, and says how often it saw whom.
    Dump(DumpArgs),
    /// Draw a recording, or a part of it, in any format
    Render(RenderArgs),
    /// Compare two recordings: what changed, and what of that is more than chance
    ///
    /// Prints a table, and draws a differential flame graph: as wide as AFTER, red where there is more than in BEFORE,
    /// blue where there is less. Each counts by the second, so that the recordings need not be of the same length.
    Diff(DiffArgs),
    /// Print what makes a shell complete gilspy's commands and options
    Completions(CompletionsArgs),
    /// Print gilspy's manual page, or write the pages of all commands
    Man(ManArgs),
}

/// What `record` takes.
#[derive(Debug, Args)]
#[command(
    override_usage = "gilspy record [OPTIONS] -p <PID>\n       gilspy record [OPTIONS] -- <COMMAND>...",
    after_help = "\
Examples:
  sudo gilspy record -p 4242 -d 10         ten seconds of a running process
  sudo gilspy record -p 4242 -o slow.svg   slow.svg, slow.timeline.svg, slow.gilspy
  sudo gilspy record -p 4242 -s            with all processes that it starts
  gilspy record -- python3 app.py          a program from its first bytecode on"
)]
pub struct RecordArgs {
    /// The process to record; may be given several times
    #[arg(short, long = "pid", value_name = "PID", value_parser = parse_pid, required_unless_present = "command")]
    pub pids: Vec<Pid>,

    /// Record the processes that it starts, too, and those that these start; what is not Python is passed over
    #[arg(short, long)]
    pub subprocesses: bool,

    /// How many seconds to record; without it, until Ctrl-C or the process's end
    #[arg(short, long, value_name = "SECONDS", value_parser = parse_seconds)]
    pub duration: Option<Duration>,

    /// How many times a second to look
    #[arg(short, long, value_name = "HZ", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub rate: u32,

    /// Look only at who holds the GIL: cheaper, but nothing is known of who waits
    #[arg(short, long)]
    pub gil: bool,

    /// How much of one CPU gilspy may use; beyond it, it looks less often and says so. From 100 on it waits
    /// busily at high rates, which keeps a CPU to itself
    #[arg(long, value_name = "PERCENT", default_value_t = 5.0, value_parser = parse_percent)]
    pub max_overhead: f64,

    /// Whether to pause it meanwhile.
    #[command(flatten)]
    pub pausing: Pausing,

    /// Where to write; without it, gilspy-PID-TIME.svg, .timeline.svg and .gilspy here
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// Write this one format only, exactly to FILE
    #[arg(short, long, value_name = "FORMAT", value_enum)]
    pub format: Option<Format>,

    /// What flame graphs and folded stacks show.
    #[command(flatten)]
    pub stacks: StackArgs,

    /// How files are written.
    #[command(flatten)]
    pub files: FileArgs,

    /// The program to start and record, with its arguments
    #[arg(last = true, value_name = "COMMAND", conflicts_with = "pids")]
    pub command: Vec<String>,
}

/// What flame graphs and folded stacks show.
#[derive(Debug, Args)]
#[command(next_help_heading = "Flame graphs and folded stacks")]
pub struct StackArgs {
    /// Whose time they show
    #[arg(long, value_name = "TIME", value_enum, default_value_t)]
    pub by: By,

    /// All time of all threads, as --by wall
    #[arg(short, long, conflicts_with = "by")]
    pub idle: bool,

    /// Each thread on its own; this is the default
    #[arg(short = 't', long = "threads", conflicts_with = "merge_threads")]
    pub each_thread: bool,

    /// All threads together
    #[arg(long)]
    pub merge_threads: bool,

    /// From the innermost call outward
    #[arg(long)]
    pub reverse: bool,

    /// All calls of a function together, whatever line they were at
    #[arg(short = 'F', long)]
    pub function: bool,

    /// Show no line numbers; the same as --function
    #[arg(long)]
    pub nolineno: bool,

    /// Show whole paths, rather than their last two parts
    #[arg(long)]
    pub full_filenames: bool,
}

impl StackArgs {
    /// What counts as time.
    pub fn by(&self) -> By {
        if self.idle { By::Wall } else { self.by }
    }
}

/// How files are written.
#[derive(Debug, Args)]
pub struct FileArgs {
    /// Put files in the place of what is not a plain file of yours: others' files, and symbolic links
    #[arg(long)]
    pub force: bool,

    /// Who may read and write the files, as chmod has it
    #[arg(long, value_name = "MODE", default_value = "600", value_parser = parse_mode)]
    pub mode: u32,
}

/// What `dump` takes.
#[derive(Debug, Args)]
pub struct DumpArgs {
    /// The process to look at
    #[arg(short, long, value_name = "PID", value_parser = parse_pid)]
    pub pid: Pid,

    /// Show only the thread that holds the GIL
    #[arg(short, long)]
    pub gil: bool,

    /// Write JSON
    #[arg(short, long)]
    pub json: bool,

    /// Whether to pause it meanwhile.
    #[command(flatten)]
    pub pausing: Pausing,
}

/// What `render` takes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gilspy render slow.gilspy                          slow.svg and slow.timeline.svg
  gilspy render slow.gilspy --from 12 --to 15        three seconds of it alone
  gilspy render slow.gilspy -f json -o - | jq .verdict
  gilspy render slow.gilspy -f flamegraph --by wait --thread worker-1")]
pub struct RenderArgs {
    /// The recording: what `record` wrote to NAME.gilspy
    #[arg(value_name = "RECORDING")]
    pub recording: PathBuf,

    /// Where to write, - for standard output; without it, beside RECORDING
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// Write this one format only
    #[arg(short, long, value_name = "FORMAT", value_enum)]
    pub format: Option<Format>,

    /// What flame graphs and folded stacks show.
    #[command(flatten)]
    pub stacks: StackArgs,

    /// How files are written.
    #[command(flatten)]
    pub files: FileArgs,

    /// Leave out what was before so many seconds since the start
    #[arg(long, value_name = "SECONDS", value_parser = parse_moment)]
    pub from: Option<Duration>,

    /// Leave out what was after so many seconds since the start
    #[arg(long, value_name = "SECONDS", value_parser = parse_moment)]
    pub to: Option<Duration>,

    /// Show this thread only, by its name or id; may be given several times
    #[arg(long = "thread", value_name = "NAME|TID")]
    pub threads: Vec<String>,
}

/// What `diff` takes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gilspy diff before.gilspy after.gilspy               the table, and after.diff.svg
  gilspy diff before.gilspy after.gilspy --by blame    what made others wait, then and now
  gilspy diff after.gilspy before.gilspy -o gone.svg   as wide as before: shows what is gone")]
pub struct DiffArgs {
    /// The first recording: what `record` wrote to NAME.gilspy
    #[arg(value_name = "BEFORE")]
    pub before: PathBuf,

    /// The second recording
    #[arg(value_name = "AFTER")]
    pub after: PathBuf,

    /// Where to draw, - for standard output; without it, AFTER.diff.svg beside AFTER
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// Whose time is compared
    #[arg(long, value_name = "TIME", value_enum, default_value_t)]
    pub by: By,

    /// How files are written.
    #[command(flatten)]
    pub files: FileArgs,
}

/// What `completions` takes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gilspy completions bash > ~/.local/share/bash-completion/completions/gilspy
  gilspy completions zsh > \"${fpath[1]}/_gilspy\"
  gilspy completions fish > ~/.config/fish/completions/gilspy.fish")]
pub struct CompletionsArgs {
    /// Which shell
    #[arg(value_name = "SHELL", value_enum)]
    pub shell: Shell,
}

/// What `man` takes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  gilspy man | man -l -
  sudo gilspy man /usr/local/share/man/man1")]
pub struct ManArgs {
    /// The directory to write the pages of all commands to
    #[arg(value_name = "DIR")]
    pub directory: Option<PathBuf>,
}

/// Whether the process is paused while it is looked at.
#[derive(Debug, Args)]
pub struct Pausing {
    /// Pause the process for each look: no stack moves meanwhile, but it runs slower
    #[arg(long, conflicts_with = "nonblocking")]
    pub blocking: bool,

    /// Never pause the process; this is the default
    #[arg(long)]
    pub nonblocking: bool,
}

/// What a recording can be written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Flame graph of the code that held the GIL, or of what --by says (SVG)
    Flamegraph,
    /// Who held the GIL when, a lane a thread (SVG)
    Timeline,
    /// For incident reviews: everything on one page (HTML)
    Html,
    /// Folded stacks, for other flame graph tools
    Raw,
    /// What every thread did and who held the GIL when, for Perfetto (Trace Event Format)
    Chrometrace,
    /// Charts of every thread and of who held the GIL, for speedscope
    Speedscope,
    /// Time under the GIL, waiting and blame of each stack, for pprof
    Pprof,
    /// What every thread did, with markers of holding the GIL and of waiting, for the Firefox Profiler
    Gecko,
    /// The figures, for programs
    Json,
    /// The recording itself, for `gilspy render`
    Recording,
}

impl Format {
    /// What the summary calls it.
    pub fn title(self) -> &'static str {
        match self {
            Format::Flamegraph => "flame graph",
            Format::Timeline => "timeline",
            Format::Html => "report",
            Format::Raw => "raw",
            Format::Chrometrace => "chrometrace",
            Format::Speedscope => "speedscope",
            Format::Pprof => "pprof",
            Format::Gecko => "gecko",
            Format::Json => "json",
            Format::Recording => "recording",
        }
    }

    /// The ending of its files' names.
    pub fn extension(self) -> &'static str {
        match self {
            Format::Flamegraph => "svg",
            Format::Timeline => "timeline.svg",
            Format::Html => "html",
            Format::Raw => "raw.txt",
            Format::Chrometrace => "trace.json",
            Format::Speedscope => "speedscope.json",
            Format::Pprof => "pb.gz",
            Format::Gecko => "firefox.json",
            Format::Json => "json",
            Format::Recording => "gilspy",
        }
    }
}

impl ValueEnum for By {
    fn value_variants<'a>() -> &'a [Self] {
        &By::ALL
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            By::Hold => PossibleValue::new("hold").help("held a GIL").alias("gil"),
            By::Wait => PossibleValue::new("wait").help("waited for one"),
            By::Blame => PossibleValue::new("blame").help("held one while others waited: what those waited"),
            By::Cpu => PossibleValue::new("cpu").help("ran, or was ready to"),
            By::Wall => PossibleValue::new("wall").help("whatever it did").alias("idle"),
        })
    }
}

fn parse_pid(text: &str) -> Result<Pid, String> {
    match text.parse::<i32>() {
        Ok(pid) if pid > 0 => Ok(Pid::new(pid)),
        _ => Err("a pid is a whole number from 1 up; `pgrep -a python` lists them".to_owned()),
    }
}

fn parse_percent(text: &str) -> Result<f64, String> {
    let percent = text.strip_suffix('%').unwrap_or(text).trim().parse::<f64>().ok();
    percent
        .filter(|percent| *percent > 0.0 && percent.is_finite())
        .ok_or_else(|| "percent of one CPU are a number above 0, such as 5 or 0.5".to_owned())
}

fn parse_mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok();
    mode.filter(|mode| mode & !0o666 == 0 && mode & 0o600 == 0o600).ok_or_else(|| {
        "a mode is 600, 640, 644, 660, 664 or 666: you read and write, others may, too".to_owned()
    })
}

fn parse_moment(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.ok_or_else(|| "seconds are a number from 0 up, such as 10 or 0.5".to_owned())
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| *seconds > 0.0);
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| "seconds are a number above 0, such as 10 or 0.5".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_follows_two_dashes_is_the_command_with_its_own_options() {
        let cli = Cli::try_parse_from(["gilspy", "record", "-r", "50", "--", "python3", "-p", "x"]).unwrap();
        let Command::Record(record) = cli.command else { panic!("not record") };
        assert_eq!((record.rate, record.pids), (50, Vec::new()));
        assert_eq!(record.command, ["python3", "-p", "x"]);
    }

    #[test]
    fn a_pid_or_a_command_but_not_both() {
        assert!(Cli::try_parse_from(["gilspy", "record"]).is_err());
        assert!(Cli::try_parse_from(["gilspy", "record", "-p", "1", "--", "x"]).is_err());
        assert!(Cli::try_parse_from(["gilspy", "record", "-p", "0"]).is_err());
        assert!(Cli::try_parse_from(["gilspy", "record", "-p", "1", "-d", "nan"]).is_err());
    }

    #[test]
    fn what_py_spy_users_type_for_flame_graphs_is_taken() {
        let parse = |options: &[&str]| {
            Cli::try_parse_from([&["gilspy", "record", "-p", "1"], options].concat()).and_then(Cli::checked)
        };
        for (options, by) in [
            (["-t", "-F", "--nolineno", "--full-filenames"].as_slice(), By::Hold),
            (&["-i"], By::Wall),
            (&["--by", "blame", "--merge-threads"], By::Blame),
            (&["-g", "--by", "hold"], By::Hold),
        ] {
            let Ok(Cli { command: Command::Record(record) }) = parse(options) else { panic!("{options:?}") };
            assert_eq!(record.stacks.by(), by);
        }
        for options in
            [&["-g", "-i"], ["-g", "--by=wait"].as_slice(), &["-t", "--merge-threads"], &["-i", "--by=cpu"]]
        {
            assert!(parse(options).is_err(), "{options:?}");
        }
    }

    #[test]
    fn a_mode_lets_oneself_read_and_write_and_nobody_execute() {
        let mode = |text| Cli::try_parse_from(["gilspy", "record", "-p", "1", "--mode", text]);
        let Ok(Cli { command: Command::Record(record) }) = mode("0644") else { panic!("0644") };
        assert_eq!((record.files.mode, record.files.force), (0o644, false));
        assert!(["4755", "755", "444", "rw", "-600"].into_iter().all(|text| mode(text).is_err()));
    }

    #[test]
    fn a_limit_is_a_number_of_percent() {
        let limit = |text| Cli::try_parse_from(["gilspy", "record", "-p", "1", "--max-overhead", text]);
        for (text, expected) in [("5", 5.0), ("0.5%", 0.5), ("100", 100.0)] {
            let Ok(Cli { command: Command::Record(record) }) = limit(text) else { panic!("{text}") };
            assert_eq!(record.max_overhead, expected);
        }
        assert!(["0", "-1", "inf", "much"].into_iter().all(|text| limit(text).is_err()));
    }
}
