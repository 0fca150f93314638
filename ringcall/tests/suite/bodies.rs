//! Files as bodies, attachments, and replies that land in files, over every engine and socket.

use std::fs::File;
use std::future::{Future, IntoFuture};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::pin::pin;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context as TaskContext, Waker};
use std::time::Duration;

use crate::alone::in_its_own_process;
use crate::common::{
    Pair, block, eventually, over_every_pair, over_every_pair_in_turn, over_every_plain_pair,
};
use ringcall::{
    Bytes, CallError, Cause, Client, Context, FailureClass, Items, ObjectError, ReceivedAttachment,
    RunningServer, SharedFile, SharedView, Status, Stream, View, Wait, WithAttachment,
};

#[ringcall::message]
#[derive(Clone, Debug, PartialEq)]
struct Range {
    offset: u64,
    len: u64,
}

#[ringcall::service(name = "test.Shelf")]
trait Shelf {
    /// A range of the file, beside itself; later by a byte for each entry of metadata.
    async fn read(&self, cx: &Context, range: Range) -> WithAttachment<Range>;
    /// How many bytes came, and their sum.
    async fn store(&self, range: WithAttachment<View<Range>, ReceivedAttachment>) -> (u64, u64);
    #[method(offload)]
    async fn store_offloaded(&self, range: WithAttachment<Range>) -> u64;
    /// Does not look at what is beside its argument.
    async fn ignore(&self, range: View<Range>) -> u64;
    async fn parts(&self, range: Range) -> impl Stream<Item = WithAttachment<Range>>;
    async fn collect(
        &self,
        parts: Items<WithAttachment<View<Range>, ReceivedAttachment>>,
    ) -> (u64, u64);
    /// Gives back what it was given, as it is.
    async fn same(&self, blob: View<Vec<u64>>) -> View<Vec<u64>>;
    #[method(offload)]
    async fn same_offloaded(&self, blob: SharedView<Vec<u64>>) -> Result<SharedView<Vec<u64>>, u8>;
}

struct Keeper {
    file: SharedFile,
}

impl Keeper {
    fn range(&self, range: &Range) -> WithAttachment<Range> {
        WithAttachment::new(range.clone(), self.file.range(range.offset, range.len as usize))
    }
}

fn sum(bytes: &[u8]) -> u64 {
    bytes.iter().map(|&byte| u64::from(byte)).sum()
}

impl Shelf for Keeper {
    async fn read(&self, cx: &Context, mut range: Range) -> WithAttachment<Range> {
        range.offset += cx.metadata().len() as u64;
        self.range(&range)
    }

    async fn store(&self, range: WithAttachment<View<Range>, ReceivedAttachment>) -> (u64, u64) {
        assert_eq!(range.message.len, range.attachment.len());
        (range.attachment.len(), sum(range.attachment.bytes()))
    }

    async fn store_offloaded(&self, range: WithAttachment<Range>) -> u64 {
        assert_eq!(range.message.len, range.attachment.len() as u64);
        sum(range.attachment.bytes().unwrap_or_default())
    }

    async fn ignore(&self, range: View<Range>) -> u64 {
        range.len.to_native()
    }

    async fn parts(&self, range: Range) -> impl Stream<Item = WithAttachment<Range>> {
        let mut offset = range.offset;
        let end = range.offset + range.len;
        let items: Vec<_> = std::iter::from_fn(|| {
            let part = Range { offset, len: (end - offset).min(100_000) };
            offset += part.len;
            (part.len > 0).then(|| self.range(&part))
        })
        .collect();
        Ready(items.into_iter())
    }

    async fn collect(
        &self,
        mut parts: Items<WithAttachment<View<Range>, ReceivedAttachment>>,
    ) -> (u64, u64) {
        let (mut len, mut total) = (0, 0);
        while let Some(part) = parts.next().await {
            len += part.attachment.len();
            total += sum(part.attachment.bytes());
        }
        (len, total)
    }

    async fn same(&self, blob: View<Vec<u64>>) -> View<Vec<u64>> {
        blob
    }

    async fn same_offloaded(&self, blob: SharedView<Vec<u64>>) -> Result<SharedView<Vec<u64>>, u8> {
        if blob.len() == 1 { Err(1) } else { Ok(blob) }
    }
}

/// A stream of what is there already.
struct Ready<I>(I);

impl<I: Iterator + Unpin> Stream for Ready<I> {
    type Item = I::Item;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<I::Item>> {
        std::task::Poll::Ready(self.0.next())
    }
}

const LEN: usize = 1_000_003;

fn content() -> Vec<u8> {
    (0..LEN as u64).map(|i| (i.wrapping_mul(0x9e37_79b9) >> 11) as u8).collect()
}

