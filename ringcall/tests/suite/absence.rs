//! What operators and callers are told of instances that are not there.

use std::time::Duration;

use ringcall::cluster::discovery::{StaticSource, Wanted};
use ringcall::cluster::{Balanced, Clients, Settings, Watch};
use ringcall::{BlockOn, Bytes, Codec, UntypedCall};

#[test]
fn a_watched_channel_names_its_service_before_there_is_a_list() {
    let balanced = Balanced::new(Clients::new().unwrap(), Settings::new()).unwrap();
    let watch = Watch::new(Wanted::service("quotes"));
    let _watching = watch.start(StaticSource::new([]), balanced.clone()).unwrap();
    let call = UntypedCall::new(&balanced, "test.Quotes/last", Codec::RAW, Bytes::new()).unwrap();
    let text = call.wait().result.map_err(|error| error.failure().map(ToString::to_string));
    let text = text.map(drop).unwrap_err().unwrap();
    assert!(
        text.starts_with("there is no instance of \"quotes\" to call: none is known"),
        "{text}"
    );
    let ready = balanced.block_on(balanced.ready().within(Duration::from_millis(1)));
    assert!(ready.unwrap_err().to_string().contains("\"quotes\""));
}
