//! A local hub with one model. It serves the requests of a download and records them.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use serde_json::json;

use crate::files;

/// The hub id of the model.
pub const ID: &str = "jetmoe/jetmoe-mini";
/// The commit that `main` and the other revisions name.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// A later commit, which `main` names if there are [`Contents::later_files`].
pub const LATER_COMMIT: &str = "89abcdef0123456789abcdef0123456789abcdef";

/// An error response: status, `X-Error-Code`, `X-Error-Message`.
pub type Refusal = (u16, &'static str, &'static str);

/// What is wrong with the download of a file.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// The download is refused; the HEAD request is not.
    Refused(Refusal),
    /// Every response ends after half of its bytes.
    Truncated,
    /// The response ends after half of its bytes, but the other half can be requested.
    Interrupted,
}

/// Files of the model, and how the hub responds.
#[derive(Debug, Clone, Default)]
pub struct Contents {
    /// Content of the files of [`COMMIT`] by their paths.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Content of the files of [`LATER_COMMIT`]; there is no such commit if empty.
    pub later_files: BTreeMap<String, Vec<u8>>,
    /// Branches and tags of [`COMMIT`] other than `main`.
    pub revisions: Vec<&'static str>,
    /// Requests without this token get status 401.
    pub token: Option<&'static str>,
    /// Response to every request.
    pub refusal: Option<Refusal>,
    /// A file that cannot be downloaded as it is, and why.
    pub fault: Option<(&'static str, Fault)>,
    /// Whether the hub says that all files are in Xet storage. It never gives access to that.
    pub offers_xet: bool,
    /// URL of the server that downloads are redirected to: another hub with the same files.
    pub storage: Option<String>,
}

impl Contents {
    /// A model with the files of a folder.
    pub fn of_folder(folder: &Path) -> Self {
        let mut contents = Contents::default();
        for name in files::list(folder) {
            let path = folder.join(&name);
            if path.is_file() {
                contents.files.insert(name, std::fs::read(path).unwrap());
            }
        }
        contents
    }

    /// The commit of a revision.
    fn commit(&self, revision: &str) -> Option<&'static str> {
        match revision {
            COMMIT => Some(COMMIT),
            LATER_COMMIT | "main" if !self.later_files.is_empty() => Some(LATER_COMMIT),
            "main" => Some(COMMIT),
            _ => self.revisions.contains(&revision).then_some(COMMIT),
        }
    }

    fn files_of(&self, commit: &str) -> &BTreeMap<String, Vec<u8>> {
        if commit == COMMIT { &self.files } else { &self.later_files }
    }
}

/// A request that the hub received.
#[derive(Debug, Clone, Default)]
struct Request {
    /// `METHOD path`.
    line: String,
    authorization: Option<String>,
    /// First byte of the requested range.
    start: Option<usize>,
}

/// A running hub, which stops when it is dropped.
pub struct MockHub {
    /// Its URL, for `HF_ENDPOINT`.
    pub endpoint: String,
    log: Arc<Mutex<Vec<Request>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl MockHub {
    /// Starts a hub on a free port of this machine.
    pub fn serve(contents: Contents) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let log = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (seen, stopped) = (Arc::clone(&log), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            for connection in listener.incoming() {
                if stopped.load(Ordering::Relaxed) {
                    break;
                }
                // ignore a client that disconnects early
                let _ = answer(connection.unwrap(), &contents, &seen);
            }
        });
        MockHub { endpoint, log, stop, thread: Some(thread) }
    }

    /// Every request so far, as `METHOD path`.
    pub fn requests(&self) -> Vec<String> {
        self.log.lock().unwrap().iter().map(|request| request.line.clone()).collect()
    }

    /// The requests so far that had a token.
    pub fn requests_with_token(&self) -> Vec<String> {
        let log = self.log.lock().unwrap();
        let with_token = log.iter().filter(|request| request.authorization.is_some());
        with_token.map(|request| request.line.clone()).collect()
    }

    /// Names of the files that were downloaded from [`COMMIT`], sorted; one that was requested twice is listed twice.
    pub fn downloads(&self) -> Vec<String> {
        let prefix = format!("GET /{ID}/resolve/{COMMIT}/");
        let mut files: Vec<_> =
            self.requests().iter().filter_map(|line| line.strip_prefix(&prefix)).map(str::to_owned).collect();
        files.sort();
        files
    }
}

impl Drop for MockHub {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect(self.endpoint.trim_start_matches("http://"));
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn read_request(connection: &TcpStream) -> std::io::Result<Request> {
    let mut lines = BufReader::new(connection).lines();
    let line = lines.next().unwrap_or(Ok(String::new()))?;
    let mut request = Request { line: line.trim_end_matches(" HTTP/1.1").to_owned(), ..Request::default() };
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "authorization" => request.authorization = Some(value.to_owned()),
            "range" => {
                let start = value.strip_prefix("bytes=").and_then(|range| range.strip_suffix('-'));
                request.start = start.map(|start| start.parse().unwrap());
            }
            _ => {}
        }
    }
    Ok(request)
}

