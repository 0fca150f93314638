//! A real job: copies a directory tree over RPC, from one process to another, and verifies the SHA-256
//! of every file.
//!
//! ```text
//! $ cargo run --release --example files -- serve ~/.rustup/toolchains 127.0.0.1:7100
//! serving /root/.rustup/toolchains at 127.0.0.1:7100
//!
//! $ cargo run --release --example files -- mirror 127.0.0.1:7100 /tmp/copy
//! mirrored 21474 files, 1.29 GB in 9.1 s; every checksum is equal
//! ```
//!
//! The kernel sends the files from its page cache, and what arrives is written from where it was received. With
//! `mirror ADDR DEST --stream` each file comes as a stream of buffers instead, to compare; with `--copy` nothing is
//! hashed, so that only the copying takes time.

use std::collections::VecDeque;
use std::error::Error;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll};
use std::time::Instant;

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use ringcall::{
    BlockingClient, CallError, CallOptions, Counters, Server, SharedFile, Stream, View,
    WithAttachment,
};
use sha2::{Digest, Sha256};

// ---- what is said ----

#[ringcall::message]
#[derive(Debug)]
struct Entry {
    /// Relative to the root, with `/`.
    path: String,
    kind: Kind,
}

#[ringcall::message]
#[derive(Debug)]
enum Kind {
    Directory,
    File { bytes: u64, mode: u32 },
    Link { target: String },
}

#[ringcall::message]
struct Piece {
    path: String,
    offset: u64,
    len: u32,
}

#[ringcall::message]
#[derive(Debug)]
struct Failed {
    why: String,
}

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.why)
    }
}

#[ringcall::service(name = "files.Files")]
trait Files {
    /// What is in a directory; the root is "".
    #[method(idempotent, offload)]
    async fn list(&self, path: String) -> Result<Vec<Entry>, Failed>;

    /// A piece of a file, beside its length; shorter than asked for at its end.
    #[method(idempotent, offload)]
    async fn read(&self, piece: View<Piece>) -> Result<WithAttachment<u64>, Failed>;

    /// A whole file, in buffers.
    #[method(idempotent)]
    async fn stream(&self, path: String) -> Result<impl Stream<Item = Vec<u8>>, Failed>;

    /// The SHA-256 of a file, computed where it lies.
    #[method(idempotent, offload, deadline = "60s")]
    async fn sha256(&self, path: String) -> Result<[u8; 32], Failed>;
}

// ---- the server ----

struct Tree {
    root: PathBuf,
}

impl Tree {
    /// The place of a path that came from a peer; never outside of the root.
    fn place(&self, path: &str) -> Result<PathBuf, Failed> {
        let inside = |part: Component<'_>| matches!(part, Component::Normal(_));
        if !Path::new(path).components().all(inside) {
            return Err(Failed { why: format!("{path:?} is not a path inside of the tree") });
        }
        let place = self.root.join(path);
        // A link in the tree may point out of it.
        let parent = if path.is_empty() { &place } else { place.parent().unwrap_or(&place) };
        if !parent.canonicalize()?.starts_with(&self.root) {
            return Err(Failed { why: format!("{path:?} leads out of the tree") });
        }
        Ok(place)
    }

    fn open(&self, path: &str) -> Result<File, Failed> {
        let place = self.place(path)?;
        if fs::symlink_metadata(&place)?.is_file() {
            return Ok(File::open(place)?);
        }
        Err(Failed { why: format!("{path:?} is not a file") })
    }
}

impl Files for Tree {
    async fn list(&self, path: String) -> Result<Vec<Entry>, Failed> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(self.place(&path)?)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let meta = entry.metadata()?;
            let kind = if meta.is_dir() {
                Kind::Directory
            } else if meta.is_symlink() {
                let target = fs::read_link(entry.path())?;
                Kind::Link { target: target.to_string_lossy().into_owned() }
            } else if meta.is_file() {
                Kind::File { bytes: meta.len(), mode: meta.permissions().mode() }
            } else {
                continue;
            };
            let path = if path.is_empty() { name } else { format!("{path}/{name}") };
            entries.push(Entry { path, kind });
        }
        Ok(entries)
    }

    async fn read(&self, piece: View<Piece>) -> Result<WithAttachment<u64>, Failed> {
        let file = SharedFile::new(self.open(&piece.path)?)?;
        let (offset, len) = (piece.offset.to_native(), u64::from(piece.len.to_native()));
        let end = file.get().metadata()?.len().min(offset.saturating_add(len.min(PIECE as u64)));
        let len = end.saturating_sub(offset);
        // Nothing is read here.
        Ok(WithAttachment::new(len, file.range(offset, len as usize)))
    }

    async fn stream(&self, path: String) -> Result<impl Stream<Item = Vec<u8>>, Failed> {
        Ok(Buffers(self.open(&path)?))
    }

    async fn sha256(&self, path: String) -> Result<[u8; 32], Failed> {
        Ok(sha256(self.open(&path)?)?)
    }
}

