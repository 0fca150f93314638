//! Messages of another library, in a codec of one's own: prost's, beside ringcall's own messages.
//!
//! ```text
//! $ cargo run --release --example prost_codec
//! from (3, 4) to (0, 0) it is 5
//! a newer caller is understood: its point has a name, which nobody here reads
//! ```

use std::marker::PhantomData;

use ringcall::{
    BlockingClient, Codec, EncodeError, Frozen, Invalid, Message, Server, Shape, Writer,
};

/// The codec's number: users have 32 of them.
const PROTOBUF: Codec = Codec::user(0);

/// Any message of prost's as one of ringcall's.
#[derive(Debug)]
struct Prost<T>(T);

impl<T: prost::Message + prost::Name + Default + 'static> Message for Prost<T> {
    // Nothing is read in place, so a receiver gets the value.
    type Received<B: Frozen> = Prost<T>;

    const CODEC: Codec = PROTOBUF;

    // protobuf copes with changed messages itself: both sides must only mean the same one.
    fn describe(shape: &mut Shape) {
        shape.opaque::<PhantomData<T>>(&format!("protobuf-{}", T::full_name()));
    }

    fn encode(&self, out: &mut Writer) -> Result<(), EncodeError> {
        Ok(out.put(&self.0.encode_to_vec())?)
    }

    fn receive<B: Frozen>(body: B) -> Result<Prost<T>, Invalid> {
        T::decode(body.as_ref()).map(Prost).map_err(|_| Invalid)
    }

    fn into_owned(received: Prost<T>) -> Prost<T> {
        received
    }

    fn into_owned_shared(received: Prost<T>) -> Prost<T> {
        received
    }
}

/// What `prost-build` makes of a `.proto` file.
#[derive(Clone, PartialEq, prost::Message)]
struct Point {
    #[prost(double, tag = "1")]
    x: f64,
    #[prost(double, tag = "2")]
    y: f64,
}

impl prost::Name for Point {
    const NAME: &'static str = "Point";
    const PACKAGE: &'static str = "geometry";
}

#[ringcall::service(name = "geometry.Measure")]
trait Measure {
    async fn distance_from_origin(&self, point: Prost<Point>) -> Result<f64, String>;
}

struct Ruler;

impl Measure for Ruler {
    async fn distance_from_origin(&self, Prost(point): Prost<Point>) -> Result<f64, String> {
        let distance = point.x.hypot(point.y);
        if distance.is_finite() { Ok(distance) } else { Err("it is nowhere".to_owned()) }
    }
}

/// The same program, built later.
mod newer {
    use super::Prost;

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Point {
        #[prost(double, tag = "1")]
        pub x: f64,
        #[prost(double, tag = "2")]
        pub y: f64,
        #[prost(string, tag = "3")]
        pub name: String,
    }

    impl prost::Name for Point {
        const NAME: &'static str = "Point";
        const PACKAGE: &'static str = "geometry";
    }

    #[ringcall::service(name = "geometry.Measure")]
    pub trait Measure {
        async fn distance_from_origin(&self, point: Prost<Point>) -> Result<f64, String>;
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Server::bind("127.0.0.1:0").service(Ruler.into_measure()).start()?;
    let client = BlockingClient::connect(server.address())?;

    let measure = MeasureClient::new(&client);
    let distance = measure.distance_from_origin(&Prost(Point { x: 3.0, y: 4.0 })).wait()?;
    println!("from (3, 4) to (0, 0) it is {}", distance.to_native());

    let measure = newer::MeasureClient::new(&client);
    let point = newer::Point { x: 3.0, y: 4.0, name: "P".into() };
    let distance = measure.distance_from_origin(&Prost(point)).wait()?;
    assert_eq!(distance.to_native(), 5.0);
    println!("a newer caller is understood: its point has a name, which nobody here reads");
    server.stop();
    Ok(())
}
