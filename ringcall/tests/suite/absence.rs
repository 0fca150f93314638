//! What operators and callers are told of instances that are not there.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::eventually;
use ringcall::cluster::discovery::{
    DiscoveryConfig, Instance, Revision, Snapshot, Source, Update, Wanted,
};
use ringcall::cluster::{Balanced, Clients, Instant, Settings, Watch};
use ringcall::{BlockOn, Bytes, Codec, UntypedCall};

#[test]
fn a_watched_channel_names_its_service_before_there_is_a_list() {
    let balanced = Balanced::new(Clients::new().unwrap(), Settings::new()).unwrap();
    let watch = Watch::new(Wanted::service("quotes"));
    let _watching = watch.start(Flaps::default(), balanced.clone()).unwrap();
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

/// Has three instances, and a fourth one each second time that it is asked.
#[derive(Default)]
struct Flaps {
    asked: u64,
    flaps: bool,
}

impl Source for Flaps {
    fn poll_update(&mut self, _: Instant) -> Option<Update> {
        if !self.flaps {
            return None;
        }
        self.asked += 1;
        let there = if self.asked.is_multiple_of(2) { 3 } else { 4 };
        let instance = |number: u16| {
            let address = std::net::SocketAddr::from(([127, 0, 0, 1], 1 + number));
            Instance::new("quotes", number.to_string(), address)
        };
        let revision = Revision { epoch: 1, number: self.asked };
        let instances = (0..there).map(instance).collect();
        Some(Update::Snapshot { snapshot: Snapshot { revision, instances }, clock_ms: None })
    }
}

#[test]
fn g06_one_that_flaps_is_told_to_the_hook_of_its_watch() {
    let balanced = Balanced::new(Clients::new().unwrap(), Settings::new()).unwrap();
    let told = Arc::new(Mutex::new(Vec::new()));
    let tell = Arc::clone(&told);
    let mut config = DiscoveryConfig::default();
    config.damping.quiet = Duration::ZERO;
    let watch = Watch::new(Wanted::service("quotes")).config(config).on_alarm(move |alarm| {
        tell.lock().unwrap().push(alarm.to_string());
    });
    let _watching = watch.start(Flaps { asked: 0, flaps: true }, balanced).unwrap();
    let of_flaps = || {
        let told = told.lock().unwrap();
        told.iter().filter(|text| text.contains("comes and goes")).cloned().collect::<Vec<_>>()
    };
    eventually("it is told", || !of_flaps().is_empty());
    assert!(of_flaps()[0].starts_with("the instance \"3\" comes and goes"), "{:?}", of_flaps());
}