/// A file in buffers.
struct Buffers(File);

impl Stream for Buffers {
    type Item = Vec<u8>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Vec<u8>>> {
        let mut buffer = vec![0; PIECE];
        // One that cannot be read is shorter; its checksum tells.
        let n = self.0.read(&mut buffer).unwrap_or(0);
        buffer.truncate(n);
        Poll::Ready((n > 0).then_some(buffer))
    }
}

fn serve(root: &str, address: &str) -> Result<(), Box<dyn Error>> {
    let root = Path::new(root).canonicalize()?;
    let server = Server::bind(address).service(Tree { root: root.clone() }.into_files()).start()?;
    println!("serving {} at {}", root.display(), server.address());
    loop {
        std::thread::park();
    }
}

// ---- the mirror ----

/// How much of a file one call brings.
const PIECE: usize = 1 << 20;
/// How many connections bring pieces, each on a thread of its own.
const WORKERS: usize = 4;

/// How to copy.
#[derive(Clone, Copy, Debug, Default)]
struct How {
    /// By streams of buffers.
    by_stream: bool,
    /// Without comparing checksums.
    copy_only: bool,
}

/// A file to copy. It is created with its first piece, and closed with its last.
struct Target {
    path: String,
    place: PathBuf,
    mode: u32,
    bytes: u64,
    left: AtomicU64,
    file: OnceLock<std::io::Result<SharedFile>>,
}

impl Target {
    fn file(&self) -> Result<&SharedFile, Box<dyn Error>> {
        let made = self.file.get_or_init(|| {
            let _ = fs::remove_file(&self.place);
            SharedFile::new(
                File::options().read(true).write(true).create_new(true).open(&self.place)?,
            )
        });
        made.as_ref().map_err(|error| error.to_string().into())
    }
}

/// What there is to copy, in order; several workers take from it.
#[derive(Default)]
struct Plan {
    pieces: VecDeque<(Arc<Target>, u64)>,
    files: usize,
    bytes: u64,
}

type Remote = FilesClient<BlockingClient>;

fn mirror(address: &str, destination: &str, how: How) -> Result<(), Box<dyn Error>> {
    let started = Instant::now();
    let destination = Path::new(destination);
    fs::create_dir_all(destination)?;
    let progress = ProgressBar::new(0).with_style(ProgressStyle::with_template(
        "{bar:40} {bytes}/{total_bytes} {binary_bytes_per_sec} {msg}",
    )?);
    let files = remote(address)?;
    let mut plan = Plan::default();
    plan.collect(&files, destination, how, &progress)?;
    let (count, bytes) = (plan.files, plan.bytes);
    let plan = Mutex::new(plan.pieces);
    let copying = Instant::now();
    let workers = std::thread::scope(|scope| {
        let work = || worker(address, &plan, how, &progress).map_err(|error| error.to_string());
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().expect("no worker panics"))
            .collect::<Vec<_>>()
    });
    let mut counters = files.channel().counters();
    let mut mismatched = Vec::new();
    for worker in workers {
        let (differ, counted) = worker?;
        mismatched.extend(differ);
        counters.add(&counted);
    }
    progress.finish_and_clear();
    if !mismatched.is_empty() {
        return Err(
            format!("{} files differ, the first is {:?}", mismatched.len(), mismatched[0]).into()
        );
    }
    let verdict = if how.copy_only { "not compared" } else { "every checksum is equal" };
    println!(
        "mirrored {count} files, {} in {:.1} s; {verdict}",
        HumanBytes(bytes),
        started.elapsed().as_secs_f64(),
    );
    println!(
        "{}/s over {}; {} went from where they were received to files, {} were copied in user space",
        HumanBytes((bytes as f64 / copying.elapsed().as_secs_f64()) as u64),
        files.channel().transport().name,
        HumanBytes(counters.landed_in_files),
        HumanBytes(counters.copied_bytes()),
    );
    Ok(())
}

fn remote(address: &str) -> Result<Remote, CallError> {
    let options = CallOptions::new().deadline(std::time::Duration::from_secs(30));
    Ok(FilesClient::new(BlockingClient::connect(address)?).with_options(options))
}

