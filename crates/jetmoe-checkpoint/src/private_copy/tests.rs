use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::MappedFile;

#[test]
fn a_copy_stays_as_it_was_and_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("weights");
    fs::write(&file, [7; 10_000]).unwrap();
    let copy = PrivateCopy::create(&file, folder.path()).unwrap();
    let parent = copy.path().parent().unwrap().to_owned();
    assert_eq!(copy.path().file_name().unwrap(), "weights");
    assert_eq!(fs::metadata(&parent).unwrap().permissions().mode() & 0o777, 0o700);

    let mapped = MappedFile::open(copy.path()).unwrap();
    fs::write(&file, "").unwrap();
    drop(copy);
    assert!(!parent.exists());
    assert_eq!(*mapped, [7; 10_000]);
}

#[test]
fn a_copy_that_cannot_be_made_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (missing, file) = (folder.path().join("missing"), folder.path().join("weights"));
    assert!(matches!(PrivateCopy::create(&missing, folder.path()), Err(Error::Io { .. })));
    // a sparse file that is larger than any disk of a test machine
    File::create(&file).unwrap().set_len(1 << 43).unwrap();
    match PrivateCopy::create(&file, folder.path()).unwrap_err() {
        Error::DiskSpace { needed, available, .. } => assert!(needed == 1 << 43 && available < needed),
        other => panic!("{other}"),
    }
    assert!(matches!(PrivateCopy::create(&file, &missing), Err(Error::Io { path, .. }) if path == missing));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}
