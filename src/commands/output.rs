//! The files that a recording is written to: opened before recording, so that a path that cannot be
//! written is found out at once, and put in place under their names when they are whole. The recording itself has its
//! name from the start.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};

use super::files::{Directory, Rules, Sink};
use super::print_error;
use super::privileges::{Needs, Privileges};
use crate::analysis::Analysed;
use crate::cli::{FileArgs, Format, StackArgs};
use crate::render::flamegraph::Place;
use crate::render::{self, StackOptions};
use crate::text::{shell_word, shown};
use crate::units::Pid;

/// The files of one recording.
pub(super) struct Outputs {
    rules: Rules,
    stacks: StackOptions,
    pictures: Vec<Output>,
    recording: Option<Output>,
}

/// One file to be.
pub(super) struct Output {
    format: Format,
    name: Name,
    sink: Sink,
}

/// What a file will be called.
#[derive(Debug, Clone)]
enum Name {
    Given(PathBuf),
    /// `gilspy-PID-TIME` with the format's ending, in the working directory.
    Made,
    /// Standard output.
    Dash,
}

/// The pictures of what is recorded so far, written on request.
#[derive(Debug, Clone)]
pub(super) struct SnapshotNames {
    rules: Rules,
    stacks: StackOptions,
    base: String,
    /// Each with the directory that it is to be in; none where the picture goes elsewhere.
    names: Vec<(Format, Name, Option<Arc<Directory>>)>,
}

/// Where a recording is written while it is made.
pub(super) struct RecordingFile {
    /// The file.
    pub file: File,
    /// Its name; none where it is not kept.
    pub path: Option<PathBuf>,
}

impl Outputs {
    /// Opens what `record` is asked for: the pictures and the recording, or one format.
    pub(super) fn open(
        output: Option<&Path>,
        format: Option<Format>,
        stacks: &StackArgs,
        files: &FileArgs,
    ) -> Result<Self> {
        let rules = Rules::new(files);
        let (pictures, recording) = match (output, format) {
            (Some(path), None) => {
                (pictures_of(path), Some(Name::Given(beside(path, Format::Recording.extension()))))
            }
            (None, None) => {
                (vec![(Format::Flamegraph, Name::Made), (Format::Timeline, Name::Made)], Some(Name::Made))
            }
            (output, Some(format)) => (vec![(format, output.map_or(Name::Made, Name::given))], None),
        };
        let mut pictures = open_all(pictures, &rules)?;
        let recording = match recording {
            Some(name) => Some(Output::open(Format::Recording, name, &rules)?),
            // Into anything else than a file it is copied at the end.
            None => pictures.pop_if(|only| only.format == Format::Recording && only.directory().is_some()),
        };
        Ok(Outputs { rules, stacks: options(stacks), pictures, recording })
    }

    /// Opens what `render` is asked for of the recording at some path.
    pub(super) fn of_recording(
        recording: &Path,
        output: Option<&Path>,
        format: Option<Format>,
        stacks: &StackArgs,
        files: &FileArgs,
    ) -> Result<Self> {
        let rules = Rules::new(files);
        let names = match (output, format) {
            (Some(path), Some(format)) => vec![(format, Name::given(path))],
            (None, Some(format)) => vec![(format, Name::Given(beside(recording, format.extension())))],
            (output, None) => {
                pictures_of(output.unwrap_or(&beside(recording, Format::Flamegraph.extension())))
            }
        };
        Ok(Outputs { rules, stacks: options(stacks), pictures: open_all(names, &rules)?, recording: None })
    }

    /// Opens the file of one picture.
    pub(super) fn picture(path: &Path, rules: &Rules) -> Result<Output> {
        Output::open(Format::Flamegraph, Name::given(path), rules)
    }

    /// Gives the recording its name, if it is kept.
    pub(super) fn start(&mut self, pid: Pid, start: jiff::Timestamp) -> Result<RecordingFile> {
        let Some(output) = self.recording.take() else {
            let file = tempfile::tempfile().context("cannot make a temporary file for the recording")?;
            return Ok(RecordingFile { file, path: None });
        };
        let path = output.name.path(output.format, &base_name(pid, start), None);
        let failed = || cannot_write(&path);
        let file = match output.sink {
            Sink::Beside(_, draft) => draft.put(file_name(&path), &self.rules).with_context(failed)?,
            Sink::Direct(_) => return Err(anyhow!("it is not a file")).with_context(failed),
        };
        Ok(RecordingFile { file, path: Some(path) })
    }