impl Plan {
    /// Walks the tree at the server; makes directories and links here.
    fn collect(
        &mut self,
        files: &Remote,
        destination: &Path,
        how: How,
        progress: &ProgressBar,
    ) -> Result<(), Box<dyn Error>> {
        let mut directories = vec![String::new()];
        while let Some(directory) = directories.pop() {
            let entries = files.list(&directory).wait()?.to_owned();
            for Entry { path, kind } in entries {
                let place = destination.join(safe(&path)?);
                match kind {
                    Kind::Directory => {
                        fs::create_dir_all(&place)?;
                        directories.push(path);
                    }
                    Kind::Link { target } => {
                        let _ = fs::remove_file(&place);
                        symlink(target, place)?;
                    }
                    Kind::File { bytes, mode } => self.add(path, place, bytes, mode, how),
                }
            }
            progress.set_length(self.bytes);
            progress.set_message(format!("{} files", self.files));
        }
        Ok(())
    }

    fn add(&mut self, path: String, place: PathBuf, bytes: u64, mode: u32, how: How) {
        let (file, left) = (OnceLock::new(), AtomicU64::new(bytes));
        let target = Arc::new(Target { path, place, mode, bytes, left, file });
        self.files += 1;
        self.bytes += bytes;
        // One that is empty, or comes as a stream, is one piece.
        let pieces = if how.by_stream { 1 } else { bytes.div_ceil(PIECE as u64).max(1) };
        let pieces = (0..pieces).map(|piece| (Arc::clone(&target), piece * PIECE as u64));
        self.pieces.extend(pieces);
    }
}

/// The server is not trusted with our disk either.
fn safe(path: &str) -> Result<&Path, String> {
    let path = Path::new(path);
    let inside = |part: Component<'_>| matches!(part, Component::Normal(_));
    path.components().all(inside).then_some(path).ok_or(format!("the server sent {path:?}"))
}

/// Copies pieces as long as there are some; returns the files whose checksums differ.
fn worker(
    address: &str,
    plan: &Mutex<VecDeque<(Arc<Target>, u64)>>,
    how: How,
    progress: &ProgressBar,
) -> Result<(Vec<String>, Counters), Box<dyn Error>> {
    let files = remote(address)?;
    let mut mismatched = Vec::new();
    loop {
        let next = plan.lock().expect("no worker panics with it").pop_front();
        let Some((target, offset)) = next else { break };
        let copied = match how.by_stream {
            true => copy_stream(&files, &target)?,
            false => copy_piece(&files, &target, offset)?,
        };
        progress.inc(copied);
        let is_last = target.left.fetch_sub(copied, Ordering::AcqRel) == copied;
        if is_last {
            let file = target.file()?.get();
            file.set_permissions(fs::Permissions::from_mode(target.mode))?;
            let is_equal = how.copy_only
                || *files.sha256(&target.path).wait()? == sha256(File::open(&target.place)?)?;
            if !is_equal {
                mismatched.push(target.path.clone());
            }
        }
    }
    Ok((mismatched, files.channel().counters()))
}

/// Has a piece written to its place.
fn copy_piece(files: &Remote, target: &Target, offset: u64) -> Result<u64, Box<dyn Error>> {
    let file = target.file()?;
    let len = (target.bytes - offset).min(PIECE as u64);
    if len > 0 {
        let piece = Piece { path: target.path.clone(), offset, len: len as u32 };
        let range = file.range(offset, len as usize);
        files.read(&piece).land_in(range).wait()?;
    }
    // If the file has become shorter meanwhile, its checksum will tell.
    Ok(len)
}

/// Writes a file from buffers.
fn copy_stream(files: &Remote, target: &Target) -> Result<u64, Box<dyn Error>> {
    let file = target.file()?;
    let mut at = 0;
    for buffer in files.stream(&target.path).wait()?.wait_each() {
        let buffer = buffer?;
        file.get().write_all_at(&buffer, at)?;
        at += buffer.len() as u64;
    }
    Ok(target.bytes)
}

fn sha256(mut file: File) -> std::io::Result<[u8; 32]> {
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(digest.finalize().into()),
            n => digest.update(&buffer[..n]),
        }
    }
}

impl From<std::io::Error> for Failed {
    fn from(error: std::io::Error) -> Failed {
        Failed { why: error.to_string() }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["serve", root] => serve(root, "127.0.0.1:7100"),
        ["serve", root, address] => serve(root, address),
        ["mirror", address, destination, ref how @ ..] => {
            let how =
                How { by_stream: how.contains(&"--stream"), copy_only: how.contains(&"--copy") };
            mirror(address, destination, how)
        }
        _ => {
            Err("usage: files serve DIR [ADDR] | files mirror ADDR DEST [--stream] [--copy]".into())
        }
    }
}
