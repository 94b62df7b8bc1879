//! A prefix cache saves computation and changes no token.

use std::sync::atomic::AtomicUsize;

use super::*;

/// Generates with a cache, and counts the tokens that were computed.
struct Counted {
    generator: Generator,
    computed: Arc<AtomicUsize>,
    cache: PrefixCache,
}

impl Counted {
    fn new(mut model: FakeModel) -> Self {
        model.generation_config.eos_token_ids = vec![49];
        let computed = Arc::clone(&model.computed);
        Counted { generator: generator(model), computed, cache: PrefixCache::new() }
    }

    fn cached(&self, prompt: &[u32], options: &GenerationOptions) -> Request {
        request([prompt], options).with_prefix_cache(&self.cache)
    }

    /// The continuation, after it was compared with that of a fresh session, and the tokens it took to compute it.
    fn generate(&self, prompt: &[u32], options: &GenerationOptions) -> (Completion, usize) {
        let fresh = self.generator.run(request([prompt], options)).unwrap();
        let before = self.computed.load(Ordering::Relaxed);
        let cached = self.generator.run(self.cached(prompt, options)).unwrap();
        assert_eq!(cached.token_ids, fresh.token_ids);
        assert_eq!(cached.finish_reason, fresh.finish_reason);
        (cached, self.computed.load(Ordering::Relaxed) - before)
    }
}

fn without_end(max_new_tokens: usize) -> GenerationOptions {
    GenerationOptions { eos_token_ids: Some(vec![]), ..at_most(max_new_tokens) }
}

#[test]
fn the_next_turn_computes_only_what_is_new() {
    let counted = Counted::new(hashed());
    let options = without_end(4);
    let (first, computed) = counted.generate(&[5, 6, 7, 8], &options);
    assert_eq!((first.statistics.reused_tokens, computed), (0, 4 + 3));
    assert_eq!(counted.cache.token_ids(), [&[5, 6, 7, 8], &first.token_ids[..3]].concat());
    let turn = [&[5, 6, 7, 8][..], &first.token_ids, &[9, 10]].concat();
    let (second, computed) = counted.generate(&turn, &options);
    // the last token of the first answer was chosen and never read
    assert_eq!((second.statistics.reused_tokens, computed), (7, 1 + 2 + 3));
}

#[test]
fn a_prompt_that_begins_otherwise_is_computed_from_where_it_differs() {
    let counted = Counted::new(hashed());
    let options = without_end(2);
    counted.generate(&[5, 6, 7, 8], &options);
    let (other, computed) = counted.generate(&[5, 6, 3, 4, 1], &options);
    assert_eq!((other.statistics.reused_tokens, computed), (2, 3 + 1));
    let (unlike, computed) = counted.generate(&[9, 8], &options);
    assert_eq!((unlike.statistics.reused_tokens, computed), (0, 2 + 1));
}

#[test]
fn the_same_prompt_again_reads_its_last_token() {
    let counted = Counted::new(hashed());
    let options = without_end(2);
    counted.generate(&[5, 6, 7, 8], &options);
    let (again, computed) = counted.generate(&[5, 6, 7, 8], &options);
    assert_eq!((again.statistics.reused_tokens, computed), (3, 1 + 1));
    let (shorter, computed) = counted.generate(&[5, 6], &options);
    assert_eq!((shorter.statistics.reused_tokens, computed), (1, 1 + 1));
}

#[test]
fn drafts_that_were_wrong_are_not_kept() {
    let counted = Counted::new(hashed());
    let lookup = PromptLookup { draft_tokens: 5, ngram_tokens: 1 };
    let options = GenerationOptions { prompt_lookup: Some(lookup), ..without_end(12) };
    let mut prompt = vec![5, 6, 5, 6];
    for _ in 0..4 {
        let (generated, _) = counted.generate(&prompt, &options);
        let known = [prompt, generated.token_ids].concat();
        assert_eq!(counted.cache.token_ids(), known[..known.len() - 1]);
        prompt = [&known[..], &[5, 6]].concat();
    }
}

#[test]
fn cancelling_keeps_what_was_read() {
    let counted = Counted::new(hashed());
    let request = counted.cached(&[5, 6, 7], &without_end(9));
    let mut count = 0;
    let cancelled = counted.generator.for_each(request.clone(), |_| {
        count += 1;
        if count == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let cancelled = cancelled.unwrap().remove(0);
    assert_eq!(counted.cache.token_ids(), [5, 6, 7, cancelled.token_ids[0]]);
    counted.generate(&[5, 6, 7, cancelled.token_ids[0], 3], &without_end(3));

    let mut dropped = counted.generator.stream(request).unwrap();
    dropped.next().unwrap().unwrap();
    assert!(counted.cache.token_ids().is_empty(), "a generation has the session");
    drop(dropped);
    assert_eq!(counted.cache.token_ids(), [5, 6, 7]);
    counted.generate(&[5, 6, 7, cancelled.token_ids[0], 3], &without_end(3));
}

#[test]
fn another_model_does_not_take_what_it_did_not_compute() {
    let counted = Counted::new(hashed());
    counted.generate(&[5, 6, 7], &without_end(2));
    let mut other = Counted::new(FakeModel::new(|seen| fake::hashed(&[seen, &[1]].concat(), 50)));
    other.cache = counted.cache.clone();
    let (generated, _) = other.generate(&[5, 6, 7], &without_end(2));
    assert_eq!(generated.statistics.reused_tokens, 0);
}

#[test]
fn after_an_error_nothing_is_kept() {
    let mut model = hashed();
    model.fails_at = Some(30);
    let counted = Counted::new(model);
    counted.generate(&[5, 6, 7], &without_end(1));
    let result = counted.generator.run(counted.cached(&[5, 6, 30], &without_end(1)));
    assert!(matches!(result, Err(Error::Backend(_))), "{result:?}");
    assert!(counted.cache.token_ids().is_empty());
    counted.generate(&[5, 6, 7], &without_end(1));
    counted.cache.clear();
    assert!(counted.cache.token_ids().is_empty());
}
