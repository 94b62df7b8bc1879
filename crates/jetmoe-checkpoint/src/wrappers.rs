//! Names of tensors that were saved from inside a wrapper: a compiled, parallel or adapted model.

use std::collections::BTreeSet;

use crate::names;

/// Parts of a name that a wrapper adds anywhere: `torch.compile`, FSDP, activation checkpointing.
const ANYWHERE: [&str; 3] = ["_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module."];

/// Parts that a wrapper adds in front: PEFT, data parallelism.
const IN_FRONT: [&str; 3] = ["base_model.model.", "base_model.", "module."];

/// The name without what wrappers add.
pub(crate) fn unwrapped(name: &str) -> String {
    let mut name = name.to_owned();
    for part in ANYWHERE {
        name = name.replace(part, "");
    }
    while let Some(rest) = IN_FRONT.iter().find_map(|part| name.strip_prefix(part)) {
        name = rest.to_owned();
    }
    name
}

/// The first name that a wrapper changed, if every name stays unique without what wrappers add and the embedding gets its
/// own name by it.
pub(crate) fn first_wrapped<'a>(tensors: impl Iterator<Item = &'a str> + Clone) -> Option<&'a str> {
    let first = tensors.clone().find(|name| unwrapped(name) != *name)?;
    let count = tensors.clone().count();
    let unwrapped: BTreeSet<String> = tensors.map(unwrapped).collect();
    let bare = names::EMBEDDING.strip_prefix("model.").unwrap_or(names::EMBEDDING);
    let has_embedding = [names::EMBEDDING, bare, names::LM_HEAD].iter().any(|name| unwrapped.contains(*name));
    (unwrapped.len() == count && has_embedding).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::{first_wrapped, unwrapped};

    #[test]
    fn wrappers_leave_the_name_inside() {
        for wrapped in [
            "_orig_mod.model.norm.weight",
            "module.model.norm.weight",
            "module._orig_mod.model.norm.weight",
            "_orig_mod.module.model.norm.weight",
            "base_model.model.model.norm.weight",
            "_fsdp_wrapped_module.model._fsdp_wrapped_module.norm.weight",
            "model.norm._checkpoint_wrapped_module.weight",
        ] {
            assert_eq!(unwrapped(wrapped), "model.norm.weight", "{wrapped}");
        }
        assert_eq!(unwrapped("model.norm.weight"), "model.norm.weight");
    }

    #[test]
    fn names_that_would_meet_stay_as_they_are() {
        let names = ["module.model.embed_tokens.weight", "module.lm_head.weight"];
        assert_eq!(first_wrapped(names.into_iter()), Some(names[0]));
        let twice = ["module.model.embed_tokens.weight", "model.embed_tokens.weight"];
        assert_eq!(first_wrapped(twice.into_iter()), None);
        assert_eq!(first_wrapped(["module.somebody.else"].into_iter()), None);
    }
}
