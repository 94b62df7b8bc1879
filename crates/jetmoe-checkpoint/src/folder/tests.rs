//! Both implementations, and what they do with links and pipes.

use std::fs;
use std::io::{ErrorKind, Write};

use super::*;
use crate::AtomicFile;

/// What both implementations do.
fn holds_its_entries<H: Handle>() {
    let folder = tempfile::tempdir().unwrap();
    let root = H::open(folder.path()).unwrap();
    assert_eq!(root.kind("a").unwrap(), None);
    root.create_file("a").unwrap().write_all(b"one").unwrap();
    assert_eq!(root.create_file("a").unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(root.kind("a").unwrap(), Some(EntryKind::File));
    let file = root.open_or_create("a").unwrap();
    assert!(root.is_named("a", &file).unwrap());
    assert_eq!(file.metadata().unwrap().len(), 3, "it is not truncated");
    root.open_or_create("b").unwrap();
    root.create_subfolder("sub").unwrap();
    let sub = root.subfolder("sub").unwrap();
    root.rename("a", &sub, "c").unwrap();
    assert_eq!(fs::read(folder.path().join("sub/c")).unwrap(), b"one");
    root.open_file("b").unwrap();
    let mut names = root.names().unwrap();
    names.sort();
    assert_eq!(names, ["b", "sub"]);
    assert!(root.remove_subfolder("sub").is_err(), "it is not empty");
    sub.remove_file("c").unwrap();
    root.remove_subfolder("sub").unwrap();
    assert!(H::open(&folder.path().join("b")).is_err());
    assert!(H::open(&folder.path().join("none")).is_err());
}

#[test]
fn an_open_folder_holds_its_entries_on_every_system() {
    holds_its_entries::<SystemHandle>();
    holds_its_entries::<portable::Handle>();
}

#[test]
fn a_path_is_not_the_name_of_an_entry() {
    let folder = tempfile::tempdir().unwrap();
    let folder = Folder::open(folder.path()).unwrap();
    for path in ["", ".", "..", "a/b", "../a", "/etc", "a\\b"] {
        assert_eq!(folder.create_file(path).unwrap_err().kind(), ErrorKind::InvalidInput, "{path}");
        assert_eq!(folder.create_subfolder(path).unwrap_err().kind(), ErrorKind::InvalidInput, "{path}");
        assert_eq!(folder.kind(path).unwrap_err().kind(), ErrorKind::InvalidInput, "{path}");
    }
    assert_eq!(folder.locate_or_create("a/../b").unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[test]
fn an_unnamed_file_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut file = Folder::open(folder.path()).unwrap().create_unnamed_file().unwrap();
    file.write_all(b"content").unwrap();
    assert_eq!(folder.path().read_dir().unwrap().count(), 0);
}

#[test]
fn a_temporary_name_says_the_final_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = AtomicFile::create(&folder.path().join("model.onnx")).unwrap();
    let names = Folder::open(folder.path()).unwrap().names().unwrap();
    let [name] = names.as_slice() else { panic!("{names:?}") };
    assert_eq!(AtomicFile::final_name(name), Some("model.onnx"));
    drop(file);
    assert_eq!(folder.path().read_dir().unwrap().count(), 0);
    for other in ["model.onnx", "export.partial", ".partial", "model..partial", "a.b/c.partial"] {
        assert_eq!(AtomicFile::final_name(other), None, "{other}");
    }
}

#[cfg(unix)]
mod links_and_pipes {
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;
    use std::sync::mpsc;
    use std::time::Duration;

    use rustix::fs::{CWD, Mode, mkfifoat};

    use super::*;
    use crate::{open_file, read_bytes};

    /// A folder with a link to a folder, a link to a file, both outside of it, a link to nothing, and a named pipe.
    fn hostile() -> (tempfile::TempDir, PathBuf) {
        let all = tempfile::tempdir().unwrap();
        let folder = all.path().join("folder");
        fs::create_dir(&folder).unwrap();
        fs::create_dir(all.path().join("outside")).unwrap();
        fs::write(all.path().join("outside/file"), "mine").unwrap();
        symlink("../outside", folder.join("to_folder")).unwrap();
        symlink("../outside/file", folder.join("to_file")).unwrap();
        symlink("../outside/new", folder.join("to_nothing")).unwrap();
        mkfifoat(CWD, folder.join("pipe"), Mode::RWXU).unwrap();
        (all, folder)
    }

    /// Fails if something hangs.
    fn ends(check: impl FnOnce() + Send + 'static) {
        let (done, result) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            check();
            done.send(()).unwrap();
        });
        match result.recv_timeout(Duration::from_secs(60)) {
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("it hangs"),
            _ => thread.join().unwrap(),
        }
    }

    fn follows_nothing<H: Handle>() {
        let (all, path) = hostile();
        let folder = H::open(&path).unwrap();
        for (name, kind) in [
            ("to_folder", EntryKind::Link),
            ("to_file", EntryKind::Link),
            ("to_nothing", EntryKind::Link),
            ("pipe", EntryKind::Special),
        ] {
            assert_eq!(folder.kind(name).unwrap(), Some(kind), "{name}");
            assert!(folder.subfolder(name).is_err(), "{name}");
            assert!(folder.create_file(name).is_err(), "{name}");
            assert!(folder.open_or_create(name).is_err(), "{name}");
            assert!(folder.open_file(name).is_err(), "{name}");
        }
        assert_eq!(fs::read(all.path().join("outside/file")).unwrap(), b"mine");
        assert!(!all.path().join("outside/new").exists());
        assert_eq!(folder.names().unwrap().len(), 4);
    }

    #[test]
    fn no_link_is_followed_and_no_pipe_is_waited_for() {
        ends(|| {
            follows_nothing::<SystemHandle>();
            follows_nothing::<portable::Handle>();
        });
    }

    #[test]
    fn what_is_no_file_is_named_and_not_removed() {
        ends(|| {
            let (_all, path) = hostile();
            let folder = Folder::open(&path).unwrap();
            for (name, found) in [("to_file", "a symbolic link"), ("pipe", "a pipe, a socket or a device")] {
                for error in [folder.remove_file(name).unwrap_err(), folder.open_file(name).unwrap_err()] {
                    assert_eq!(error.to_string(), format!("it is {found}, not a file"));
                }
            }
            let error = folder.create_subfolder("to_folder").unwrap_err();
            assert_eq!(error.to_string(), "it is a symbolic link, not a folder");
            assert_eq!(folder.names().unwrap().len(), 4);
        });
    }

    #[test]
    fn a_complete_file_replaces_a_link_and_not_what_it_refers_to() {
        let (all, path) = hostile();
        for name in ["to_file", "to_nothing"] {
            let mut file = AtomicFile::create(&path.join(name)).unwrap();
            file.write_all(b"new").unwrap();
            file.commit().unwrap();
            assert_eq!(fs::read(path.join(name)).unwrap(), b"new");
            assert!(!path.join(name).is_symlink());
        }
        assert_eq!(fs::read(all.path().join("outside/file")).unwrap(), b"mine");
        assert!(!all.path().join("outside/new").exists());
    }

    /// Between opening a folder and writing into it, somebody replaces it by a link.
    #[test]
    fn an_open_folder_is_the_same_after_its_name_became_a_link() {
        let (all, path) = hostile();
        let folder = Folder::open(&path).unwrap();
        let mut file = AtomicFile::create_in(&folder, "file").unwrap();
        file.write_all(b"new").unwrap();
        let moved = all.path().join("moved");
        fs::rename(&path, &moved).unwrap();
        symlink("outside", &path).unwrap();
        file.commit().unwrap();
        folder.create_subfolder("sub").unwrap().create_file("other").unwrap();
        assert_eq!(fs::read(all.path().join("outside/file")).unwrap(), b"mine");
        assert_eq!(fs::read(moved.join("file")).unwrap(), b"new");
        assert!(moved.join("sub/other").exists() && !all.path().join("outside/sub").exists());
    }

    #[test]
    fn only_regular_files_are_read() {
        ends(|| {
            let (_all, path) = hostile();
            assert_eq!(read_bytes(&path.join("to_file")).unwrap(), b"mine", "links are followed");
            for (name, found) in [("pipe", "a pipe, a socket or a device"), ("to_folder", "a folder")] {
                let error = open_file(&path.join(name)).unwrap_err();
                assert_eq!(error.to_string(), format!("it is {found}, not a file"));
            }
            assert!(open_file(Path::new("/dev/zero")).is_err());
        });
    }
}
