//! The files that a recording is written to: opened before recording, so that a path that cannot be
//! written is found out at once, and put in place under their names when they are whole. The recording itself has its
//! name from the start.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use tempfile::NamedTempFile;

use super::print_error;
use crate::analysis::Analysed;
use crate::cli::{Format, StackArgs};
use crate::render::flamegraph::Place;
use crate::render::{self, StackOptions};
use crate::units::Pid;

/// The files of one recording.
pub(super) struct Outputs {
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

/// Where the bytes go.
enum Sink {
    /// A file beside its later place.
    Beside(NamedTempFile),
    /// Something that is there already and is no file: a pipe, a terminal, /dev/null.
    Direct(File),
}

/// The pictures of what is recorded so far, written on request.
#[derive(Debug, Clone)]
pub(super) struct SnapshotNames {
    stacks: StackOptions,
    base: String,
    names: Vec<(Format, Name)>,
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
    pub(super) fn open(output: Option<&Path>, format: Option<Format>, stacks: &StackArgs) -> Result<Self> {
        let (pictures, recording) = match (output, format) {
            (Some(path), None) => {
                (pictures_of(path), Some(Name::Given(beside(path, Format::Recording.extension()))))
            }
            (None, None) => {
                (vec![(Format::Flamegraph, Name::Made), (Format::Timeline, Name::Made)], Some(Name::Made))
            }
            (output, Some(format)) => {
                let name = output.map_or(Name::Made, Name::given);
                match format == Format::Recording && name.is_file() {
                    true => (Vec::new(), Some(name)),
                    false => (vec![(format, name)], None),
                }
            }
        };
        let pictures = open_all(pictures)?;
        let recording = recording.map(|name| Output::open((Format::Recording, name))).transpose()?;
        Ok(Outputs { stacks: options(stacks), pictures, recording })
    }

    /// Opens what `render` is asked for of the recording at some path.
    pub(super) fn of_recording(
        recording: &Path,
        output: Option<&Path>,
        format: Option<Format>,
        stacks: &StackArgs,
    ) -> Result<Self> {
        let names = match (output, format) {
            (Some(path), Some(format)) => vec![(format, Name::given(path))],
            (None, Some(format)) => vec![(format, Name::Given(beside(recording, format.extension())))],
            (output, None) => {
                pictures_of(output.unwrap_or(&beside(recording, Format::Flamegraph.extension())))
            }
        };
        Ok(Outputs { stacks: options(stacks), pictures: open_all(names)?, recording: None })
    }

    /// Opens the file of one picture.
    pub(super) fn picture(path: &Path) -> Result<Output> {
        Output::open((Format::Flamegraph, Name::given(path)))
    }

    /// Gives the recording its name, if it is kept.
    pub(super) fn start(&mut self, pid: Pid, start: jiff::Timestamp) -> Result<RecordingFile> {
        let Some(output) = self.recording.take() else {
            let file = tempfile::tempfile().context("cannot make a temporary file for the recording")?;
            return Ok(RecordingFile { file, path: None });
        };
        let path = output.name.path(output.format, &base_name(pid, start), None);
        let failed = || format!("cannot write {}", path.display());
        let file = match output.sink {
            Sink::Beside(file) => file.persist(&path).map_err(|error| error.error).with_context(failed)?,
            Sink::Direct(_) => return Err(anyhow!("it is not a file")).with_context(failed),
        };
        Ok(RecordingFile { file, path: Some(path) })
    }

    /// What pictures of what is recorded so far are called.
    pub(super) fn snapshots(&self, pid: Pid, start: jiff::Timestamp) -> SnapshotNames {
        let names = self.pictures.iter().map(|output| (output.format, output.name.clone()));
        SnapshotNames { stacks: self.stacks, base: base_name(pid, start), names: names.collect() }
    }

