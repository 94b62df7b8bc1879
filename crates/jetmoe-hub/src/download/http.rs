//! Download of files over plain HTTP into the cache, for `HF_HUB_DISABLE_XET`: hf-hub 1.0 has no such setting, and uses Xet
//! for every file that the hub offers by it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Seek, Write};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use hf_hub::HFError;
use hf_hub::progress::{DownloadEvent, FileProgress, FileStatus, ProgressHandler};
use reqwest::header::{ETAG, HeaderMap, LOCATION, RANGE};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode, Url};

use super::cache::Cache;
use super::failure::{ErrorResponse, Failure};
use super::progress::ProgressTracker;
use super::{RepoFile, Request, USER_AGENT};

/// The hub redirects downloads to another server, which has the file's content only.
const LINKED_ETAG: &str = "x-linked-etag";
const ERROR_CODE: &str = "x-error-code";
const ERROR_MESSAGE: &str = "x-error-message";

const MAX_REDIRECTS: u32 = 10;
/// Retries of a request, and of a transfer that gets no further. As many as hf-hub's.
const MAX_RETRIES: u32 = 5;
/// Longest time without a byte.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// A download from one commit.
pub(super) struct HttpDownload<'a> {
    request: &'a Request<'a>,
    cache: &'a Cache,
    commit: &'a str,
    progress: Option<Arc<ProgressTracker>>,
    token: Option<String>,
    client: Client,
}

impl<'a> HttpDownload<'a> {
    pub(super) fn new(
        request: &'a Request<'a>,
        cache: &'a Cache,
        commit: &'a str,
        progress: Option<Arc<ProgressTracker>>,
    ) -> Result<Self, Failure> {
        let client = Client::builder()
            .user_agent(USER_AGENT)
            .redirect(Policy::none())
            .read_timeout(READ_TIMEOUT)
            .build()?;
        Ok(HttpDownload { request, cache, commit, progress, token: request.settings.bearer_token(), client })
    }

