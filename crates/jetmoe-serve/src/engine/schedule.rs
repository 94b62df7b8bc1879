//! The policy of a step and of an admission, without a model: what a step reads, and which slot a prompt takes.

use std::cmp::Reverse;

/// A sequence that has a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reader {
    pub(super) slot: usize,
    /// Its number in the order of admission.
    pub(super) admitted: u64,
    /// Tokens that its slot does not hold yet, at least 1.
    pub(super) unread: usize,
}

/// What a step reads of a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Portion {
    pub(super) slot: usize,
    /// Its next tokens, at least 1.
    pub(super) tokens: usize,
}

/// The portions of a step. Every sequence with one unread token reads it. The others share at most `chunk` tokens, the one that was
/// admitted first before the others, so a long prompt delays the rest by one chunk at most.
pub(super) fn plan(readers: &[Reader], chunk: usize) -> Vec<Portion> {
    let mut portions: Vec<Portion> = Vec::with_capacity(readers.len());
    let next = readers.iter().filter(|reader| reader.unread == 1);
    portions.extend(next.map(|reader| Portion { slot: reader.slot, tokens: 1 }));
    let mut prompts: Vec<&Reader> = readers.iter().filter(|reader| reader.unread > 1).collect();
    prompts.sort_by_key(|reader| reader.admitted);
    let mut left = chunk;
    for reader in prompts {
        let tokens = reader.unread.min(left);
        if tokens == 0 {
            break;
        }
        left -= tokens;
        portions.push(Portion { slot: reader.slot, tokens });
    }
    portions
}

/// A slot without a sequence. It still holds the tokens of its last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FreeSlot {
    pub(super) slot: usize,
    /// How many tokens it holds that are also the first of the prompt.
    pub(super) common: usize,
    /// When it became free: a number that grows with time, 0 for a slot that was never used.
    pub(super) freed: u64,
}

/// A slot's own tokens are reused from this share of the prompt on, its reciprocal. With less, as the begin-of-sequence token
/// alone, the prompt goes where the tokens have not been used for the longest time.
const LEAST_SHARE: usize = 10;

/// Chooses a slot for a prompt of `length` tokens, of which `kept` are kept outside of the slots: the slot that holds most of it,
/// or the one that was not used for the longest time. `None` without a free slot.
pub(super) fn choose_slot(free: &[FreeSlot], length: usize, kept: usize) -> Option<usize> {
    let oldest = free.iter().min_by_key(|slot| (slot.freed, slot.slot))?;
    let most = free.iter().max_by_key(|slot| (slot.common, Reverse(slot.freed)))?;
    let is_worthwhile =
        most.common > 0 && most.common.saturating_mul(LEAST_SHARE) >= length && most.common >= kept;
    Some(if is_worthwhile { most.slot } else { oldest.slot })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reader(slot: usize, admitted: u64, unread: usize) -> Reader {
        Reader { slot, admitted, unread }
    }

    fn portions(plan: &[Portion]) -> Vec<(usize, usize)> {
        plan.iter().map(|portion| (portion.slot, portion.tokens)).collect()
    }

    #[test]
    fn a_long_prompt_reads_a_chunk_while_the_others_read_their_next_token() {
        let readers = [reader(0, 0, 1), reader(1, 2, 5000), reader(2, 1, 1)];
        assert_eq!(portions(&plan(&readers, 64)), [(0, 1), (2, 1), (1, 64)]);
    }

    #[test]
    fn prompts_share_a_chunk_and_the_oldest_is_first() {
        let readers = [reader(0, 7, 50), reader(1, 3, 40), reader(2, 9, 10)];
        assert_eq!(portions(&plan(&readers, 64)), [(1, 40), (0, 24)]);
        assert_eq!(portions(&plan(&readers, 1)), [(1, 1)]);
    }

    proptest! {
        #[test]
        fn nobody_waits_longer_than_the_prompts_before_it(
            unread in prop::collection::vec(1_usize..400, 1..9),
            chunk in 1_usize..128,
        ) {
            let mut readers: Vec<Reader> =
                unread.iter().enumerate().map(|(slot, unread)| reader(slot, slot as u64, *unread)).collect();
            let bound = unread.iter().sum::<usize>().div_ceil(chunk) + unread.len();
            let mut steps = 0;
            while !readers.is_empty() {
                let plan = plan(&readers, chunk);
                prop_assert!(!plan.is_empty());
                let next = readers.iter().filter(|reader| reader.unread == 1).count();
                prop_assert_eq!(plan.iter().filter(|portion| portion.tokens == 1).count() >= next, true);
                let long = plan.iter().skip(next).map(|portion| portion.tokens).sum::<usize>();
                prop_assert!(long <= chunk);
                for portion in plan {
                    let reader = readers.iter_mut().find(|reader| reader.slot == portion.slot).unwrap();
                    reader.unread -= portion.tokens;
                }
                readers.retain(|reader| reader.unread > 0);
                steps += 1;
                prop_assert!(steps <= bound, "{steps} steps of at most {bound}");
            }
        }
    }

    fn free(slots: &[(usize, usize, u64)]) -> Vec<FreeSlot> {
        slots
            .iter()
            .map(|(slot, common, freed)| FreeSlot { slot: *slot, common: *common, freed: *freed })
            .collect()
    }

    #[test]
    fn a_prompt_goes_where_most_of_it_is() {
        let slots = free(&[(0, 3, 5), (1, 80, 9), (2, 80, 2), (3, 0, 0)]);
        assert_eq!(choose_slot(&slots, 100, 0), Some(2));
        assert_eq!(choose_slot(&slots, 100, 80), Some(2));
        assert_eq!(choose_slot(&slots, 100, 81), Some(3));
        assert_eq!(choose_slot(&[], 100, 81), None);
    }

    #[test]
    fn a_common_first_token_costs_no_other_conversation_its_slot() {
        let slots = free(&[(0, 1, 9), (1, 0, 4), (2, 0, 6)]);
        assert_eq!(choose_slot(&slots, 100, 0), Some(1));
        assert_eq!(choose_slot(&slots, 10, 0), Some(0));
    }
}
