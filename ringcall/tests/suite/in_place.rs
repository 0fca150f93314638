//! Messages with large `Bytes`, which are sent from where they are, over every engine and socket.
#![cfg(feature = "bytes")]

use std::pin::Pin;
use std::task::{Context, Poll};

use crate::common::{Pair, over_every_pair};
use ringcall::{
    BlockOn, BlockingClient, Bytes, Channel, IntoOwned, ReceivedAttachment, SharedView, Stream,
    View, WithAttachment,
};

#[ringcall::message]
#[derive(Clone, Debug, PartialEq)]
struct Picture {
    name: String,
    image: Bytes,
    thumbnail: Bytes,
    tags: Vec<String>,
}

#[ringcall::service(name = "test.Gallery")]
trait Gallery {
    async fn copy(&self, picture: View<Picture>) -> Picture;
    #[method(offload)]
    async fn refuse(&self, picture: SharedView<Picture>) -> Result<u8, Picture>;
    async fn with_frame(
        &self,
        picture: WithAttachment<View<Picture>, ReceivedAttachment>,
    ) -> WithAttachment<Picture>;
    async fn twice(&self, picture: View<Picture>) -> impl Stream<Item = Picture>;
}

struct Walls;

fn copy(picture: &View<Picture>) -> Picture {
    Picture {
        name: picture.name.as_str().into(),
        image: picture.slice_ref(&picture.image),
        thumbnail: picture.slice_ref(&picture.thumbnail),
        tags: picture.tags.iter().map(|tag| tag.as_str().into()).collect(),
    }
}

struct Twice(Vec<Picture>);

impl Stream for Twice {
    type Item = Picture;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Picture>> {
        Poll::Ready(self.0.pop())
    }
}

impl Gallery for Walls {
    async fn copy(&self, picture: View<Picture>) -> Picture {
        copy(&picture)
    }

    async fn refuse(&self, picture: SharedView<Picture>) -> Result<u8, Picture> {
        Err(picture.to_owned())
    }

    async fn with_frame(
        &self,
        picture: WithAttachment<View<Picture>, ReceivedAttachment>,
    ) -> WithAttachment<Picture> {
        let frame = picture.attachment.bytes().to_vec();
        WithAttachment::new(copy(&picture.message), Bytes::from(frame))
    }

    async fn twice(&self, picture: View<Picture>) -> impl Stream<Item = Picture> {
        Twice(vec![copy(&picture); 2])
    }
}

fn picture(image: usize, thumbnail: usize) -> Picture {
    let bytes = |len: usize| (0..len).map(|index| ((index * 31) >> 3) as u8).collect::<Bytes>();
    Picture {
        name: "sea".into(),
        image: bytes(image),
        thumbnail: bytes(thumbnail),
        tags: vec!["blue".into(), "wet".into()],
    }
}

/// Small, just large, two that are large, and what is cut into frames.
const LENS: [(usize, usize); 6] =
    [(0, 10), (16_383, 10), (16_384, 0), (70_000, 40_000), (3, 262_144), (1_000_003, 20_000)];

fn call<C: BlockOn + Channel<Body: IntoOwned>>(gallery: &GalleryClient<C>) {
    for (image, thumbnail) in LENS {
        let picture = picture(image, thumbnail);
        assert_eq!(gallery.copy(&picture).wait().unwrap().to_owned(), picture);
        let Err(ringcall::CallError::App(refused)) = gallery.refuse(&picture).wait() else {
            panic!("it does not refuse");
        };
        assert_eq!(refused, picture);
        #[cfg(feature = "lz4")]
        {
            let packed = gallery.copy(&picture).compression(Some(ringcall::Compression::Lz4));
            assert_eq!(packed.wait().unwrap().to_owned(), picture);
        }
        let frame = Bytes::from(vec![9; 100_000]);
        let framed = WithAttachment::new(picture.clone(), frame.clone());
        let answer = gallery.with_frame(&framed).wait().unwrap();
        assert_eq!(answer.message.to_owned(), picture);
        assert_eq!(answer.attachment.bytes(), &frame[..]);
    }
}

fn serve(pair: Pair) -> ringcall::RunningServer {
    pair.start(pair.bind().service(Walls.into_gallery()))
}

#[test]
fn large_bytes_arrive_among_the_rest_of_their_message() {
    over_every_pair(|pair| {
        let server = serve(pair);
        let client = pair.secured(ringcall::Client::connect(server.address())).wait().unwrap();
        let gallery = GalleryClient::new(client);
        call(&gallery);
        for (image, thumbnail) in LENS {
            let picture = picture(image, thumbnail);
            let mut items = gallery.twice(&picture).wait().unwrap();
            let items: Vec<_> = items.wait_each().map(|item| item.unwrap().to_owned()).collect();
            assert_eq!(items, [picture.clone(), picture]);
        }
        let blocking: BlockingClient = pair.blocking(&server);
        call(&GalleryClient::new(&blocking));
        server.stop();
    });
}