fn answer(mut connection: TcpStream, contents: &Contents, log: &Mutex<Vec<Request>>) -> std::io::Result<()> {
    let request = read_request(&connection)?;
    log.lock().unwrap().push(request.clone());
    let needed = contents.token.map(|token| format!("Bearer {token}"));
    let response = if let Some(refusal) = contents.refusal {
        refuse(refusal)
    } else if needed.is_some() && needed != request.authorization {
        refuse((401, "", "Invalid username or password."))
    } else {
        route(&request, contents)
    };
    connection.write_all(&response)
}

fn route(request: &Request, contents: &Contents) -> Vec<u8> {
    let missing = |code| refuse((404, code, ""));
    let (method, path) = request.line.split_once(' ').unwrap_or_default();
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    if let Some(rest) = path.strip_prefix(&format!("/api/models/{ID}/")) {
        let Some((kind, revision)) = rest.split_once('/') else { return missing("RepoNotFound") };
        let Some(commit) = contents.commit(&revision.replace("%2F", "/")) else {
            return missing("RevisionNotFound");
        };
        return match kind {
            "revision" => respond(200, &[], &json!({ "id": ID, "sha": commit }).to_string().into_bytes()),
            "tree" => list(contents, commit, query.contains("recursive=true")),
            _ => missing(""),
        };
    }
    let file = path.strip_prefix(&format!("/{ID}/resolve/")).and_then(|rest| rest.split_once('/'));
    let Some((revision, name)) = file else { return missing("RepoNotFound") };
    let Some(commit) = contents.commit(revision) else { return missing("RevisionNotFound") };
    match contents.files_of(commit).get(name) {
        Some(bytes) => serve_file(method, path, request.start, contents, (commit, name, bytes)),
        None => missing("EntryNotFound"),
    }
}

fn list(contents: &Contents, commit: &str, is_recursive: bool) -> Vec<u8> {
    let listed = contents.files_of(commit).iter().filter(|(name, _)| is_recursive || !name.contains('/'));
    let entries: Vec<_> = listed
        .map(|(name, bytes)| {
            let mut entry = json!({ "type": "file", "oid": "0", "path": name, "size": bytes.len() });
            if contents.offers_xet {
                entry["xetHash"] = xet_hash().into();
            }
            entry
        })
        .chain([json!({ "type": "directory", "oid": "0", "path": "runs" })])
        .collect();
    respond(200, &[], &json!(entries).to_string().into_bytes())
}

fn serve_file(
    method: &str,
    path: &str,
    start: Option<usize>,
    contents: &Contents,
    (commit, name, bytes): (&str, &str, &[u8]),
) -> Vec<u8> {
    let fault =
        contents.fault.filter(|(faulty, _)| *faulty == name && method == "GET").map(|(_, fault)| fault);
    if let Some(Fault::Refused(refusal)) = fault {
        return refuse(refusal);
    }
    // the hub's ETags are digests
    let etag = format!("\"{commit}-{}\"", name.replace('/', "-"));
    let mut headers = vec![format!("X-Repo-Commit: {commit}")];
    if contents.offers_xet {
        headers.push(format!("X-Xet-Hash: {}", xet_hash()));
    }
    if let Some(storage) = &contents.storage {
        // of the redirection itself
        headers.push("ETag: \"redirection\"".to_owned());
        headers.push(format!("X-Linked-ETag: {etag}"));
        headers.push(format!("X-Linked-Size: {}", bytes.len()));
        headers.push(format!("Location: {storage}{path}"));
        return respond(302, &headers, b"");
    }
    headers.push(format!("ETag: {etag}"));
    let (status, body) = match (fault, start) {
        (Some(Fault::Interrupted), Some(start)) => (206, &bytes[start..]),
        _ => (200, bytes),
    };
    let mut response = respond(status, &headers, body);
    if method == "HEAD" {
        response.truncate(response.len() - body.len());
    } else if status == 200 && fault.is_some() {
        response.truncate(response.len() - body.len().div_ceil(2));
    }
    response
}

fn xet_hash() -> String {
    "0".repeat(64)
}

fn refuse((status, code, message): Refusal) -> Vec<u8> {
    let headers = [format!("X-Error-Code: {code}"), format!("X-Error-Message: {message}")];
    respond(status, &headers, b"an error page")
}

fn respond(status: u16, headers: &[String], body: &[u8]) -> Vec<u8> {
    let mut response =
        format!("HTTP/1.1 {status} Status\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
    for header in headers.iter().filter(|header| !header.ends_with(": ")) {
        response.push_str(header);
        response.push_str("\r\n");
    }
    response.push_str("\r\n");
    let mut response = response.into_bytes();
    response.extend_from_slice(body);
    response
}
