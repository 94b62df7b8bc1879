//! Download from the Hugging Face hub into the cache that all of its tools share.

mod cache;
mod failure;
#[cfg(test)]
mod mock;
mod progress;
mod settings;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hf_hub::progress::Progress;
use hf_hub::repository::{RepoTreeEntry, RepoTypeModel};
use hf_hub::{HFClient, HFClientSync, HFError, HFRepositorySync};
use jetmoe_checkpoint::{WeightsIndex, names};

use self::cache::Cache;
use self::failure::Failure;
use self::progress::ProgressTracker;
use self::settings::Settings;
use crate::{Error, HubOptions, Result};

const DEFAULT_REVISION: &str = "main";

/// Files of a checkpoint other than its weights; only the configuration must exist.
const SMALL_FILES: [&str; 8] = [
    names::CONFIG,
    names::GENERATION_CONFIG,
    names::TOKENIZER,
    names::TOKENIZER_CONFIG,
    names::SPECIAL_TOKENS_MAP,
    names::ADDED_TOKENS,
    names::CHAT_TEMPLATE,
    names::CHAT_TEMPLATE_JSON,
];

/// One model to download.
struct Request<'a> {
    /// `owner/name`.
    id: &'a str,
    revision: &'a str,
    settings: &'a Settings,
}

/// A file of the repository, as the hub lists it.
#[derive(Debug, Clone, Copy)]
struct RepoFile {
    bytes: u64,
    /// Whether it is in Xet storage; hf-hub reports the progress of all such files as one batch.
    is_xet: bool,
}

pub(crate) fn download(id: &str, options: &HubOptions) -> Result<PathBuf> {
    let settings = Settings::new(options, &|name| std::env::var(name).ok());
    let revision = options.revision.as_deref().unwrap_or(DEFAULT_REVISION);
    Request { id, revision, settings: &settings }.folder()
}