    /// Writes everything, as far as that can be done, and says what was written where.
    pub(super) fn write(self, processes: &[Analysed<'_>]) -> Result<()> {
        let first = processes.first().map(|first| (first.recording.target.pid, first.recording.start));
        let (pid, start) = first.unwrap_or((Pid::new(0), jiff::Timestamp::now()));
        let base = base_name(pid, start);
        let write = |output: Output| {
            let path = output.name.path(output.format, &base, None);
            output.write(processes, self.stacks, path)
        };
        announce("", self.pictures.into_iter().map(write))
    }
}

impl SnapshotNames {
    /// Writes them, with a number in their names, and says where.
    pub(super) fn write(&self, number: u32, processes: &[Analysed<'_>]) -> Result<()> {
        let files: Vec<_> = self.names.iter().filter(|(_, name)| name.is_file()).collect();
        if files.is_empty() {
            return Err(anyhow!("what is written at the end is no file that another could stand beside"));
        }
        let write = |(format, name): &(Format, Name)| {
            let path = name.path(*format, &self.base, Some(number));
            let output = Output::open((*format, Name::Given(path.clone())))?;
            output.write(processes, self.stacks, path)
        };
        announce(&format!("gilspy: snapshot {number}: "), files.into_iter().map(write))
    }
}

/// Says what was written where. The first thing that was not is the error; others are said too.
fn announce(before: &str, written: impl Iterator<Item = Result<(Format, PathBuf)>>) -> Result<()> {
    let mut all = Ok(());
    for written in written {
        match (written, &all) {
            (Ok((format, path)), _) => eprintln!("{before}{:<12} {}", format.title(), path.display()),
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

fn open_all(names: Vec<(Format, Name)>) -> Result<Vec<Output>> {
    names.into_iter().map(Output::open).collect()
}

impl Name {
    fn given(path: &Path) -> Self {
        if path == "-" { Name::Dash } else { Name::Given(path.to_owned()) }
    }

    /// Whether it is the name of a file, or may become one.
    fn is_file(&self) -> bool {
        match self {
            Name::Given(path) => path.is_file() || !path.exists(),
            Name::Made => true,
            Name::Dash => false,
        }
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
    fn open((format, name): (Format, Name)) -> Result<Self> {
        Ok(Output { sink: Sink::open(&name)?, format, name })
    }

    /// Whether it is standard output.
    pub(super) fn is_standard_output(&self) -> bool {
        matches!(self.name, Name::Dash)
    }

    /// Writes what the name of the file was given for, and answers it.
    pub(super) fn write_with(
        self,
        write: impl FnOnce(&mut BufWriter<&mut File>) -> Result<()>,
    ) -> Result<PathBuf> {
        let path = self.name.path(self.format, "", None);
        self.put(&path, write)?;
        Ok(path)
    }

    fn write(
        self,
        processes: &[Analysed<'_>],
        stacks: StackOptions,
        path: PathBuf,
    ) -> Result<(Format, PathBuf)> {
        let format = self.format;
        self.put(&path, |writer| write_format(format, processes, stacks, writer))?;
        Ok((format, path))
    }

    /// Writes it, and puts it in its place.
    fn put(mut self, path: &Path, write: impl FnOnce(&mut BufWriter<&mut File>) -> Result<()>) -> Result<()> {
        let failed = || format!("cannot write {}", path.display());
        let mut writer = BufWriter::new(self.sink.file());
        write(&mut writer).with_context(failed)?;
        writer.flush().with_context(failed)?;
        drop(writer);
        if let Sink::Beside(file) = self.sink {
            file.persist(path).map_err(|error| error.error).with_context(failed)?;
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

impl Sink {
    fn open(name: &Name) -> Result<Self> {
        let directory = match name {
            Name::Dash => {
                let stdout = std::io::stdout().as_fd().try_clone_to_owned();
                return Ok(Sink::Direct(stdout.context("cannot write to standard output")?.into()));
            }
            Name::Given(path) => {
                if path.is_dir() {
                    return Err(anyhow!(
                        "cannot write {}: it is a directory; name a file in it",
                        path.display()
                    ));
                }
                if path.exists() && !path.is_file() {
                    let file = OpenOptions::new().write(true).open(path);
                    return Ok(Sink::Direct(
                        file.with_context(|| format!("cannot write {}", path.display()))?,
                    ));
                }
                path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
            }
            Name::Made => Path::new("."),
        };
        let file = tempfile::Builder::new().prefix(".gilspy-").suffix(".part").tempfile_in(directory);
        let what = match name {
            Name::Given(path) => path.display().to_string(),
            _ => "into the working directory (name another place with -o FILE)".to_owned(),
        };
        Ok(Sink::Beside(
            file.map_err(|error| reason(&error)).with_context(|| format!("cannot write {what}"))?,
        ))
    }

    fn file(&mut self) -> &mut File {
        match self {
            Sink::Beside(file) => file.as_file_mut(),
            Sink::Direct(file) => file,
        }
    }
}

/// What the kernel answered, without the path of the temporary file, which means nothing to a user.
fn reason(error: &std::io::Error) -> anyhow::Error {
    match error.kind() {
        std::io::ErrorKind::NotFound => anyhow!("there is no such directory"),
        kind => anyhow!("{kind}"),
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
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let ending = format!(".{}", format.extension());
    let ending = match name.strip_suffix(&ending) {
        Some(_) => ending,
        None => path.extension().map_or_else(String::new, |ending| format!(".{}", ending.to_string_lossy())),
    };
    let stem = name.strip_suffix(&ending).unwrap_or(&name);
    path.with_file_name(format!("{stem}.{number}{ending}"))
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
    }

    #[test]
    fn names_say_which_process_and_when() {
        let start: jiff::Timestamp = "2026-11-20T14:02:11.5Z".parse().unwrap();
        assert_eq!(base_name(Pid::new(4242), start), "gilspy-4242-20261120T140211Z");
    }
}
