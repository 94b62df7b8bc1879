use super::*;

#[test]
fn versions_compare_as_numbers() {
    assert_eq!(major_and_minor("1.9.1"), Some((1, 9)));
    assert!(major_and_minor("1.9.1") < Some(OLDEST));
    assert!(major_and_minor("1.100.0-dev") > Some(OLDEST));
    assert!(major_and_minor("2.0.0") > Some(OLDEST));
    assert_eq!(major_and_minor("nightly"), None);
}

#[test]
fn a_file_that_is_no_library_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for content in ["", "no library, and long enough to hold the header of one, which is 64 bytes or less"] {
        let path = folder.path().join("libonnxruntime.so");
        std::fs::write(&path, content).unwrap();
        let why = open(&path).unwrap_err().to_string();
        assert!(!why.is_empty() && !why.contains("libonnxruntime.so"), "{why}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn another_library_is_refused() {
    let libm = std::fs::read_to_string("/proc/self/maps")
        .unwrap()
        .lines()
        .find_map(|line| Some(line[line.find('/')?..].to_owned()).filter(|path| path.contains("/libm.so")))
        .unwrap();
    let why = open(Path::new(&libm)).unwrap_err().to_string();
    assert!(why.contains("OrtGetApiBase"), "{why}");
}
