//! Streams under every spelling, and parameters with the names that the macro uses itself.

use ringcall::{Items, Stream, View};

#[ringcall::message]
#[derive(Debug)]
pub struct Line {
    text: String,
}

#[ringcall::message]
#[derive(Debug)]
pub struct Full;

#[ringcall::service(send)]
pub trait Sends {
    async fn lines(&self) -> Result<impl ringcall::Stream<Item = Line> + Send, Full>;
}

#[ringcall::service]
pub trait Lines {
    async fn all(&self, sink: u64, streams: ringcall::Items<View<Line>>) -> u64;
    async fn call(&self, held: View<Line>, items: impl Stream<Item = Line> + Unpin + 'static);
    async fn both(
        &self,
        answer: Items<Line>,
    ) -> ::std::result::Result<impl Stream<Item = Result<Line, Full>>, Full>;
}

struct Nobody;

impl Lines for Nobody {
    async fn all(&self, sink: u64, mut streams: Items<View<Line>>) -> u64 {
        let mut sum = sink;
        while let Some(line) = streams.next().await {
            sum += line.text.len() as u64;
        }
        sum
    }

    async fn call(&self, held: View<Line>, items: impl Stream<Item = Line> + Unpin + 'static) {
        drop((held, items));
    }

    async fn both(
        &self,
        answer: Items<Line>,
    ) -> Result<impl Stream<Item = Result<Line, Full>>, Full> {
        drop(answer);
        Err::<std::pin::Pin<Box<dyn Stream<Item = Result<Line, Full>>>>, Full>(Full)
    }
}

#[test]
fn it_is_accepted() {
    let _ = Nobody.into_lines();
}