impl Request<'_> {
    /// The folder with the model's files. Without a network, a complete copy in the cache is used.
    fn folder(&self) -> Result<PathBuf> {
        if !is_revision(self.revision) {
            return Err(Failure::Refused {
                message: format!("{:?} is not a branch, tag or commit", self.revision),
                advice: "check the revision".to_owned(),
            }
            .explain(self));
        }
        let cache = Cache::new(&self.settings.cache_dir, self.id);
        if self.settings.offline {
            return cache.complete_snapshot(self.revision).map_err(|missing| self.not_cached(missing));
        }
        self.download(&cache).or_else(|failure| match cache.complete_snapshot(self.revision) {
            Ok(folder) if failure.is_outage() => {
                tracing::warn!(model = self.id, %failure, "the hub cannot be reached; using the copy in the cache");
                Ok(folder)
            }
            _ => Err(failure.explain(self)),
        })
    }

    fn download(&self, cache: &Cache) -> Result<PathBuf, Failure> {
        let repository = self.repository()?;
        let commit = repository
            .info()
            .revision(self.revision)
            .send()?
            .sha
            .ok_or_else(|| HFError::malformed_response("the commit of the revision"))?;
        let listing = list(&repository, &commit)?;
        let mut wanted: Vec<&str> =
            SMALL_FILES.into_iter().filter(|name| listing.contains_key(*name)).collect();
        wanted.extend(listing.keys().map(String::as_str).filter(|name| is_chat_template(name)));
        if !listing.contains_key(names::CONFIG) {
            return Err(self.missing_config());
        }
        let index;
        if listing.contains_key(names::WEIGHTS) {
            wanted.push(names::WEIGHTS);
        } else if listing.contains_key(names::WEIGHTS_INDEX) {
            let path = repository.download_file().filename(names::WEIGHTS_INDEX).revision(&commit).send()?;
            self.verify(&path, listing[names::WEIGHTS_INDEX])?;
            index = WeightsIndex::read(&path).map_err(Failure::Files)?;
            if let Some(absent) = index.shards().find(|shard| !listing.contains_key(*shard)) {
                return Err(Failure::Refused {
                    message: format!(
                        "its {} names {absent}, which the repository does not have",
                        names::WEIGHTS_INDEX
                    ),
                    advice: "this revision is incomplete; try another one".to_owned(),
                });
            }
            wanted.push(names::WEIGHTS_INDEX);
            wanted.extend(index.shards());
        } else {
            return Err(self.missing_safetensors(listing.keys()));
        }

        let folder = cache.snapshot(&commit);
        let missing: BTreeMap<String, RepoFile> = wanted
            .iter()
            .filter(|name| !folder.join(name).exists())
            .map(|name| ((*name).to_owned(), listing[*name]))
            .collect();
        if !missing.is_empty() {
            let observer = self.settings.observer.clone();
            let progress =
                observer.map(|observer| Progress::new(ProgressTracker::new(observer, missing.clone())));
            repository
                .snapshot_download()
                .revision(&commit)
                .allow_patterns(missing.keys().map(|name| literal_pattern(name)).collect())
                .maybe_progress(progress)
                .send()?;
        }
        for name in &wanted {
            self.verify(&folder.join(name), listing[*name])?;
        }
        // last, so that no ref names an incomplete snapshot
        cache.write_ref(self.revision, &commit).map_err(HFError::Io)?;
        Ok(folder)
    }

    fn repository(&self) -> Result<HFRepositorySync<RepoTypeModel>, Failure> {
        let mut builder = HFClient::builder()
            .endpoint(&self.settings.endpoint)
            .cache_dir(&self.settings.cache_dir)
            .user_agent(concat!("jetmoe/", env!("CARGO_PKG_VERSION")))
            .retry_base_delay(self.settings.retry_delay);
        if let Some(token) = &self.settings.token {
            builder = builder.token(token);
        }
        let client = HFClientSync::from_inner(builder.build()?)?;
        let (owner, name) = hf_hub::split_id(self.id);
        Ok(client.model(owner, name))
    }

    /// hf-hub 1.0 ignores the HTTP status of a download and stores an error page as the file. Compares the size, and
    /// removes a file of another size.
    fn verify(&self, file: &Path, listed: RepoFile) -> Result<(), Failure> {
        let found = std::fs::metadata(file).map_or(0, |metadata| metadata.len());
        if found == listed.bytes {
            return Ok(());
        }
        if let Ok(blob) = std::fs::canonicalize(file) {
            let _ = std::fs::remove_file(blob);
        }
        let _ = std::fs::remove_file(file);
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        Err(Failure::Refused {
            message: format!("{name} arrived with {found} bytes instead of {}", listed.bytes),
            advice: "it was removed; download again; complete files are kept".to_owned(),
        })
    }

    fn missing_config(&self) -> Failure {
        Failure::Refused {
            message: format!("it has no {}, so it is not a transformers model", names::CONFIG),
            advice: format!("see its files: {}", self.page()),
        }
    }

    fn missing_safetensors<'n>(&self, mut files: impl Iterator<Item = &'n String>) -> Failure {
        const PICKLES: [&str; 4] = [".bin", ".pt", ".pth", ".ckpt"];
        let pickle = files.find(|name| PICKLES.iter().any(|suffix| name.ends_with(suffix)));
        match pickle {
            Some(pickle) => Failure::Refused {
                message: format!(
                    "its weights are pickles only ({pickle}); pickles can execute code and are not supported"
                ),
                advice: format!(
                    "convert them: AutoModelForCausalLM.from_pretrained({:?}).save_pretrained(FOLDER) in transformers, \
                     and give FOLDER",
                    self.id
                ),
            },
            None => Failure::Refused {
                message: format!("it has neither {} nor {}", names::WEIGHTS, names::WEIGHTS_INDEX),
                advice: format!("see its files: {}", self.page()),
            },
        }
    }

    fn not_cached(&self, missing: jetmoe_checkpoint::Error) -> Error {
        Error::Download {
            id: self.id.to_owned(),
            message: format!("HF_HUB_OFFLINE is set, and the cache has no complete copy: {missing}"),
            advice:
                "unset HF_HUB_OFFLINE to download it, set HF_HUB_CACHE to the cache that holds it, or give a \
                     folder"
                    .to_owned(),
            source: Some(Box::new(missing)),
        }
    }

    /// Web page of the model.
    fn page(&self) -> String {
        format!("{}/{}/tree/{}", self.settings.endpoint, self.id, self.revision)
    }
}

fn list(
    repository: &HFRepositorySync<RepoTypeModel>,
    commit: &str,
) -> Result<BTreeMap<String, RepoFile>, HFError> {
    let mut entries = repository.list_tree().revision(commit).send()?;
    let is_templates = |entry: &RepoTreeEntry| matches!(entry, RepoTreeEntry::Directory { path, .. } if path == names::ADDITIONAL_CHAT_TEMPLATES);
    if entries.iter().any(is_templates) {
        let folder = names::ADDITIONAL_CHAT_TEMPLATES;
        entries.extend(repository.list_tree().revision(commit).path_in_repo(folder).send()?);
    }
    Ok(entries
        .into_iter()
        .filter_map(|entry| match entry {
            RepoTreeEntry::File { path, size, xet_hash, .. } => {
                Some((path, RepoFile { bytes: size, is_xet: xet_hash.is_some() }))
            }
            RepoTreeEntry::Directory { .. } => None,
        })
        .collect())
}

/// Whether a file is one of the further chat templates.
fn is_chat_template(name: &str) -> bool {
    name.strip_prefix(names::ADDITIONAL_CHAT_TEMPLATES)
        .and_then(|name| name.strip_prefix('/'))
        .is_some_and(|name| name.ends_with(".jinja") && !name.contains('/'))
}

/// A revision becomes part of a path in the cache, so it must not escape from it.
fn is_revision(revision: &str) -> bool {
    !revision.is_empty()
        && !revision.contains('\\')
        && revision.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// A glob pattern that matches one file name only.
fn literal_pattern(name: &str) -> String {
    name.chars()
        .map(|letter| if "*?[]{}!\\".contains(letter) { format!("[{letter}]") } else { letter.to_string() })
        .collect()
}