/// A file that has no name any more.
fn file(bytes: &[u8]) -> SharedFile {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let name =
        format!("ringcall-b-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let path: PathBuf = std::env::temp_dir().join(name);
    let file = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    file.write_all_at(bytes, 0).unwrap();
    SharedFile::new(file).unwrap()
}

fn bytes_of(file: &SharedFile) -> Vec<u8> {
    let len = file.get().metadata().unwrap().len() as usize;
    let mut bytes = vec![0; len];
    file.get().read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn serve(pair: Pair) -> (RunningServer, ShelfClient<Client>, SharedFile) {
    let file = file(&content());
    let keeper = Keeper { file: file.clone() };
    let server = pair.start(pair.bind().service(keeper.into_shelf()));
    let client = pair.secured(ShelfClient::connect(server.address())).wait().unwrap();
    (server, client, file)
}

fn whole() -> Range {
    Range { offset: 0, len: LEN as u64 }
}

#[test]
fn files_go_both_ways_and_every_byte_is_theirs() {
    over_every_pair(|pair| {
        let (server, shelf, file) = serve(pair);
        let content = content();
        for (offset, len) in [(0, 1), (5, 1000), (4096, 70_000), (1, 262_144), (3, LEN - 3), (0, 0)]
        {
            let range = Range { offset: offset as u64, len: len as u64 };
            let reply = shelf.read(&range).wait().unwrap();
            assert_eq!(reply.message.to_owned(), range);
            assert!(reply.attachment.bytes() == &content[offset..offset + len]);
            let argument = WithAttachment::new(range.clone(), file.range(range.offset, len));
            let expected = (len as u64, sum(&content[offset..offset + len]));
            assert_eq!(shelf.store(&argument).wait().unwrap().to_owned(), expected);
            assert_eq!(*shelf.ignore_with(&range), range.len);
        }
        let bytes = Bytes::from(content.clone());
        let argument = WithAttachment::new(whole(), bytes);
        assert_eq!(*shelf.store_offloaded(&argument).wait().unwrap(), sum(&content));
        server.stop();
    });
}

impl ShelfClient<Client> {
    fn ignore_with(&self, range: &Range) -> SharedView<u64> {
        self.ignore(range).wait().unwrap()
    }
}

#[test]
fn items_have_attachments_too() {
    over_every_pair(|pair| {
        let (server, shelf, file) = serve(pair);
        let content = content();
        let mut got = Vec::new();
        let mut parts = shelf.parts(&whole()).wait().unwrap();
        for part in parts.wait_each() {
            got.extend_from_slice(part.unwrap().attachment.bytes());
        }
        assert!(got == content);
        let mut upload = shelf.collect().wait().unwrap();
        let mut offset = 0;
        while offset < LEN {
            let len = (LEN - offset).min(300_000);
            let range = Range { offset: offset as u64, len: len as u64 };
            upload.send_wait(&WithAttachment::new(range, file.range(offset as u64, len))).unwrap();
            offset += len;
        }
        let total = upload.finish_wait().unwrap().to_owned();
        assert_eq!(total, (LEN as u64, sum(&content)));
        server.stop();
    });
}

#[test]
fn replies_land_in_files() {
    over_every_pair(|pair| {
        let (server, shelf, _file) = serve(pair);
        let content = content();
        let to = file(b"");
        for (offset, len) in [(0, 100), (100, 200_000), (200_100, LEN - 200_100)] {
            let range = Range { offset: offset as u64, len: len as u64 };
            let reply = shelf.read(&range).land_in(to.range(offset as u64, len)).wait().unwrap();
            assert!(matches!(reply.attachment, ReceivedAttachment::Landed(n) if n == len as u64));
            assert_eq!(reply.message.to_owned(), range);
        }
        assert!(bytes_of(&to) == content);
        // What goes with a call goes with this one.
        let range = Range { offset: 10, len: 100 };
        let later = shelf.read(&range).metadata("one", "1").metadata("two", "2");
        let reply = later.land_in(to.range(0, 100)).wait().unwrap();
        assert_eq!(reply.message.offset, 12);
        assert!(bytes_of(&to)[..100] == content[12..112]);
        // More than there is room for.
        let short = shelf.read(&whole()).land_in(to.range(0, 10)).wait();
        let Err(CallError::Failed(failure)) = short else { panic!("it does not fit") };
        assert_eq!(failure.cause, Cause::Unwritable(ObjectError::NoRoom));
        // A file that is not open for writing.
        let readable = SharedFile::new(File::open("/proc/self/exe").unwrap()).unwrap();
        let refused = shelf.read(&whole()).land_in(readable.range(0, LEN)).wait();
        let Err(CallError::Failed(failure)) = refused else { panic!("it cannot be written") };
        assert!(matches!(failure.cause, Cause::Unwritable(ObjectError::Os(_))), "{failure:?}");
        assert_eq!(shelf.ignore_with(&whole()), LEN as u64, "the connection goes on");
        server.stop();
    });
}

#[ringcall::service(name = "test.Depot")]
trait Depot {
    /// Fetches so much of what the caller offers, and says what became of each piece.
    async fn fetch(&self, cx: &Context, range: Range) -> Result<u64, String>;
}

struct Fetching(SharedFile);

impl Depot for Fetching {
    async fn fetch(&self, cx: &Context, range: Range) -> Result<u64, String> {
        let shelf = ShelfClient::new(cx.client(&cx.local_peer()));
        let mut at = range.offset;
        while at < range.offset + range.len {
            let piece = Range { offset: at, len: (range.offset + range.len - at).min(300_000) };
            let landing = self.0.range(piece.offset, piece.len as usize);
            let reply =
                shelf.read(&piece).land_in(landing).await.map_err(|error| error.to_string())?;
            if !matches!(reply.attachment, ReceivedAttachment::Landed(n) if n == piece.len) {
                return Err("it has not landed".into());
            }
            at += piece.len;
        }
        Ok(at - range.offset)
    }
}

/// A server decides where it goes, before it comes.
#[test]
fn what_a_caller_offers_lands_in_a_file_of_its_server() {
    over_every_pair(|pair| {
        let (content, to) = (content(), file(&[]));
        let server = pair.start(pair.bind().service(Fetching(to.clone()).into_depot()));
        let keeper = Keeper { file: file(&content) };
        let depot = DepotClient::connect(server.address()).service(keeper.into_shelf());
        let depot = pair.secured(depot).wait().unwrap();
        assert_eq!(*depot.fetch(&whole()).wait().unwrap(), LEN as u64);
        assert!(bytes_of(&to) == content);
        let landed = server.stop().landed_in_files;
        assert!(crate::common::is_tls() || landed > LEN as u64 / 2, "{landed}");
    });
}

/// `sendfile`, unlike `send`, has no flag against the signal.
#[test]
fn e05_a_file_that_nobody_takes_is_no_signal() {
    let test = "e05_a_file_that_nobody_takes_is_no_signal";
    in_its_own_process(module_path!(), test, || {
        // SAFETY: this process runs nothing else that the signal could matter to.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        over_every_plain_pair(|pair| {
            let (server, shelf, _file) = serve(pair);
            for turns in 0..20 {
                let shard = Pair { server: pair.client, ..pair }.shard();
                let client = shard.block_on(shard.connect(server.address())).unwrap();
                let shelf = ShelfClient::new(client);
                let whole = whole();
                let mut call = pin!(shelf.read(&whole).into_future());
                let mut cx = TaskContext::from_waker(Waker::noop());
                assert!(call.as_mut().poll(&mut cx).is_pending());
                for _ in 0..turns {
                    shard.turn(Wait::AtMost(Duration::from_millis(1)));
                }
                // The rest of the file meets a socket that is closed.
                drop(shard);
            }
            eventually("all are gone", || server.connections() == 1);
            assert_eq!(shelf.ignore_with(&whole()), LEN as u64, "others are served");
            server.stop();
        });
    });
}

