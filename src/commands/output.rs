//! The files that a recording is written to: opened before recording, so that a path that cannot be
//! written is found out at once, and put in place under their names when they are whole.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use tempfile::NamedTempFile;

use crate::analysis::{Analysed, By};
use crate::cli::Format;
use crate::render;
use crate::units::Pid;

/// The files of one recording.
pub(super) struct Outputs(Vec<Output>);

/// One file to be.
struct Output {
    format: Format,
    name: Name,
    sink: Sink,
}

/// What the file will be called.
enum Name {
    Given(PathBuf),
    /// `gilspy-PID-TIME` with the format's ending, in this directory.
    Made(PathBuf),
}

/// Where the bytes go.
enum Sink {
    /// A file beside its later place.
    Beside(NamedTempFile),
    /// Something that is there already and is no file: a pipe, a terminal, /dev/null.
    Direct(File),
}

impl Outputs {
    /// Opens what the command line asks for.
    pub(super) fn open(output: Option<&Path>, format: Option<Format>) -> Result<Self> {
        let wanted: Vec<(Format, Name)> = match (output, format) {
            (Some(path), Some(format)) => vec![(format, Name::Given(path.to_owned()))],
            (None, Some(format)) => vec![(format, Name::Made(PathBuf::from(".")))],
            (Some(path), None) => vec![
                (Format::Flamegraph, Name::Given(path.to_owned())),
                (Format::Timeline, Name::Given(timeline_beside(path))),
            ],
            (None, None) => vec![
                (Format::Flamegraph, Name::Made(PathBuf::from("."))),
                (Format::Timeline, Name::Made(PathBuf::from("."))),
            ],
        };
        let open = |(format, name): (Format, Name)| Ok(Output { sink: Sink::open(&name)?, format, name });
        Ok(Outputs(wanted.into_iter().map(open).collect::<Result<_>>()?))
    }

    /// Writes everything, and answers what was written where.
    pub(super) fn write(self, processes: &[Analysed<'_>]) -> Result<Vec<(Format, PathBuf)>> {
        let first = processes.first().map(|first| (first.recording.target.pid, first.recording.start));
        let (pid, start) = first.unwrap_or((Pid::new(0), jiff::Timestamp::now()));
        let base = base_name(pid, start);
        self.0.into_iter().map(|output| output.write(processes, &base)).collect()
    }
}

impl Output {
    fn write(mut self, processes: &[Analysed<'_>], base: &str) -> Result<(Format, PathBuf)> {
        let path = match self.name {
            Name::Given(path) => path,
            Name::Made(directory) => directory.join(format!("{base}.{}", self.format.extension())),
        };
        let path = path.strip_prefix(".").map(Path::to_owned).unwrap_or(path);
        let failed = || format!("cannot write {}", path.display());
        let mut writer = BufWriter::new(self.sink.file());
        write_format(self.format, processes, &mut writer).with_context(failed)?;
        writer.flush().with_context(failed)?;
        drop(writer);
        if let Sink::Beside(file) = self.sink {
            file.persist(&path).map_err(|error| error.error).with_context(failed)?;
        }
        Ok((self.format, path))
    }
}

fn write_format(format: Format, processes: &[Analysed<'_>], writer: &mut impl Write) -> Result<()> {
    match format {
        Format::Flamegraph => render::flamegraph::write(processes, By::Hold, writer),
        Format::Timeline => render::timeline::write(processes, writer),
        Format::Raw => render::folded::write(processes, By::Hold, writer),
        Format::Json => processes.iter().try_for_each(|process| render::report::write(process, writer)),
    }
}

impl Sink {
    fn open(name: &Name) -> Result<Self> {
        let directory = match name {
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
            Name::Made(directory) => directory,
        };
        let file = tempfile::Builder::new().prefix(".gilspy-").suffix(".part").tempfile_in(directory);
        let what = match name {
            Name::Given(path) => path.display().to_string(),
            Name::Made(_) => "into the working directory (name another place with -o FILE)".to_owned(),
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

/// `NAME.timeline.svg` for `NAME.svg`.
fn timeline_beside(path: &Path) -> PathBuf {
    let stem = if path.extension().is_some_and(|extension| extension == "svg") {
        path.with_extension("")
    } else {
        path.to_owned()
    };
    let mut name = stem.into_os_string();
    name.push(".timeline.svg");
    PathBuf::from(name)
}

fn base_name(pid: Pid, start: jiff::Timestamp) -> String {
    format!("gilspy-{pid}-{}", start.strftime("%Y%m%dT%H%M%SZ"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timeline_stands_beside_the_flame_graph() {
        assert_eq!(timeline_beside(Path::new("/tmp/slow.svg")), Path::new("/tmp/slow.timeline.svg"));
        assert_eq!(timeline_beside(Path::new("slow")), Path::new("slow.timeline.svg"));
    }

    #[test]
    fn names_say_which_process_and_when() {
        let start: jiff::Timestamp = "2026-11-20T14:02:11.5Z".parse().unwrap();
        assert_eq!(base_name(Pid::new(4242), start), "gilspy-4242-20261120T140211Z");
    }
}
