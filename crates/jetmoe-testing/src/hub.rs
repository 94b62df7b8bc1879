//! A local hub with one model. It serves the requests of a download and records them.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use serde_json::json;

/// The hub id of the model.
pub const ID: &str = "jetmoe/jetmoe-mini";
/// The commit that `main` and the other revisions name.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// An error response: status, `X-Error-Code`, `X-Error-Message`.
pub type Refusal = (u16, &'static str, &'static str);

/// Files of the model, and how the hub responds.
#[derive(Debug, Default)]
pub struct Contents {
    /// Content of the files by their paths.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Branches and tags other than `main`.
    pub revisions: Vec<&'static str>,
    /// Requests without this token get status 401.
    pub token: Option<&'static str>,
    /// Response to every request.
    pub refusal: Option<Refusal>,
    /// Response to the download (not to the HEAD request) of this file.
    pub broken_file: Option<(&'static str, Refusal)>,
}

/// A running hub, which stops when it is dropped.
pub struct MockHub {
    /// Its URL, for `HF_ENDPOINT`.
    pub endpoint: String,
    log: Arc<Mutex<Vec<String>>>,
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
        self.log.lock().unwrap().clone()
    }

    /// Names of the files that were downloaded, in any order.
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

fn answer(mut connection: TcpStream, contents: &Contents, log: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut lines = BufReader::new(&connection).lines();
    let request = lines.next().unwrap_or(Ok(String::new()))?;
    let mut authorization = None;
    for line in lines {
        let line = line?;
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(": ")
            && name.eq_ignore_ascii_case("authorization")
        {
            authorization = Some(value.to_owned());
        }
    }
    let mut words = request.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    log.lock().unwrap().push(format!("{method} {path}"));
    let needed = contents.token.map(|token| format!("Bearer {token}"));
    let response = if let Some(refusal) = contents.refusal {
        refuse(refusal)
    } else if needed.is_some() && needed != authorization {
        refuse((401, "", "Invalid username or password."))
    } else {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        route(method, path, query.contains("recursive=true"), contents)
    };
    connection.write_all(&response)
}

fn route(method: &str, path: &str, is_recursive: bool, contents: &Contents) -> Vec<u8> {
    let missing = |code| refuse((404, code, ""));
    let known =
        |revision: &str| revision == "main" || revision == COMMIT || contents.revisions.contains(&revision);
    if let Some(rest) = path.strip_prefix(&format!("/api/models/{ID}/")) {
        return match rest.split_once('/') {
            Some(("revision", revision)) if known(&revision.replace("%2F", "/")) => {
                respond(200, &[], &json!({ "id": ID, "sha": COMMIT }).to_string().into_bytes())
            }
            Some(("tree", COMMIT)) => {
                let entries: Vec<_> = contents
                    .files
                    .iter()
                    .filter(|(name, _)| is_recursive || !name.contains('/'))
                    .map(|(name, bytes)| json!({ "type": "file", "oid": "0", "path": name, "size": bytes.len() }))
                    .chain([json!({ "type": "directory", "oid": "0", "path": "runs" })])
                    .collect();
                respond(200, &[], &json!(entries).to_string().into_bytes())
            }
            _ => missing("RevisionNotFound"),
        };
    }
    let Some(name) = path.strip_prefix(&format!("/{ID}/resolve/{COMMIT}/")) else {
        return missing("RepoNotFound");
    };
    let Some(bytes) = contents.files.get(name) else { return missing("EntryNotFound") };
    match (method, contents.broken_file) {
        ("GET", Some((broken, refusal))) if broken == name => refuse(refusal),
        _ => {
            let etag = format!("ETag: \"{name}-etag\"");
            let commit = format!("X-Repo-Commit: {COMMIT}");
            let mut response = respond(200, &[&etag, &commit], bytes);
            if method == "HEAD" {
                response.truncate(response.len() - bytes.len());
            }
            response
        }
    }
}

fn refuse((status, code, message): Refusal) -> Vec<u8> {
    let code = format!("X-Error-Code: {code}");
    let message = format!("X-Error-Message: {message}");
    respond(status, &[&code, &message], b"an error page")
}

fn respond(status: u16, headers: &[&str], body: &[u8]) -> Vec<u8> {
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
