//! Reading and writing whole files.

use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::{EntryKind, Error, Folder, Result, json, names};

/// Whether a relative path with `/` is a file's that stays in its folder on every system.
pub fn is_inside(path: &str) -> bool {
    let is_file = path.rsplit('/').next().is_some_and(|name| !matches!(name, "" | "."));
    is_file && path.split('/').all(|part| !matches!(part, "" | "..") && !part.contains(['\\', ':']))
}

/// Opens a regular file for reading; links are followed. Anything else is refused before it is opened: opening a named pipe waits,
/// and opening a device may have effects.
///
/// # Errors
/// [`io::ErrorKind::InvalidInput`] for anything but a regular file, or an error of the file system.
pub fn open_file(path: &Path) -> io::Result<File> {
    EntryKind::of(fs::metadata(path)?.file_type()).require(EntryKind::File)?;
    let mut options = File::options();
    options.read(true);
    #[cfg(unix)]
    {
        use rustix::fs::OFlags;
        use std::os::unix::fs::OpenOptionsExt;
        options.custom_flags((OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32);
    }
    let file = options.open(path)?;
    // another one may have its name by now
    EntryKind::of(file.metadata()?.file_type()).require(EntryKind::File)?;
    Ok(file)
}

/// Reads a regular file that is kept in memory. Its size is limited by its name, see [`names::size_limit`].
///
/// # Errors
/// [`Error::Io`] or [`Error::TooLarge`]; both name the file.
pub fn read_bytes(path: &Path) -> Result<Vec<u8>> {
    let failed = |source| Error::Io { action: "read", path: path.to_owned(), source };
    let limit = names::size_limit(path);
    let check = |size: u64| match size {
        _ if size > limit => Err(Error::TooLarge { path: path.to_owned(), size, limit }),
        _ => Ok(()),
    };
    let file = open_file(path).map_err(failed)?;
    check(file.metadata().map_err(failed)?.len())?;
    let mut content = Vec::new();
    file.take(limit + 1).read_to_end(&mut content).map_err(failed)?;
    // it may have grown
    check(content.len() as u64)?;
    Ok(content)
}

/// Reads a text file, as [`read_bytes`] does.
///
/// # Errors
/// [`Error::Io`] or [`Error::TooLarge`]; both name the file.
pub fn read_text(path: &Path) -> Result<String> {
    String::from_utf8(read_bytes(path)?).map_err(|source| Error::Io {
        action: "read",
        path: path.to_owned(),
        source: io::Error::new(io::ErrorKind::InvalidData, source.utf8_error()),
    })
}

/// Reads a text file; `None` if it does not exist.
///
/// # Errors
/// [`Error::Io`] names the file.
pub fn read_text_if_exists(path: &Path) -> Result<Option<String>> {
    match read_text(path) {
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

/// Reads a JSON file, with what Python's `json` module accepts beyond the standard: what is not a finite number is a
/// string, such as `"NaN"`; of repeated keys the last one counts.
///
/// # Errors
/// As [`read_text`], or [`Error::Json`], which names the file with line and column.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    parse_json(path, &read_text(path)?)
}

/// As [`read_json`]; `None` if the file does not exist.
///
/// # Errors
/// As [`read_json`].
pub fn read_json_if_exists<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    read_text_if_exists(path)?.map(|text| parse_json(path, &text)).transpose()
}

fn parse_json<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T> {
    json::parse(text).map_err(|source| Error::Json { path: path.to_owned(), source })
}

/// Whether a file belongs to the user who runs this process. Always true on systems other than Unix.
///
/// # Errors
/// A file that does not exist.
pub fn belongs_to_user(path: &Path) -> io::Result<bool> {
    let metadata = fs::metadata(path)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        Ok(metadata.uid() == rustix::process::geteuid().as_raw())
    }
    #[cfg(not(unix))]
    Ok(metadata.is_file() || metadata.is_dir())
}

/// What temporary names end in.
const TEMPORARY: &str = ".partial";

/// Creates a file under a name that cannot be foreseen: `name`, a random number and `.partial`.
pub(crate) fn create_temporary(folder: &Folder, name: &str) -> io::Result<(String, File)> {
    const ATTEMPTS: usize = 100;
    let mut attempt = 1;
    loop {
        // the hash of nothing under random keys
        let random = RandomState::new().build_hasher().finish();
        let temporary = format!("{name}.{random:016x}{TEMPORARY}");
        match folder.create_file(&temporary) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && attempt < ATTEMPTS => attempt += 1,
            created => return Ok((temporary, created?)),
        }
    }
}

/// A file that takes its name only when it is complete, so that no reader sees half of it. Until
/// [`AtomicFile::commit`] it has a temporary name ending in `.partial` in the same folder. Dropped earlier, it is removed.
///
/// The folder stays open: a link that takes its place meanwhile changes nothing. An entry that has the final name already is
/// replaced, and if it is a link, what it refers to stays.
#[derive(Debug)]
pub struct AtomicFile {
    name: String,
    file: BufWriter<File>,
    temporary: TemporaryName,
}

impl AtomicFile {
    /// Creates the temporary file. Links in the path of the folder are followed.
    ///
    /// # Errors
    /// A folder that does not exist or cannot be written to.
    pub fn create(path: &Path) -> io::Result<Self> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let name = path.file_name().and_then(|name| name.to_str());
        let name =
            name.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not the name of a file"))?;
        Self::create_in(&Folder::open(folder)?, name)
    }

    /// Creates the temporary file in an open folder.
    ///
    /// # Errors
    /// A folder that cannot be written to.
    pub fn create_in(folder: &Folder, name: &str) -> io::Result<Self> {
        let (temporary, file) = create_temporary(folder, name)?;
        Ok(AtomicFile {
            name: name.to_owned(),
            file: BufWriter::with_capacity(1 << 20, file),
            temporary: TemporaryName { folder: folder.clone(), name: Some(temporary) },
        })
    }

    /// The final name of the file with a temporary name; `None` for any other name.
    pub fn final_name(temporary: &str) -> Option<&str> {
        let (name, random) = temporary.strip_suffix(TEMPORARY)?.rsplit_once('.')?;
        (!random.is_empty() && random.bytes().all(|byte| byte.is_ascii_alphanumeric())).then_some(name)
    }

    /// The final path.
    pub fn path(&self) -> PathBuf {
        self.temporary.folder.path().join(&self.name)
    }

    /// Writes everything to disk and renames the file to its final name.
    ///
    /// # Errors
    /// A full disk, or a final name that cannot be written to. The temporary file is removed.
    pub fn commit(self) -> io::Result<()> {
        let AtomicFile { name, file, temporary } = self;
        let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        temporary.rename(&name)
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// The temporary name of a file, which is removed if it is dropped.
#[derive(Debug)]
struct TemporaryName {
    folder: Folder,
    name: Option<String>,
}

impl TemporaryName {
    fn rename(mut self, new_name: &str) -> io::Result<()> {
        if let Some(name) = &self.name {
            self.folder.rename(name, &self.folder, new_name)?;
        }
        self.name = None;
        Ok(())
    }
}

impl Drop for TemporaryName {
    fn drop(&mut self) {
        if let Some(name) = self.name.take() {
            // what cannot be removed only takes space
            let _ = self.folder.remove_file(&name);
        }
    }
}
