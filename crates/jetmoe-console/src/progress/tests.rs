use super::*;

#[test]
fn the_bar_of_a_download_counts_bytes_and_names_a_file() {
    let bar = DownloadBar(ProgressBar::hidden());
    let draw = |bytes_done, files: &[&str], is_complete| {
        let files = files.to_vec();
        bar.on_progress(&DownloadProgress { bytes_done, bytes_total: 30, files, is_complete });
        (bar.0.position(), bar.0.message())
    };
    assert_eq!(draw(4, &["a", "b", "c"], false), (4, "a and 2 more".to_owned()));
    assert_eq!(draw(20, &["c"], false), (20, "c".to_owned()));
    assert_eq!((draw(30, &[], false), bar.0.length()), ((30, String::new()), Some(30)));
    draw(30, &[], true);
    assert!(bar.0.is_finished());
}
