use std::convert::Infallible;

use proptest::prelude::*;

use super::*;

/// The tokens that were saved; a byte for each.
#[derive(Debug)]
struct Saved(Vec<u32>);

impl Payload for Saved {
    fn bytes(&self) -> u64 {
        self.0.len() as u64
    }
}

fn insert(tree: &mut PrefixTree<Saved>, tokens: &[u32]) -> usize {
    let mut saved = 0;
    let result: Result<(), Infallible> = tree.insert(tokens, |range| {
        saved = range.len();
        Ok(Some(Saved(tokens[range].to_vec())))
    });
    result.unwrap();
    saved
}

/// The tokens that are restored for a sequence.
fn restored(tree: &mut PrefixTree<Saved>, tokens: &[u32]) -> Vec<u32> {
    let found = tree.find(tokens);
    let mut restored = Vec::new();
    for part in &found.parts {
        assert_eq!(part.first, restored.len(), "{found:?}");
        restored.extend(&tree.payload(part.payload).unwrap().0[..part.tokens]);
    }
    assert_eq!(restored.len(), found.tokens);
    restored
}

#[test]
fn only_new_tokens_are_saved_and_the_longest_prefix_is_found() {
    let mut tree = PrefixTree::new(100);
    assert_eq!(insert(&mut tree, &[1, 2, 3, 4]), 4);
    assert_eq!(insert(&mut tree, &[1, 2, 3, 4, 5, 6]), 2);
    assert_eq!(insert(&mut tree, &[1, 2, 9]), 1);
    assert_eq!(insert(&mut tree, &[1, 2, 3]), 0);
    assert_eq!(tree.bytes(), 7);
    assert_eq!(restored(&mut tree, &[1, 2, 3, 4, 5, 7]), [1, 2, 3, 4, 5]);
    assert_eq!(restored(&mut tree, &[1, 2, 9, 9]), [1, 2, 9]);
    assert_eq!(restored(&mut tree, &[1, 2, 3, 8]), [1, 2, 3]);
    assert_eq!(restored(&mut tree, &[2]), [0; 0]);
    assert_eq!(tree.longest(&[1, 2, 9, 9]), 3);
}

#[test]
fn a_split_node_is_restored_from_the_payload_that_it_shares() {
    let mut tree = PrefixTree::new(100);
    insert(&mut tree, &[1, 2, 3, 4, 5, 6]);
    insert(&mut tree, &[1, 2, 3, 7]);
    insert(&mut tree, &[1, 8]);
    let found = tree.find(&[1, 2, 3, 4, 5]);
    assert_eq!((found.tokens, found.parts.len()), (5, 1), "{found:?}");
    assert_eq!(restored(&mut tree, &[1, 2, 3, 7]), [1, 2, 3, 7]);
    assert_eq!(tree.bytes(), 8);
}

#[test]
fn what_was_not_used_for_the_longest_time_is_dropped() {
    let mut tree = PrefixTree::new(10);
    insert(&mut tree, &[1, 2, 3, 4]);
    insert(&mut tree, &[5, 6, 7, 8]);
    restored(&mut tree, &[1, 2, 3, 4]);
    insert(&mut tree, &[9, 10, 11, 12]);
    assert_eq!(tree.longest(&[5, 6, 7, 8]), 0);
    assert_eq!((tree.longest(&[1, 2, 3, 4]), tree.longest(&[9, 10, 11, 12])), (4, 4));
    assert_eq!(insert(&mut tree, &[20; 11]), 11, "it was saved");
    assert_eq!(tree.longest(&[20; 11]), 0, "and is more than the limit, so it is not kept");
    assert_eq!(tree.bytes(), 8);
}

#[test]
fn the_beginning_of_a_sequence_outlives_its_end() {
    let mut tree = PrefixTree::new(6);
    insert(&mut tree, &[1, 2]);
    insert(&mut tree, &[1, 2, 3, 4]);
    insert(&mut tree, &[1, 2, 5, 6, 7]);
    assert_eq!(tree.longest(&[1, 2, 3, 4]), 2);
    assert_eq!(restored(&mut tree, &[1, 2, 5, 6, 7]), [1, 2, 5, 6, 7]);
    tree.clear();
    assert_eq!((tree.bytes(), tree.longest(&[1, 2])), (0, 0));
}

#[test]
fn without_a_payload_nothing_is_kept_and_an_error_is_passed_on() {
    let mut tree: PrefixTree<Saved> = PrefixTree::new(6);
    tree.insert(&[1, 2], |_| Ok::<_, Infallible>(None)).unwrap();
    assert_eq!(tree.longest(&[1, 2]), 0);
    assert_eq!(tree.insert(&[1, 2], |_| Err("no memory")), Err("no memory"));
    assert_eq!(tree.longest(&[1, 2]), 0);
}

proptest! {
    #[test]
    fn every_kept_prefix_is_restored_token_by_token(
        sequences in prop::collection::vec(prop::collection::vec(0_u32..3, 1..12), 1..40),
        limit in 4_u64..60,
    ) {
        let mut bounded = PrefixTree::new(limit);
        let mut all = PrefixTree::new(u64::MAX);
        for (index, tokens) in sequences.iter().enumerate() {
            insert(&mut bounded, tokens);
            insert(&mut all, tokens);
            prop_assert!(bounded.bytes() <= limit);
            let held: u64 = bounded.payloads.values().map(|kept| kept.payload.bytes()).sum();
            prop_assert_eq!(bounded.bytes(), held);
            for wanted in &sequences {
                let same = |other: &Vec<u32>| wanted.iter().zip(other).take_while(|(a, b)| a == b).count();
                let expected = sequences[..=index].iter().map(same).max().unwrap();
                prop_assert_eq!(restored(&mut all, wanted), wanted[..expected].to_vec());
                let found = restored(&mut bounded, wanted);
                prop_assert!(found.len() <= expected);
                prop_assert_eq!(&found[..], &wanted[..found.len()]);
            }
        }
    }
}
