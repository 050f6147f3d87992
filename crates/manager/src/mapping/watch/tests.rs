//! Files that change, break, vanish, or can be changed by others.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;

use super::*;

fn mapping_to(name: &str) -> String {
    json!([{"DATA_TYPE": "expression_identity_mapping#1.0.0",
            "mappings": [{"source": "{username}", "match": ".*", "output": name}]}])
    .to_string()
}

/// The name that a mapping yields.
fn yields(mapping: &Mapping) -> String {
    let identity = json!({"id": "00000000-0000-4444-8888-111111111111", "username": "x", "status": "used"});
    mapping.evaluate_objects(&[identity.as_object().unwrap().clone()]).matched.unwrap().local_user
}

fn replaced(change: Option<Change>) -> String {
    match change {
        Some(Change::Replaced(loaded)) => yields(&loaded.mapping),
        other => panic!("{other:?}"),
    }
}

fn refused(change: Option<Change>) -> LoadError {
    match change {
        Some(Change::Refused(error)) => error,
        other => panic!("{other:?}"),
    }
}

struct File {
    directory: tempfile::TempDir,
    watched: Watched,
}

impl File {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mapping.json");
        fs::write(&path, mapping_to("first")).unwrap();
        let settings = Settings { connector: "c".to_owned(), gateway: "g".to_owned() };
        let (watched, loaded) = Watched::open(&path, settings).unwrap();
        assert_eq!(yields(&loaded.mapping), "first");
        Self { directory, watched }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("mapping.json")
    }

    fn other(&self, text: &str) -> PathBuf {
        let path = self.directory.path().join("new");
        fs::write(&path, text).unwrap();
        path
    }
}

#[test]
fn an_unchanged_file_is_not_read() {
    let mut file = File::new();
    assert!(file.watched.changed().is_none());
    assert!(file.watched.changed().is_none());
}

#[test]
fn edited_in_place_or_replaced_it_is_applied_at_once() {
    let mut file = File::new();
    fs::write(file.path(), mapping_to("second")).unwrap();
    let change = file.watched.changed();
    let text = change.as_ref().unwrap().text(&file.path());
    assert!(
        text.starts_with("Identity mapping configuration change detected; reread and applied: /"),
        "{text}"
    );
    assert_eq!(replaced(change), "second");
    fs::rename(file.other(&mapping_to("third")), file.path()).unwrap();
    assert_eq!(replaced(file.watched.changed()), "third");
    assert!(file.watched.changed().is_none());
}

#[test]
fn a_link_that_points_elsewhere_is_followed() {
    let mut file = File::new();
    let other = file.other(&mapping_to("linked"));
    fs::remove_file(file.path()).unwrap();
    std::os::unix::fs::symlink(&other, file.path()).unwrap();
    assert_eq!(replaced(file.watched.changed()), "linked");
    fs::write(&other, mapping_to("changed")).unwrap();
    assert_eq!(replaced(file.watched.changed()), "changed");
}

#[test]
fn a_broken_file_is_refused_once_and_a_mended_one_applied() {
    let mut file = File::new();
    fs::write(file.path(), "[{").unwrap();
    assert!(file.watched.changed().is_none(), "it may be half-written");
    let change = file.watched.changed();
    let text = change.as_ref().unwrap().text(&file.path());
    assert!(text.contains("(JSONDecodeError)") && text.contains("previous identity mapping stays"), "{text}");
    assert_eq!(refused(change).exit_status(), 78);
    assert!(file.watched.changed().is_none(), "it is told once");
    fs::write(file.path(), mapping_to("mended")).unwrap();
    assert_eq!(replaced(file.watched.changed()), "mended");
}

#[test]
fn a_half_written_file_is_no_error() {
    let mut file = File::new();
    let whole = mapping_to("second");
    for part in [0, whole.len() / 2] {
        fs::write(file.path(), &whole[..part]).unwrap();
        assert!(file.watched.changed().is_none(), "{part}");
    }
    fs::write(file.path(), &whole).unwrap();
    assert_eq!(replaced(file.watched.changed()), "second");
}

