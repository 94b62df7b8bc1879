//! Transfers of files: with and without Xet, and interrupted ones.

use jetmoe_testing::hub::{Contents, Fault};

use super::{SHARDS, refused, sharded};

#[test]
fn an_interrupted_download_is_no_response_of_something_else() {
    let contents = Contents { fault: Some((SHARDS[1], Fault::Truncated)), ..sharded() };
    let error = refused(contents, |_| ());
    assert!(
        error.contains(": the download was interrupted: ")
            && error.ends_with("\n  try again; complete files are not downloaded again"),
        "{error}"
    );
}
