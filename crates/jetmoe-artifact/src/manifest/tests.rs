use super::ArtifactFile;

/// git changes them at will.
#[test]
fn line_ends_do_not_matter() {
    for (exported, checked_out) in
        [("{\n}\n", "{\r\n}\r\n"), ("a\r\nb\r\n", "a\nb\n"), ("a\r\nb\n", "a\nb\n")]
    {
        let file = ArtifactFile::of_content("x", exported.as_bytes());
        assert!(file.is_content(exported.as_bytes()));
        // a file with both kinds has no way back
        assert_eq!(file.is_content(checked_out.as_bytes()), exported != "a\r\nb\n");
        assert!(!file.is_content(format!("{checked_out} ").as_bytes()));
    }
}
