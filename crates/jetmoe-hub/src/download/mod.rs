//! Download from the Hugging Face hub into the cache that all of its tools share.

mod cache;
mod failure;
mod http;
mod progress;
mod settings;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hf_hub::progress::Progress;
use hf_hub::repository::{RepoTreeEntry, RepoTypeModel};
use hf_hub::{HFClient, HFClientSync, HFError, HFRepositorySync};
use jetmoe_artifact::{Manifest, names as artifact_names};
use jetmoe_checkpoint::{WeightsIndex, names};

use self::cache::{Cache, needed_files};
use self::failure::Failure;
use self::http::HttpDownload;
use self::progress::ProgressTracker;
use self::settings::Settings;
use crate::{Content, Error, HubOptions, Result};

const DEFAULT_REVISION: &str = "main";
const USER_AGENT: &str = concat!("jetmoe/", env!("CARGO_PKG_VERSION"));

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
    /// Whether it comes from Xet storage; hf-hub reports the progress of all such files as one batch.
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
            return self.complete_snapshot(&cache).map_err(|missing| self.not_cached(missing));
        }
        self.download(&cache).or_else(|failure| match self.complete_snapshot(&cache) {
            Ok(folder) if failure.is_outage() => {
                tracing::warn!(model = self.id, %failure, "the hub cannot be reached; using the copy in the cache");
                Ok(folder)
            }
            _ => Err(failure.explain(self)),
        })
    }

    fn complete_snapshot(&self, cache: &Cache) -> Result<PathBuf> {
        cache.complete_snapshot(self.revision, self.settings.content)
    }

    fn download(&self, cache: &Cache) -> Result<PathBuf, Failure> {
        let repository = self.repository()?;
        let commit = repository
            .info()
            .revision(self.revision)
            .send()?
            .sha
            .ok_or_else(|| HFError::malformed_response("the commit of the revision"))?;
        let listing = self.list(&repository, &commit)?;
        let folder = cache.snapshot(&commit);
        let download =
            Download { request: self, cache, repository: &repository, commit: &commit, listing: &listing };
        let wanted = match self.settings.content {
            Content::Any if listing.contains_key(artifact_names::MANIFEST) => download.artifact(&folder)?,
            Content::Any | Content::Checkpoint => download.checkpoint(&folder)?,
        };
        let missing: BTreeMap<String, RepoFile> = wanted
            .iter()
            .filter(|name| !folder.join(name).exists())
            .map(|name| (name.clone(), listing[name]))
            .collect();
        if !missing.is_empty() {
            let observer = self.settings.observer.clone();
            let progress = observer.map(|observer| Arc::new(ProgressTracker::new(observer, missing.clone())));
            download.transfer(&missing, progress)?;
        }
        for name in &wanted {
            self.verify(&folder.join(name), listing[name])?;
        }
        // last, so that no ref names an incomplete snapshot; the snapshot is complete without it
        if let Err(error) = cache.write_ref(self.revision, &commit) {
            tracing::debug!(model = self.id, %error, "the commit of the revision is not recorded in the cache");
        }
        Ok(folder)
    }

    fn repository(&self) -> Result<HFRepositorySync<RepoTypeModel>, Failure> {
        let mut builder = HFClient::builder()
            .endpoint(&self.settings.endpoint)
            .cache_dir(&self.settings.cache_dir)
            .user_agent(USER_AGENT)
            .retry_base_delay(self.settings.retry_delay);
        if let Some(token) = &self.settings.token {
            builder = builder.token(token);
        }
        let client = HFClientSync::from_inner(builder.build()?)?;
        let (owner, name) = hf_hub::split_id(self.id);
        Ok(client.model(owner, name))
    }

    /// The files of a commit.
    fn list(&self, repository: &HFRepositorySync<RepoTypeModel>, commit: &str) -> Result<Listing, HFError> {
        let entries = repository.list_tree().revision(commit).recursive(true).send()?;
        Ok(entries
            .into_iter()
            .filter_map(|entry| match entry {
                RepoTreeEntry::File { path, size, xet_hash, .. } => {
                    let is_xet = xet_hash.is_some() && !self.settings.disable_xet;
                    Some((path, RepoFile { bytes: size, is_xet }))
                }
                RepoTreeEntry::Directory { .. } => None,
            })
            .collect())
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
        Err(Failure::wrong_size(&name, found, listed.bytes))
    }

    fn missing_config(&self, listing: &Listing) -> Failure {
        if listing.contains_key(names::ADAPTER_CONFIG) {
            return Failure::Refused {
                message: format!("it is an adapter ({}), not a model", names::ADAPTER_CONFIG),
                advice: "merge it: load it with the model that it is for in PEFT, then \
                         merge_and_unload().save_pretrained(FOLDER), and give FOLDER"
                    .to_owned(),
            };
        }
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

    fn not_cached(&self, missing: Error) -> Error {
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

/// Files of a repository by their paths.
type Listing = BTreeMap<String, RepoFile>;

/// A download from one commit.
struct Download<'a> {
    request: &'a Request<'a>,
    cache: &'a Cache,
    repository: &'a HFRepositorySync<RepoTypeModel>,
    commit: &'a str,
    listing: &'a Listing,
}

impl Download<'_> {
    /// The files of an artifact: those that its manifest names. `folder` is the snapshot.
    fn artifact(&self, folder: &Path) -> Result<Vec<String>, Failure> {
        self.fetch(artifact_names::MANIFEST, folder)?;
        let manifest = Manifest::read(folder).map_err(|error| Failure::Files(error.into()))?;
        let needed = needed_files(&manifest);
        if let Some(absent) = needed.into_iter().find(|file| !self.listing.contains_key(*file)) {
            return Err(incomplete(artifact_names::MANIFEST, absent));
        }
        let named = manifest.all_files().map(|file| file.path.as_str());
        let files = named.filter(|file| self.listing.contains_key(*file)).chain([artifact_names::MANIFEST]);
        Ok(files.map(str::to_owned).collect())
    }

    /// The files of a checkpoint. `folder` is the snapshot.
    fn checkpoint(&self, folder: &Path) -> Result<Vec<String>, Failure> {
        if !self.listing.contains_key(names::CONFIG) {
            return Err(self.request.missing_config(self.listing));
        }
        let fixed = [names::CONFIG, names::GENERATION_CONFIG].into_iter().chain(names::TOKENIZER_FILES);
        let is_small = |name: &&String| {
            fixed.clone().any(|known| known == *name) || names::additional_chat_template(name).is_some()
        };
        let mut wanted: Vec<String> = self.listing.keys().filter(is_small).cloned().collect();
        if self.listing.contains_key(names::WEIGHTS) {
            wanted.push(names::WEIGHTS.to_owned());
        } else if self.listing.contains_key(names::WEIGHTS_INDEX) {
            self.fetch(names::WEIGHTS_INDEX, folder)?;
            let index = WeightsIndex::read(&folder.join(names::WEIGHTS_INDEX));
            let index = index.map_err(|error| Failure::Files(error.into()))?;
            if let Some(absent) = index.shards().find(|shard| !self.listing.contains_key(*shard)) {
                return Err(incomplete(names::WEIGHTS_INDEX, absent));
            }
            wanted.push(names::WEIGHTS_INDEX.to_owned());
            wanted.extend(index.shards().map(str::to_owned));
        } else {
            return Err(self.request.missing_safetensors(self.listing.keys()));
        }
        Ok(wanted)
    }

    /// Downloads one file, unless the snapshot has it: nothing is written to a complete cache.
    fn fetch(&self, name: &str, folder: &Path) -> Result<(), Failure> {
        let path = folder.join(name);
        let listed = self.listing[name];
        if !path.exists() {
            if self.request.settings.disable_xet {
                self.transfer(&BTreeMap::from([(name.to_owned(), listed)]), None)?;
            } else {
                self.repository.download_file().filename(name).revision(self.commit).send()?;
            }
        }
        self.request.verify(&path, listed)
    }

    /// Downloads files that the snapshot does not have.
    fn transfer(
        &self,
        files: &BTreeMap<String, RepoFile>,
        progress: Option<Arc<ProgressTracker>>,
    ) -> Result<(), Failure> {
        if self.request.settings.disable_xet {
            return HttpDownload::new(self.request, self.cache, self.commit, progress)?.run(files);
        }
        self.repository
            .snapshot_download()
            .revision(self.commit)
            .allow_patterns(files.keys().map(|name| literal_pattern(name)).collect())
            .maybe_progress(progress.map(Progress::from))
            .send()?;
        Ok(())
    }
}

/// A file that another one names is missing.
fn incomplete(naming: &str, absent: &str) -> Failure {
    Failure::Refused {
        message: format!("its {naming} names {absent}, which the repository does not have"),
        advice: "this revision is incomplete; try another one".to_owned(),
    }
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