/// A disk of 256 KiB, which goes with it. `None` where nobody may mount one.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount() -> Option<SmallDisk> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("ringcall-d-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"]).arg(&path).stderr(Stdio::null());
        if mount.status().is_ok_and(|status| status.success()) {
            return Some(SmallDisk(path));
        }
        std::fs::remove_dir(&path).unwrap();
        crate::common::say(format_args!("skipped: a disk that is full needs a right to mount one"));
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let is_gone = Command::new("umount").arg("-l").arg(&self.0).status();
        if is_gone.is_ok_and(|status| status.success()) {
            let _ = std::fs::remove_dir(&self.0);
        }
    }
}

#[test]
fn e01_a_full_disk_fails_what_should_land_there_and_nothing_else() {
    const ENOSPC: i32 = 28;
    let Some(disk) = SmallDisk::mount() else { return };
    over_every_pair_in_turn(|pair| {
        let (server, shelf, _file) = serve(pair);
        let path = disk.0.join("full");
        let to = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        let to = SharedFile::new(to).unwrap();
        for _ in 0..3 {
            let Err(CallError::Failed(failure)) =
                shelf.read(&whole()).land_in(to.range(0, LEN)).wait()
            else {
                panic!("there is no room for it")
            };
            assert_eq!(failure.cause, Cause::Unwritable(ObjectError::Os(ENOSPC)));
            assert_eq!(failure.class, FailureClass::Unknown, "the handler ran");
        }
        // What fits still lands, on the same connection.
        std::fs::remove_file(&path).unwrap();
        to.get().set_len(0).unwrap();
        let range = Range { offset: 7, len: 100_000 };
        shelf.read(&range).land_in(to.range(0, 100_000)).wait().unwrap();
        let (got, content) = (bytes_of(&to), content());
        let differs = got.iter().zip(&content[7..]).position(|(got, sent)| got != sent);
        assert_eq!((got.len(), differs), (100_000, None));
        server.stop();
    });
}

