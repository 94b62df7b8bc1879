//! Selects the graph of an artifact that a backend loads.

use std::cmp::Reverse;

use jetmoe_artifact::{Artifact, GraphRecord};
use jetmoe_backend::{Backend, LoadOptions, Support};

use crate::{Error, Result};

/// The graph of an artifact that a backend loads with these options: of the most exact precision that it supports, the one
/// that it prefers.
///
/// # Errors
/// A graph that the artifact does not have, or [`Error::Unsupported`].
pub fn choose_graph<'a>(
    artifact: &'a Artifact,
    backend: &dyn Backend,
    options: &LoadOptions,
) -> Result<&'a GraphRecord> {
    // a missing graph is reported as missing, whatever the backend supports
    let wanted = artifact.graph(options.precision, options.profile)?;
    let is_wanted = |graph: &&GraphRecord| {
        options.precision.is_none_or(|precision| precision == graph.precision)
            && options.profile.is_none_or(|profile| profile == graph.profile)
    };
    let graphs = artifact.manifest().graphs.iter().filter(is_wanted);
    let supported = graphs.filter_map(|graph| match backend.supports(graph, options) {
        Support::Yes { preference } => Some((graph, preference)),
        Support::No { .. } => None,
    });
    let chosen = supported.min_by_key(|(graph, preference)| (graph.precision, Reverse(*preference)));
    match (chosen, backend.supports(wanted, options)) {
        (Some((graph, _)), _) => Ok(graph),
        (None, Support::No { reason }) => Err(Error::Unsupported {
            backend: backend.name(),
            precision: wanted.precision,
            profile: wanted.profile,
            reason,
        }),
        (None, Support::Yes { .. }) => Ok(wanted),
    }
}
