//! Files that are written where others can write, too: `cargo test --test files`.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, geteuid, mkfifo};
use support::*;
use tempfile::TempDir;

/// Another user than root, and his group.
const NOBODY: u32 = 65534;

/// A directory of one's own below one that everybody can write to.
struct Place {
    root: TempDir,
    fixture: Fixture,
}

impl Place {
    fn new() -> Self {
        let root = TempDir::new().unwrap();
        fs::set_permissions(root.path(), Permissions::from_mode(0o1777)).unwrap();
        Place { root, fixture: Fixture::start(newest(), "sleepers.py", &[]) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// A file that must stay as it is.
    fn victim(&self) -> PathBuf {
        let victim = self.path("victim");
        fs::write(&victim, "precious").unwrap();
        victim
    }

    fn command(&self, output: &Path, further: &[&str]) -> Command {
        let mut command = gilspy(["record", "-p", &self.fixture.pid(), "-o", output.to_str().unwrap()]);
        command.args(further);
        command
    }

    fn record(&self, output: &Path, further: &[&str]) -> Output {
        self.command(output, &[&["-d", "0.1"], further].concat()).output().unwrap()
    }

    /// What gilspy says of a path that it must not write to.
    fn refusal(&self, output: &Path) -> String {
        let output = self.record(output, &[]);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(!said.contains("Recording pid"), "before anything is recorded: {said}");
        said
    }

    fn record_well(&self, output: &Path, further: &[&str]) {
        let output = self.record(output, further);
        assert!(output.status.success(), "{}", stderr(&output));
    }

    /// Begins to record, and waits until it is going.
    fn start(&self, output: &Path) -> Going {
        let child = self.command(output, &[]).stderr(Stdio::piped()).spawn().unwrap();
        let recording = output.with_extension("gilspy");
        while fs::metadata(&recording).map_or(0, |metadata| metadata.len()) == 0 {
            std::thread::sleep(Duration::from_millis(10));
        }
        Going(child)
    }

    /// The files that a directory is left with.
    fn names(&self, directory: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(directory)).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

struct Going(Child);

impl Going {
    fn end(self) -> (Option<i32>, String) {
        kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM).unwrap();
        let output = self.0.wait_with_output().unwrap();
        (output.status.code(), stderr(&output))
    }
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn owner(path: &Path) -> (u32, u32) {
    let metadata = fs::symlink_metadata(path).unwrap();
    (metadata.uid(), metadata.gid())
}

/// Whether files can be given to others, which most of this is about.
fn is_root() -> bool {
    let is_root = geteuid().is_root();
    if !is_root {
        eprintln!("SKIPPED: files of other users take root");
    }
    is_root
}

#[test]
fn ones_own_files_are_overwritten_and_no_one_else_reads_them() {
    let place = Place::new();
    let svg = place.path("x.svg");
    fs::write(&svg, "older").unwrap();
    fs::set_permissions(&svg, Permissions::from_mode(0o644)).unwrap();
    let files = [svg.clone(), place.path("x.timeline.svg"), place.path("x.gilspy")];
    for _ in 0..2 {
        place.record_well(&svg, &[]);
        assert!(fs::read_to_string(&svg).unwrap().contains("<svg"));
        assert!(files.iter().all(|path| mode(path) == 0o600));
    }
    place.record_well(&svg, &["--mode", "644"]);
    assert!(files.iter().all(|path| mode(path) == 0o644));
    run(["render", files[2].to_str().unwrap(), "--mode", "640"]);
    assert_eq!(mode(&svg), 0o640);
    assert_eq!(place.names("."), ["x.gilspy", "x.svg", "x.timeline.svg"]);
}

#[test]
fn a_symbolic_link_is_not_followed_and_force_replaces_the_link_itself() {
    let place = Place::new();
    let victim = place.victim();
    for name in ["x.svg", "x.timeline.svg", "x.gilspy"] {
        symlink(&victim, place.path(name)).unwrap();
        let said = place.refusal(&place.path("x.svg"));
        assert!(said.contains(&format!("cannot write {}", place.path(name).display())), "{said}");
        assert!(said.contains(&format!("a symbolic link to {}", victim.display())), "{said}");
        assert!(said.contains("--force"), "{said}");
        fs::remove_file(place.path(name)).unwrap();
    }
    symlink(&victim, place.path("x.svg")).unwrap();
    symlink("nowhere", place.path("x.gilspy")).unwrap();
    place.record_well(&place.path("x.svg"), &["--force"]);
    assert!(place.path("x.svg").symlink_metadata().unwrap().is_file());
    assert_eq!(fs::read_to_string(victim).unwrap(), "precious");
    assert!(!place.path("nowhere").exists());
}

#[test]
fn a_file_of_another_user_is_overwritten_with_force_only() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let victim = place.victim();
    chown(&victim, Some(NOBODY), Some(NOBODY)).unwrap();
    let said = place.refusal(&victim);
    assert!(said.contains("a file of user nobody is there already"), "{said}");
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    place.record_well(&victim, &["-f", "json", "--force"]);
    assert!(fs::read_to_string(&victim).unwrap().starts_with('{'));
    assert_eq!(owner(&victim), (0, 0));
}

#[test]
fn a_file_that_has_another_name_is_left_alone() {
    let place = Place::new();
    let victim = place.victim();
    fs::hard_link(&victim, place.path("x.svg")).unwrap();
    let said = place.refusal(&place.path("x.svg"));
    assert!(said.contains("hard links"), "{said}");
    place.record_well(&place.path("x.svg"), &["--force"]);
    assert_eq!(fs::read_to_string(victim).unwrap(), "precious", "its other name keeps what it was");
}

#[test]
fn links_of_others_on_the_way_are_not_followed_ones_own_are() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    fs::create_dir(place.path("there")).unwrap();
    symlink("there", place.path("link")).unwrap();
    place.record_well(&place.path("link/x.svg"), &[]);
    assert_eq!(place.names("there"), ["x.gilspy", "x.svg", "x.timeline.svg"]);
    lchown(place.path("link"), Some(NOBODY), Some(NOBODY)).unwrap();
    let said = place.refusal(&place.path("link/y.svg"));
    assert!(said.contains("link is a symbolic link of user nobody to there"), "{said}");
    assert_eq!(place.names("there").len(), 3);
}

#[test]
fn a_link_inside_of_another_root_leads_nowhere() {
    let place = Place::new();
    fs::create_dir(place.path("there")).unwrap();
    symlink(place.path("there"), place.path("link")).unwrap();
    let root = PathBuf::from(format!("/proc/{}/root", place.fixture.pid()));
    let inside = |name: &str| root.join(place.path(name).strip_prefix("/").unwrap());
    let said = place.refusal(&inside("link/x.svg"));
    assert!(said.contains("not followed"), "{said}");
    place.record_well(&inside("there/x.svg"), &[]);
    assert_eq!(place.names("there").len(), 3);
}

#[test]
fn files_go_to_the_directory_that_was_there_at_first_whatever_takes_its_place() {
    let place = Place::new();
    fs::create_dir(place.path("mine")).unwrap();
    fs::create_dir(place.path("victims")).unwrap();
    let going = place.start(&place.path("mine/x.svg"));
    fs::rename(place.path("mine"), place.path("moved")).unwrap();
    symlink(place.path("victims"), place.path("mine")).unwrap();
    kill(Pid::from_raw(going.0.id() as i32), Signal::SIGUSR1).unwrap();
    while !place.path("moved/x.1.timeline.svg").exists() {
        std::thread::sleep(Duration::from_millis(20));
    }
    let (status, said) = going.end();
    assert_eq!(status, Some(0), "{said}");
    let expected = ["x.1.svg", "x.1.timeline.svg", "x.gilspy", "x.svg", "x.timeline.svg"];
    assert_eq!(place.names("moved"), expected);
    assert_eq!(place.names("victims"), Vec::<String>::new());
}

#[test]
fn what_comes_meanwhile_is_not_overwritten_and_the_recording_is_kept() {
    let place = Place::new();
    let victim = place.victim();
    let going = place.start(&place.path("x.svg"));
    symlink(&victim, place.path("x.svg")).unwrap();
    let (status, said) = going.end();
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("a symbolic link to"), "{said}");
    assert!(said.contains(&format!("gilspy render {}", place.path("x.gilspy").display())), "{said}");
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    let elsewhere = place.path("elsewhere.svg");
    run(["render", place.path("x.gilspy").to_str().unwrap(), "-o", elsewhere.to_str().unwrap()]);
    assert!(elsewhere.exists());
    let left = place.names(".");
    assert!(!left.iter().any(|name| name.ends_with(".part")), "{left:?}");
}

