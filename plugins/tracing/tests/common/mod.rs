//! A subscriber that keeps everything.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};
use tracing_core::span::Current;

pub type Fields = HashMap<&'static str, String>;

/// Keeps the fields of every span, whether it is closed, and the events.
#[derive(Clone, Debug, Default)]
pub struct Kept(Arc<Mutex<All>>);

#[derive(Debug, Default)]
struct All {
    spans: Vec<(Fields, &'static Metadata<'static>, usize)>,
    /// What was said, and the `span_id` of the span that was current.
    events: Vec<(String, Option<String>)>,
}

thread_local! {
    static ENTERED: RefCell<Vec<Id>> = const { RefCell::new(Vec::new()) };
}

struct Into<'a>(&'a mut Fields);

impl Visit for Into<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}").trim_matches('"').to_owned());
    }
}

impl Kept {
    /// The fields of all spans, once there are so many and all are closed; `parent` is the `span_id` of the one
    /// around it.
    pub fn closed(&self, number: usize) -> Vec<Fields> {
        for _ in 0..5000 {
            let all = self.0.lock().unwrap();
            if all.spans.len() >= number && all.spans.iter().all(|(.., handles)| *handles == 0) {
                assert_eq!(all.spans.len(), number, "{all:#?}");
                return all.spans.iter().map(|(fields, ..)| fields.clone()).collect();
            }
            drop(all);
            pause();
        }
        panic!("not {number} spans, or some are open: {:#?}", self.0.lock().unwrap());
    }

    /// What was said in a span.
    pub fn events_in(&self, span_id: &str) -> Vec<String> {
        let all = self.0.lock().unwrap();
        let within = all.events.iter().filter(|(_, within)| within.as_deref() == Some(span_id));
        within.map(|(message, _)| message.clone()).collect()
    }

    /// How much was said, in spans and elsewhere.
    pub fn event_count(&self) -> usize {
        self.0.lock().unwrap().events.len()
    }
}

impl Subscriber for Kept {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "ringcall"
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut fields = Fields::new();
        attributes.record(&mut Into(&mut fields));
        let mut all = self.0.lock().unwrap();
        if let Some(parent) = attributes.parent() {
            let parent = all.spans[parent.into_u64() as usize - 1].0["span_id"].clone();
            fields.insert("parent", parent);
        }
        all.spans.push((fields, attributes.metadata(), 1));
        Id::from_u64(all.spans.len() as u64)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        let mut all = self.0.lock().unwrap();
        values.record(&mut Into(&mut all.spans[span.into_u64() as usize - 1].0));
    }

    fn clone_span(&self, span: &Id) -> Id {
        self.0.lock().unwrap().spans[span.into_u64() as usize - 1].2 += 1;
        span.clone()
    }

    fn try_close(&self, span: Id) -> bool {
        let handles = &mut self.0.lock().unwrap().spans[span.into_u64() as usize - 1].2;
        *handles -= 1;
        *handles == 0
    }

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::new();
        event.record(&mut Into(&mut fields));
        let mut all = self.0.lock().unwrap();
        let current = ENTERED.with_borrow(|entered| entered.last().cloned());
        let within = current.map(|id| all.spans[id.into_u64() as usize - 1].0["span_id"].clone());
        all.events.push((fields.remove("message").unwrap_or_default(), within));
    }

    fn enter(&self, span: &Id) {
        ENTERED.with_borrow_mut(|entered| entered.push(span.clone()));
    }

    fn exit(&self, span: &Id) {
        assert_eq!(ENTERED.with_borrow_mut(Vec::pop).as_ref(), Some(span));
    }

    fn current_span(&self) -> Current {
        match ENTERED.with_borrow(|entered| entered.last().cloned()) {
            None => Current::none(),
            Some(id) => {
                let metadata = self.0.lock().unwrap().spans[id.into_u64() as usize - 1].1;
                Current::new(id, metadata)
            }
        }
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}
}

#[expect(clippy::disallowed_methods, reason = "tests may sleep")]
fn pause() {
    std::thread::sleep(Duration::from_millis(1));
}