    /// Downloads files, one after the other, and adds them to the snapshot of the commit.
    pub(super) fn run(&self, files: &BTreeMap<String, RepoFile>) -> Result<(), Failure> {
        // in a thread of its own: the caller's may be one of an asynchronous runtime, which must not start another one
        thread::scope(|scope| {
            let download = scope.spawn(|| self.download(files));
            download.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    fn download(&self, files: &BTreeMap<String, RepoFile>) -> Result<(), Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        for (name, listed) in files {
            runtime.block_on(self.download_file(name, listed.bytes))?;
        }
        if let Some(progress) = &self.progress {
            progress.on_progress(&DownloadEvent::Complete.into());
        }
        Ok(())
    }

    /// Downloads a file of `size` bytes, unless the cache has its content from another commit.
    async fn download_file(&self, name: &str, size: u64) -> Result<(), Failure> {
        let (etag, response) = self.open(name, 0).await?;
        let blob = self.cache.blob(&etag);
        if !blob.exists() {
            let _lock = self.cache.lock(&etag)?;
            // the process that had the lock may have downloaded it
            if !blob.exists() {
                let incomplete = self.cache.blob(&format!("{etag}.incomplete"));
                if let Some(folder) = incomplete.parent() {
                    fs::create_dir_all(folder)?;
                }
                if let Err(failure) = self.receive(name, size, response, &incomplete).await {
                    let _ = fs::remove_file(&incomplete);
                    return Err(failure);
                }
                fs::rename(&incomplete, &blob)?;
            }
        }
        self.cache.add_to_snapshot(self.commit, name, &etag)?;
        self.report(name, size, size, FileStatus::Complete);
        Ok(())
    }

    /// Writes the content of a file, and continues where the connection was lost.
    async fn receive(
        &self,
        name: &str,
        size: u64,
        mut response: Response,
        path: &Path,
    ) -> Result<(), Failure> {
        let mut file = File::create(path)?;
        let (mut received, mut longest, mut retries) = (0, 0, 0);
        self.report(name, received, size, FileStatus::Started);
        loop {
            let lost = loop {
                match response.chunk().await {
                    Ok(Some(bytes)) => {
                        received += bytes.len() as u64;
                        if received > size {
                            return Err(Failure::wrong_size(name, received, size));
                        }
                        file.write_all(&bytes)?;
                        self.report(name, received, size, FileStatus::InProgress);
                    }
                    Ok(None) | Err(_) if received == size => return Ok(()),
                    Ok(None) => return Err(Failure::wrong_size(name, received, size)),
                    Err(error) => break error,
                }
            };
            if received > longest {
                (longest, retries) = (received, 0);
            }
            if retries == MAX_RETRIES {
                return Err(lost.into());
            }
            tracing::debug!(name, received, error = %lost, "the connection was lost; continuing");
            self.delay(retries).await;
            retries += 1;
            (_, response) = self.open(name, received).await?;
            if response.status() != StatusCode::PARTIAL_CONTENT {
                file.set_len(0)?;
                file.rewind()?;
                received = 0;
            }
        }
    }

    /// Requests a file from byte `start` on. Returns its ETag and the response.
    async fn open(&self, name: &str, start: u64) -> Result<(String, Response), Failure> {
        for retry in 0..MAX_RETRIES {
            match self.send(name, start).await {
                Err(failure) if failure.is_transient() => {
                    tracing::debug!(name, %failure, "retrying the request");
                    self.delay(retry).await;
                }
                result => return result,
            }
        }
        self.send(name, start).await
    }

    /// Sends one request, and follows its redirects.
    async fn send(&self, name: &str, start: u64) -> Result<(String, Response), Failure> {
        let file_url = self.file_url(name)?;
        let mut url = file_url.clone();
        let mut etag = None;
        for _ in 0..=MAX_REDIRECTS {
            let is_hub = url.origin() == file_url.origin();
            let mut request = self.client.get(url.clone());
            if is_hub && let Some(token) = &self.token {
                request = request.bearer_auth(token);
            }
            if start > 0 {
                request = request.header(RANGE, format!("bytes={start}-"));
            }
            let response = request.send().await?;
            // the hub's counts, not that of a server it redirects to
            etag = etag.or_else(|| find_etag(response.headers()));
            let status = response.status();
            if status.is_redirection() {
                url = redirect(&url, response.headers())?;
            } else if status.is_success() {
                let etag = etag.ok_or_else(|| HFError::malformed_response_at("a valid ETag", url))?;
                return Ok((etag, response));
            } else if status == StatusCode::NOT_FOUND && is_hub {
                let (path, repo_id) = (name.to_owned(), self.request.id.to_owned());
                return Err(HFError::EntryNotFound { path, repo_id, context: None }.into());
            } else {
                return Err(Failure::Response(error_response(&response, !is_hub)));
            }
        }
        Err(HFError::malformed_response_at("the end of its redirects", file_url).into())
    }

    fn file_url(&self, name: &str) -> Result<Url, HFError> {
        let Request { id, settings, .. } = self.request;
        let base = format!("{}/{id}/resolve/{}", settings.endpoint, self.commit);
        let mut url = Url::parse(&base)?;
        url.path_segments_mut().map_err(|()| HFError::InvalidParameter(base))?.extend(name.split('/'));
        Ok(url)
    }

    async fn delay(&self, retry: u32) {
        tokio::time::sleep(self.request.settings.retry_delay * 2_u32.pow(retry + 1)).await;
    }

    fn report(&self, name: &str, bytes_completed: u64, total_bytes: u64, status: FileStatus) {
        if let Some(progress) = &self.progress {
            let file = FileProgress { filename: name.to_owned(), bytes_completed, total_bytes, status };
            progress.on_progress(&DownloadEvent::Progress { files: vec![file] }.into());
        }
    }
}

/// The ETag of a file, by which the cache names its content.
fn find_etag(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(LINKED_ETAG).or_else(|| headers.get(ETAG))?.to_str().ok()?;
    let etag = text.trim_start_matches("W/").trim_matches('"');
    // it becomes part of a path in the cache, so it must not escape from it
    let is_file_name = !etag.is_empty() && !etag.starts_with('.') && !etag.contains(['/', '\\', ':']);
    is_file_name.then(|| etag.to_owned())
}

fn redirect(url: &Url, headers: &HeaderMap) -> Result<Url, HFError> {
    let location = headers.get(LOCATION).and_then(|location| location.to_str().ok());
    let target = location.and_then(|location| url.join(location).ok());
    target.ok_or_else(|| HFError::malformed_response_at("a valid Location", url.clone()))
}

fn error_response(response: &Response, is_redirected: bool) -> ErrorResponse {
    let header = |name: &str| Some(response.headers().get(name)?.to_str().ok()?.to_owned());
    let mut url = response.url().clone();
    // may hold a signature
    url.set_query(None);
    ErrorResponse {
        status: response.status().as_u16(),
        code: header(ERROR_CODE),
        message: header(ERROR_MESSAGE),
        url: url.into(),
        is_redirected,
    }
}
