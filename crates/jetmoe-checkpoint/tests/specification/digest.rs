use std::sync::atomic::{AtomicU64, Ordering};

use jetmoe_checkpoint::{Checkpoint, Digest};
use proptest::prelude::*;
use serde_json::json;

use crate::fixtures::tiny;

fn digest(folder: &tempfile::TempDir) -> Digest {
    Checkpoint::open(folder.path()).unwrap().digest(&|_| ()).unwrap()
}

#[test]
fn one_changed_weight_changes_the_digest() {
    let draft = tiny();
    let before = digest(&draft.write());
    assert_eq!(digest(&draft.write()), before);
    for name in draft.tensors.keys() {
        let mut changed = draft.clone();
        let last = changed.weight(name).last_mut().unwrap();
        *last = -*last;
        assert_ne!(digest(&changed.write()), before, "{name}");
    }
}

#[test]
fn the_configuration_is_part_of_the_digest() {
    let draft = tiny();
    let changed = draft.clone().with("rms_norm_eps", json!(1e-5));
    assert_ne!(digest(&draft.write()), digest(&changed.write()));
}

#[test]
fn progress_counts_every_byte_once() {
    let folder = tiny().write();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let bytes = AtomicU64::new(0);
    checkpoint
        .digest(&|more| {
            bytes.fetch_add(more, Ordering::Relaxed);
        })
        .unwrap();
    assert_eq!(bytes.into_inner(), checkpoint.tensors().size_in_bytes());
}

#[test]
fn text_that_is_no_digest_is_refused() {
    for text in ["", "12", &"g".repeat(64), &"é".repeat(32), &"+1".repeat(32), &"0".repeat(65)] {
        let error = text.parse::<Digest>().unwrap_err().to_string();
        assert!(error.contains("is not a SHA-256 digest of 64 hexadecimal digits"), "{error}");
    }
}

#[test]
fn the_digest_of_nothing_is_the_well_known_one() {
    assert_eq!(
        Digest::of_bytes(b"").to_string(),
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    );
}

proptest! {
    #[test]
    fn the_digest_does_not_depend_on_how_the_weights_are_cut(cut in any::<u64>()) {
        let draft = tiny();
        prop_assert_eq!(digest(&draft.write_sharded(|index| cut >> (index % 64) & 1 == 1)), digest(&draft.write()));
    }

    #[test]
    fn a_digest_reads_back_from_its_text(bytes in any::<Vec<u8>>()) {
        let digest = Digest::of_bytes(&bytes);
        prop_assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
        let json = serde_json::to_string(&digest).unwrap();
        prop_assert_eq!(json.len(), 66);
        prop_assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), digest);
    }
}