#[test]
fn a_temporary_file_that_somebody_replaces_does_no_harm() {
    let place = Place::new();
    let victim = place.victim();
    let going = place.start(&place.path("x.svg"));
    let parts = place.names(".").into_iter().filter(|name| name.ends_with(".part"));
    for part in parts {
        fs::remove_file(place.path(&part)).unwrap();
        symlink(&victim, place.path(&part)).unwrap();
    }
    let (status, said) = going.end();
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("somebody else who can write to that directory"), "{said}");
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
}

#[test]
fn pipes_and_terminals_are_written_to_but_no_fifo_of_another_user() {
    let place = Place::new();
    let fifo = place.path("fifo");
    mkfifo(&fifo, Mode::S_IRWXU).unwrap();
    let reader = std::thread::spawn({
        let fifo = fifo.clone();
        move || fs::read_to_string(fifo).unwrap()
    });
    place.record_well(&fifo, &["-f", "json"]);
    assert!(reader.join().unwrap().contains("\"schema\""));
    place.record_well(Path::new("/dev/null"), &["-f", "json"]);
    for path in ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "-"] {
        let output = place.record(Path::new(path), &["-f", "json"]);
        assert!(stdout(&output).contains("\"schema\""), "{path}: {}", stderr(&output));
        // A file that standard output is redirected to, too.
        let redirected = fs::File::create(place.path("redirected")).unwrap();
        let status = place.command(Path::new(path), &["-f", "json", "-d", "0.1"]).stdout(redirected).status();
        assert!(status.unwrap().success());
        assert!(fs::read_to_string(place.path("redirected")).unwrap().contains("\"schema\""), "{path}");
    }
    if is_root() {
        chown(&fifo, Some(NOBODY), Some(NOBODY)).unwrap();
        let said = place.refusal(&fifo);
        assert!(said.contains("a FIFO of user nobody"), "{said}");
    }
}