#[test]
fn e01_a_file_that_shrinks_is_an_error_on_both_sides() {
    over_every_pair(|pair| {
        let (server, shelf, file) = serve(pair);
        for left in [LEN - 1, 300_000, 0] {
            file.get().set_len(left as u64).unwrap();
            let Err(CallError::Failed(failure)) = shelf.read(&whole()).wait() else {
                panic!("zeros are never good")
            };
            assert_eq!(failure.cause, Cause::Status(Status::REPLY_FAILED));
            let argument = WithAttachment::new(whole(), file.range(0, LEN));
            let Err(CallError::Failed(failure)) = shelf.store(&argument).wait() else {
                panic!("zeros are never good")
            };
            assert_eq!(failure.cause, Cause::Unreadable(ObjectError::Ended));
            assert_eq!(failure.class, FailureClass::Refused, "it did not run");
            let parts = shelf.parts(&whole()).wait();
            let end = parts
                .and_then(|mut parts| parts.wait_each().find_map(Result::err).map_or(Ok(()), Err));
            let Err(CallError::Failed(failure)) = end else { panic!("it has an end") };
            assert_eq!(failure.cause, Cause::Status(Status::REPLY_FAILED));
        }
        assert_eq!(shelf.ignore_with(&whole()), LEN as u64, "the connection goes on");
        server.stop();
    });
}

/// How many descriptors of deleted files of these tests this process has.
fn open_files() -> usize {
    let links = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let targets = links.filter_map(|link| std::fs::read_link(link.path()).ok());
    let name = format!("ringcall-b-{}-", std::process::id());
    targets.filter(|target| target.to_string_lossy().contains(&name)).count()
}

#[test]
fn cancelled_and_lost_calls_let_their_files_go() {
    // Alone in its process, or with others that open files, it counts from below.
    over_every_pair(|pair| {
        let (server, shelf, file) = serve(pair);
        let copies: Vec<SharedFile> = (0..4).map(|_| self::file(&content())).collect();
        for copy in &copies {
            let argument = WithAttachment::new(whole(), copy.range(0, LEN));
            let mut call = Box::pin(std::future::IntoFuture::into_future(shelf.store(&argument)));
            let waker = std::task::Waker::noop();
            let mut cx = std::task::Context::from_waker(waker);
            let _ = call.as_mut().poll(&mut cx);
            // Given up in the middle.
            drop(call);
        }
        let weak: Vec<_> = copies.iter().map(|copy| copy.whole().unwrap()).collect();
        drop(copies);
        for range in &weak {
            eventually("the file is let go", || std::sync::Arc::strong_count(range.object()) == 1);
        }
        // Lost in the middle.
        let lost = self::file(&content());
        let last = lost.whole().unwrap();
        let argument = WithAttachment::new(whole(), lost.range(0, LEN));
        drop(lost);
        std::thread::scope(|scope| {
            let call = scope.spawn(|| shelf.store(&argument).wait().map(|_| ()));
            block(std::time::Duration::from_millis(1));
            server.stop();
            let _ = call.join().unwrap();
        });
        drop((argument, shelf, file));
        eventually("the file is let go", || std::sync::Arc::strong_count(last.object()) == 1);
    });
    eventually("descriptors come back", || open_files() <= 8);
}

#[test]
fn views_go_back_as_they_came() {
    over_every_pair(|pair| {
        let (server, shelf, _file) = serve(pair);
        for len in [0, 1, 100, 100_000] {
            let blob: Vec<u64> = (0..len).collect();
            assert_eq!(shelf.same(&blob).wait().unwrap().to_owned(), blob);
            match len {
                1 => assert!(matches!(shelf.same_offloaded(&blob).wait(), Err(CallError::App(1)))),
                _ => assert_eq!(shelf.same_offloaded(&blob).wait().unwrap().to_owned(), blob),
            }
        }
        server.stop();
    });
}