#[test]
fn a_file_that_is_broken_in_another_way_each_time_is_told_now_and_then() {
    let mut file = File::new();
    let looks = (1..=6).map(|length| {
        fs::write(file.path(), "[".repeat(length)).unwrap();
        file.watched.changed().is_some()
    });
    assert_eq!(looks.collect::<Vec<_>>(), [false, false, true, false, false, true]);
}

#[test]
fn a_removed_file_is_told_once_and_keeps_the_mapping() {
    let mut file = File::new();
    let text = fs::read(file.path()).unwrap();
    fs::remove_file(file.path()).unwrap();
    assert!(file.watched.changed().is_none());
    assert_eq!(refused(file.watched.changed()).exit_status(), 72);
    assert!(file.watched.changed().is_none());
    fs::write(file.path(), text).unwrap();
    assert_eq!(replaced(file.watched.changed()), "first");
}

/// Fails when what stands in place of the file makes the manager wait or fills its memory.
#[test]
fn what_is_no_mapping_file_is_refused() {
    let mut file = File::new();
    fs::remove_file(file.path()).unwrap();
    nix::unistd::mkfifo(&file.path(), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(file.watched.changed().is_none());
    assert!(matches!(refused(file.watched.changed()), LoadError::NotAFile { .. }));
    fs::remove_file(file.path()).unwrap();
    fs::create_dir(file.path()).unwrap();
    assert!(file.watched.changed().is_none());
    assert!(matches!(refused(file.watched.changed()), LoadError::NotAFile { .. }));
    fs::remove_dir(file.path()).unwrap();
    let huge = fs::File::create(file.path()).unwrap();
    huge.set_len(1 << 40).unwrap();
    assert!(file.watched.changed().is_none());
    assert!(matches!(refused(file.watched.changed()), LoadError::TooLarge { .. }));
}

#[test]
fn a_file_or_program_that_others_can_change_is_refused() {
    let mut file = File::new();
    let writable = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    writable(&file.path(), 0o666);
    assert!(file.watched.changed().is_none());
    let error = refused(file.watched.changed());
    assert_eq!(error.exit_status(), 77);
    assert!(error.to_string().contains("do: chmod o-w"), "{error}");
    writable(&file.path(), 0o644);
    assert_eq!(replaced(file.watched.changed()), "first");
    let program = file.path().with_file_name("program");
    fs::write(&program, "#!/bin/sh\n").unwrap();
    for (command, mode, accepted) in [
        (vec![program.clone()], 0o777, false),
        (vec!["/bin/sh".into(), program.clone()], 0o777, false),
        (vec!["/bin/sh".into(), program.clone()], 0o755, true),
        (vec!["/no/such/program".into(), "/x".into()], 0o777, true),
    ] {
        writable(&program, mode);
        let entries = json!([{"DATA_TYPE": "external_identity_mapping#1.0.0", "command": command}]);
        fs::write(file.path(), entries.to_string()).unwrap();
        let settings = Settings { connector: "c".to_owned(), gateway: "g".to_owned() };
        assert_eq!(load(&file.path(), &settings).is_ok(), accepted, "{command:?} {mode:o}");
    }
}

#[test]
fn a_file_that_a_group_can_change_is_pointed_out() {
    if !Uid::effective().is_root() {
        return;
    }
    let mut file = File::new();
    std::os::unix::fs::chown(file.path(), None, Some(54_321)).unwrap();
    fs::set_permissions(file.path(), fs::Permissions::from_mode(0o664)).unwrap();
    let Some(Change::Replaced(loaded)) = file.watched.changed() else { panic!() };
    let [warning] = &loaded.warnings[..] else { panic!("{:?}", loaded.warnings) };
    assert!(warning.to_string().contains("group 54321"), "{warning}");
}

#[test]
fn the_exit_status_says_why_there_is_no_mapping() {
    let settings = Settings { connector: "c".to_owned(), gateway: "g".to_owned() };
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing");
    assert_eq!(load(&missing, &settings).unwrap_err().exit_status(), 72);
    let denied = io::ErrorKind::PermissionDenied.into();
    assert_eq!(LoadError::Unreadable { path: missing, error: denied }.exit_status(), 77);
}