    /// What recording still takes once everything is open.
    pub(super) fn privileges(&self, subprocesses: bool, signals: bool) -> Privileges {
        let all = self.pictures.iter().chain(&self.recording);
        let directories: Vec<Arc<Directory>> = all.filter_map(Output::directory).collect();
        let needs = Needs { directories: &directories, rules: &self.rules, subprocesses, signals };
        Privileges::to_record(&needs)
    }

    /// What pictures of what is recorded so far are called.
    pub(super) fn snapshots(&self, pid: Pid, start: jiff::Timestamp) -> SnapshotNames {
        let names =
            self.pictures.iter().map(|output| (output.format, output.name.clone(), output.directory()));
        SnapshotNames {
            rules: self.rules,
            stacks: self.stacks,
            base: base_name(pid, start),
            names: names.collect(),
        }
    }

    /// Writes everything, as far as that can be done, and says what was written where. Where something could not be, the
    /// error says how to have it from the recording, which is `kept` or is put where temporary files go.
    pub(super) fn write_or_keep(self, processes: &[Analysed<'_>], kept: Option<&Path>) -> Result<()> {
        let rules = Rules { mode: Rules::OWN, force: false, ..self.rules };
        let Err(error) = self.write(processes) else { return Ok(()) };
        let kept = kept.map_or_else(|| keep(processes, &rules), |path| Ok(path.to_owned()));
        Err(match kept {
            Ok(path) => anyhow!(
                "{error:#}\nthe recording is {}: \
                 `gilspy render {} -o FILE` draws it where there is room, and may write",
                shown(&path),
                shell_word(&path)
            ),
            Err(reason) => anyhow!("{error:#}\nthe recording is lost: {reason:#}"),
        })
    }

    /// Writes everything, as far as that can be done, and says what was written where.
    pub(super) fn write(self, processes: &[Analysed<'_>]) -> Result<()> {
        let first = processes.first().map(|first| (first.recording.target.pid, first.recording.start));
        let (pid, start) = first.unwrap_or((Pid::new(0), jiff::Timestamp::now()));
        let base = base_name(pid, start);
        let write = |output: Output| {
            let path = output.name.path(output.format, &base, None);
            output.write(processes, self.stacks, path, &self.rules)
        };
        announce("", self.pictures.into_iter().map(write))
    }
}

impl SnapshotNames {
    /// Writes them, with a number in their names, and says where.
    pub(super) fn write(&self, number: u32, processes: &[Analysed<'_>]) -> Result<()> {
        let write = |(format, name, directory): &(Format, Name, Option<Arc<Directory>>)| {
            let path = name.path(*format, &self.base, Some(number));
            let sink = Sink::in_directory(directory.as_ref()?, file_name(&path), &self.rules);
            Some(sink.with_context(|| cannot_write(&path)).and_then(|sink| {
                let output = Output { format: *format, name: Name::Given(path.clone()), sink };
                output.write(processes, self.stacks, path, &self.rules)
            }))
        };
        let mut files = self.names.iter().filter_map(write).peekable();
        if files.peek().is_none() {
            return Err(anyhow!("what is written at the end is no file that another could stand beside"));
        }
        announce(&format!("gilspy: snapshot {number}: "), files)
    }
}

/// Puts a recording that was not to be kept where temporary files go.
fn keep(processes: &[Analysed<'_>], rules: &Rules) -> Result<PathBuf> {
    let recording = processes.first().context("it is of no process")?.recording;
    let name =
        format!("{}.{}", base_name(recording.target.pid, recording.start), Format::Recording.extension());
    let path = std::env::temp_dir().join(name);
    let output = Output::open(Format::Recording, Name::Given(path.clone()), rules)?;
    output.put(&path, rules, |writer| Ok(recording.source().copy(writer)?))?;
    Ok(path)
}

/// Says what was written where. The first thing that was not is the error; others are said too.
fn announce(before: &str, written: impl Iterator<Item = Result<(Format, PathBuf)>>) -> Result<()> {
    let mut all = Ok(());
    for written in written {
        match (written, &all) {
            (Ok((format, path)), _) => eprintln!("{before}{:<12} {}", format.title(), shown(path)),
            (Err(error), Ok(())) => all = Err(error),
            (Err(error), Err(_)) => print_error(&error),
        }
    }
    all
}

/// The pictures that are written where no format is asked for.
fn pictures_of(path: &Path) -> Vec<(Format, Name)> {
    let flame_graph = match path.extension() {
        Some(extension) if extension == Format::Recording.extension() => {
            beside(path, Format::Flamegraph.extension())
        }
        _ => path.to_owned(),
    };
    vec![
        (Format::Flamegraph, Name::Given(flame_graph)),
        (Format::Timeline, Name::Given(beside(path, Format::Timeline.extension()))),
    ]
}

fn open_all(names: Vec<(Format, Name)>, rules: &Rules) -> Result<Vec<Output>> {
    names.into_iter().map(|(format, name)| Output::open(format, name, rules)).collect()
}

/// The name of a file in its directory.
fn file_name(path: &Path) -> &OsStr {
    path.file_name().unwrap_or_default()
}

fn cannot_write(path: &Path) -> String {
    format!("cannot write {}", shown(path))
}

impl Name {
    fn given(path: &Path) -> Self {
        if path == "-" { Name::Dash } else { Name::Given(path.to_owned()) }
    }

    /// The path; `base` where there is no other name, and with a number if it has one.
    fn path(&self, format: Format, base: &str, number: Option<u32>) -> PathBuf {
        let path = match self {
            Name::Given(path) => path.clone(),
            Name::Made => PathBuf::from(format!("{base}.{}", format.extension())),
            Name::Dash => return PathBuf::from("standard output"),
        };
        number.map_or(path.clone(), |number| numbered(&path, format, number))
    }
}

impl Output {
    fn open(format: Format, name: Name, rules: &Rules) -> Result<Self> {
        let sink = match &name {
            Name::Dash => Sink::standard_output()?,
            Name::Given(path) => Sink::open(path, rules).with_context(|| cannot_write(path))?,
            Name::Made => Sink::in_working_directory(rules)
                .context("cannot write into the working directory (name another place with -o FILE)")?,
        };
        Ok(Output { format, name, sink })
    }

    /// The directory that it will be in; `None` where it is no file.
    fn directory(&self) -> Option<Arc<Directory>> {
        match &self.sink {
            Sink::Beside(directory, _) => Some(Arc::clone(directory)),
            Sink::Direct(_) => None,
        }
    }

    /// Whether it is standard output.
    pub(super) fn is_standard_output(&self) -> bool {
        matches!(self.name, Name::Dash)
    }

    /// Writes what the name of the file was given for, and answers it.
    pub(super) fn write_with(
        self,
        rules: &Rules,
        write: impl FnOnce(&mut BufWriter<&mut File>) -> Result<()>,
    ) -> Result<PathBuf> {
        let path = self.name.path(self.format, "", None);
        self.put(&path, rules, write)?;
        Ok(path)
    }

    fn write(
        self,
        processes: &[Analysed<'_>],
        stacks: StackOptions,
        path: PathBuf,
        rules: &Rules,
    ) -> Result<(Format, PathBuf)> {
        let format = self.format;
        self.put(&path, rules, |writer| write_format(format, processes, stacks, writer))?;
        Ok((format, path))
    }

    /// Writes it, and puts it in its place.
    fn put(
        mut self,
        path: &Path,
        rules: &Rules,
        write: impl FnOnce(&mut BufWriter<&mut File>) -> Result<()>,
    ) -> Result<()> {
        let failed = || cannot_write(path);
        let mut writer = BufWriter::new(self.sink.file());
        write(&mut writer).with_context(failed)?;
        writer.flush().with_context(failed)?;
        drop(writer);
        if let Sink::Beside(_, draft) = self.sink {
            draft.put(file_name(path), rules).with_context(failed)?;
        }
        Ok(())
    }
}

/// What the command line asks for, for those who draw.
fn options(stacks: &StackArgs) -> StackOptions {
    StackOptions {
        by: stacks.by(),
        merge_threads: stacks.merge_threads,
        merge_lines: stacks.function || stacks.nolineno,
        full_filenames: stacks.full_filenames,
        reversed: stacks.reverse,
    }
}

fn write_format(
    format: Format,
    processes: &[Analysed<'_>],
    stacks: StackOptions,
    writer: &mut impl Write,
) -> Result<()> {
    match format {
        Format::Flamegraph => render::flamegraph::write(processes, stacks, Place::Window, writer),
        Format::Timeline => render::timeline::write(processes, writer),
        Format::Html => render::html::write(processes, stacks, writer),
        Format::Raw => render::folded::write(processes, stacks, writer),
        Format::Chrometrace => render::chrometrace::write(processes, writer),
        Format::Speedscope => render::speedscope::write(processes, writer),
        Format::Pprof => render::pprof::write(processes, writer),
        Format::Gecko => render::gecko::write(processes, writer),
        Format::Json => render::report::write(processes, writer),
        Format::Recording => match processes.first() {
            Some(process) => Ok(process.recording.source().copy(writer)?),
            None => Ok(()),
        },
    }
}

/// `NAME.ending` for `NAME.svg`, `NAME.gilspy` or `NAME`.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let stem = match path.extension() {
        Some(extension) if extension == "svg" || extension == Format::Recording.extension() => {
            path.with_extension("")
        }
        _ => path.to_owned(),
    };
    let mut name = stem.into_os_string();
    name.push(".");
    name.push(ending);
    PathBuf::from(name)
}

/// `NAME.1.svg` for `NAME.svg`, `NAME.1` for `NAME`.
fn numbered(path: &Path, format: Format, number: u32) -> PathBuf {
    let name = path.file_name().unwrap_or_default().as_bytes();
    let ending = format!(".{}", format.extension()).into_bytes();
    let ending = match path.extension() {
        _ if name.ends_with(&ending) => ending,
        Some(extension) => [b".", extension.as_bytes()].concat(),
        None => Vec::new(),
    };
    let stem = name.strip_suffix(ending.as_slice()).unwrap_or(name);
    let name = [stem, format!(".{number}").as_bytes(), &ending].concat();
    path.with_file_name(OsStr::from_bytes(&name))
}

fn base_name(pid: Pid, start: jiff::Timestamp) -> String {
    format!("gilspy-{pid}-{}", start.strftime("%Y%m%dT%H%M%SZ"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeline_and_recording_stand_beside_the_flame_graph() {
        for (path, stem) in [("/tmp/slow.svg", "/tmp/slow"), ("slow", "slow"), ("slow.gilspy", "slow")] {
            let beside = |ending| beside(Path::new(path), ending);
            assert_eq!(beside("timeline.svg"), Path::new(&format!("{stem}.timeline.svg")));
            assert_eq!(beside("gilspy"), Path::new(&format!("{stem}.gilspy")));
        }
    }

    #[test]
    fn snapshots_have_a_number_before_the_ending() {
        let numbered = |path, format| numbered(Path::new(path), format, 2);
        assert_eq!(numbered("a/x.svg", Format::Flamegraph), Path::new("a/x.2.svg"));
        assert_eq!(numbered("x.timeline.svg", Format::Timeline), Path::new("x.2.timeline.svg"));
        assert_eq!(numbered("x.folded", Format::Raw), Path::new("x.2.folded"));
        assert_eq!(numbered("x", Format::Raw), Path::new("x.2"));
        let no_text = |name| Path::new(OsStr::from_bytes(name)).to_owned();
        assert_eq!(super::numbered(&no_text(b"\xff.svg"), Format::Flamegraph, 2), no_text(b"\xff.2.svg"));
    }

    #[test]
    fn names_say_which_process_and_when() {
        let start: jiff::Timestamp = "2026-11-20T14:02:11.5Z".parse().unwrap();
        assert_eq!(base_name(Pid::new(4242), start), "gilspy-4242-20261120T140211Z");
    }
}