#[test]
fn under_sudo_files_belong_to_the_user_who_called_it() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let directories = [("his", 0o700, NOBODY), ("roots", 0o755, 0), ("everybodys", 0o1777, 0)];
    for (name, mode, owner) in directories {
        fs::create_dir(place.path(name)).unwrap();
        chown(place.path(name), Some(owner), Some(owner)).unwrap();
        fs::set_permissions(place.path(name), Permissions::from_mode(mode)).unwrap();
    }
    for (name, ..) in directories {
        let svg = place.path(name).join("x.svg");
        for _ in 0..2 {
            let mut command = place.command(&svg, &["-d", "0.1"]);
            let output = command.env("SUDO_UID", "65534").env("SUDO_GID", "65534").output().unwrap();
            assert!(output.status.success(), "{name}: {}", stderr(&output));
        }
        let files = place.names(name);
        assert_eq!(files.len(), 3, "{files:?}");
        assert!(files.iter().all(|file| owner(&place.path(name).join(file)) == (NOBODY, NOBODY)));
    }
    // What is root's own is not the caller's.
    let victim = place.victim();
    let output =
        place.command(&victim, &["-d", "0.1"]).env("SUDO_UID", "65534").env("SUDO_GID", "65534").output();
    assert!(stderr(&output.unwrap()).contains("a file of user root is there already"));
    assert_eq!(fs::read_to_string(victim).unwrap(), "precious");
}

/// A small file system of its own, as long as this lives.
struct Disk(PathBuf);

impl Disk {
    fn mount(place: &Place, options: &str) -> Option<Self> {
        let path = place.path("disk");
        fs::create_dir(&path).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&path).stderr(Stdio::null());
        if mount.status().is_ok_and(|status| status.success()) {
            return Some(Disk(path));
        }
        eprintln!("SKIPPED: mounting a file system needs root");
        None
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn pictures_that_a_full_disk_does_not_take_can_be_drawn_from_the_recording() {
    let place = Place::new();
    let Some(disk) = Disk::mount(&place, "size=16k") else { return };
    let output = place.record(&disk.0.join("x.svg"), &[]);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("No space left on device"), "{said}");
    let recording = disk.0.join("x.gilspy");
    assert!(said.contains(&format!("gilspy render {} -o FILE", recording.display())), "{said}");
    let elsewhere = place.path("elsewhere.svg");
    run(["render", recording.to_str().unwrap(), "-o", elsewhere.to_str().unwrap()]);
    parse_svg(&fs::read_to_string(elsewhere).unwrap());
    assert_eq!(place.names("disk"), ["x.gilspy"], "nothing half-written is left");
}

#[test]
fn a_recording_that_was_not_to_be_kept_is_kept_where_its_format_finds_no_room() {
    let place = Place::new();
    let Some(disk) = Disk::mount(&place, "size=16k") else { return };
    fs::create_dir(place.path("tmp")).unwrap();
    let mut command = place.command(&disk.0.join("x.html"), &["-d", "0.1", "-f", "html"]);
    let output = command.env("TMPDIR", place.path("tmp")).output().unwrap();
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let names = place.names("tmp");
    let [name] = names.as_slice() else { panic!("{names:?}: {said}") };
    let recording = place.path("tmp").join(name);
    assert!(said.contains(&format!("the recording is {}", recording.display())), "{said}");
    run(["render", recording.to_str().unwrap(), "-f", "json", "-o", place.path("x.json").to_str().unwrap()]);
}

#[test]
fn a_read_only_disk_is_said_before_anything_is_recorded() {
    let place = Place::new();
    let Some(disk) = Disk::mount(&place, "size=1m,ro") else { return };
    let said = place.refusal(&disk.0.join("x.svg"));
    assert!(said.contains("read-only"), "{said}");
    let svg = place.path("x.svg");
    place.record_well(&svg, &[]);
    let recording = place.path("x.gilspy");
    let on_disk = disk.0.join("y.svg");
    let said = failure(1, ["render", recording.to_str().unwrap(), "-o", on_disk.to_str().unwrap()]);
    assert!(said.contains("read-only"), "{said}");
}
