//! What a client has lands in a file of its server: the client offers its file on the connection, and the server reads
//! it from there, a piece at a time, into its own. The kernel sends it, what arrives is written from where it was
//! received, and the server decides where it goes before it comes.
//!
//! ```text
//! $ cargo run --release --example upload
//! 64 MiB stored; landed without a copy: 64 MiB; bytes of frames that were copied: 328
//! ```

use std::error::Error;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use ringcall::{
    Context, HandlerError, ReceivedAttachment, Server, SharedFile, View, WithAttachment,
};

const MIB: u64 = 1 << 20;
/// What is on its way at a time: less than the largest message, which has 4 MiB by default.
const PIECE: u64 = MIB;
const LEN: u64 = 64 * MIB;

#[ringcall::message]
struct Upload {
    name: String,
    bytes: u64,
}

#[ringcall::message]
struct Piece {
    offset: u64,
    bytes: u32,
}

#[ringcall::service]
trait Storage {
    /// Takes a file of the caller's, which offers it as a [`Source`].
    #[method(deadline = "60s")]
    async fn store(&self, cx: &Context, upload: View<Upload>) -> Result<u64, HandlerError<String>>;
}

/// What the client offers.
#[ringcall::service]
trait Source {
    async fn read(&self, piece: View<Piece>) -> WithAttachment<u32>;
}

struct Folder(PathBuf);

impl Storage for Folder {
    async fn store(&self, cx: &Context, upload: View<Upload>) -> Result<u64, HandlerError<String>> {
        let is_plain = |name: &str| !name.is_empty() && !name.contains(['/', '\0']) && name != "..";
        let len = upload.bytes.to_native();
        if !is_plain(&upload.name) || len > 10 * LEN {
            return Err("this is not stored here".to_owned().into());
        }
        // Creating a file may block for a moment; what is slow belongs on `tokio::task::spawn_blocking` or `#[method(offload)]`.
        let to = File::create(self.0.join(&*upload.name)).map_err(HandlerError::internal)?;
        let to = SharedFile::new(to).map_err(HandlerError::internal)?;
        let source = SourceClient::new(cx.client(&cx.local_peer()));
        let mut offset = 0;
        while offset < len {
            let bytes = PIECE.min(len - offset) as u32;
            let landing = to.range(offset, bytes as usize);
            let reply = source.read(&Piece { offset, bytes }).land_in(landing).await?;
            match reply.attachment {
                ReceivedAttachment::Landed(landed) if landed == u64::from(bytes) => {
                    offset += landed
                }
                _ => return Err("a piece is shorter than it was said to be".to_owned().into()),
            }
        }
        Ok(offset)
    }
}

struct Offered(SharedFile);

impl Source for Offered {
    async fn read(&self, piece: View<Piece>) -> WithAttachment<u32> {
        let range = self.0.range(piece.offset.to_native(), piece.bytes.to_native() as usize);
        WithAttachment::new(piece.bytes.to_native(), range)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = std::env::temp_dir().join(format!("ringcall-upload-{}", std::process::id()));
    fs::create_dir(&folder)?;
    let server = Server::bind("127.0.0.1:0").service(Folder(folder.clone()).into_storage());
    let server = server.start()?;

    let mut file =
        File::options().read(true).write(true).create_new(true).open(folder.join("mine"))?;
    for number in 0..LEN / MIB {
        file.write_all(&[number as u8; MIB as usize])?;
    }
    let offered = Offered(SharedFile::new(file)?);
    let storage = StorageClient::connect(server.address()).service(offered.into_source()).wait()?;
    let stored = storage.store(&Upload { name: "theirs".into(), bytes: LEN }).wait()?;

    let theirs = File::open(folder.join("theirs"))?;
    assert_eq!((*stored, theirs.metadata()?.len()), (LEN.into(), LEN));
    let mut mib = vec![0; MIB as usize];
    for number in 0..LEN / MIB {
        theirs.read_exact_at(&mut mib, number * MIB)?;
        assert!(mib.iter().all(|&byte| byte == number as u8));
    }
    let counters = server.stop();
    println!(
        "{} MiB stored; landed without a copy: {} MiB; bytes of frames that were copied: {}",
        LEN / MIB,
        counters.landed_in_files / MIB,
        counters.copied_bytes(),
    );
    fs::remove_dir_all(folder)?;
    Ok(())
}
