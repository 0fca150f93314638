//! What a server does before others can reach it, and whom it tells that it is there.

use std::sync::{Arc, Mutex};

use crate::common::{
    Cook, Kitchen as _, KitchenClient, PATIENT, Pair, Socket, over_every_pair, over_one_pair,
    socket_path,
};
use ringcall::{Address, Client, DrainStep, Register, ServeError, Server, StartError};

/// What happened, in order.
#[derive(Clone, Default)]
struct Trace(Arc<Mutex<Vec<String>>>);

impl Trace {
    fn note(&self, what: impl Into<String>) {
        self.0.lock().unwrap().push(what.into());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

/// A registry that calls whom it is told of, each time.
struct Registry {
    name: &'static str,
    pair: Pair,
    trace: Trace,
    server: Option<KitchenClient<Client>>,
    is_broken: bool,
}

impl Register for Registry {
    fn register(&mut self, address: &Address) -> Result<(), StartError> {
        if self.is_broken {
            return Err("the registry is on fire".into());
        }
        let server = connect(self.pair, address)?;
        server.nothing().wait()?;
        self.server = Some(server);
        self.trace.note(format!("{} was told", self.name));
        Ok(())
    }

    fn unregister(&mut self) {
        let server = self.server.take().expect("it was told");
        assert!(server.nothing().wait().is_ok(), "it still serves");
        self.trace.note(format!("{} took it back", self.name));
    }
}

fn connect(pair: Pair, address: &Address) -> Result<KitchenClient<Client>, StartError> {
    let client = pair.secured(KitchenClient::connect(address)).wait()?;
    Ok(client.with_options(PATIENT))
}

fn registry(pair: Pair, name: &'static str, trace: &Trace) -> Registry {
    Registry { name, pair, trace: trace.clone(), server: None, is_broken: false }
}

fn server(pair: Pair, at: &str) -> Server {
    pair.bind_at(at).shards(2).service(Cook::default().into_kitchen())
}

/// Where nobody listens yet.
fn somewhere(pair: Pair) -> String {
    match pair.socket {
        Socket::Unix => format!("unix:{}", socket_path().display()),
        Socket::Tcp => {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.local_addr().unwrap().to_string()
        }
    }
}

#[test]
fn f10_a_server_is_reached_when_it_is_ready_and_told_of_before_it_ends() {
    over_every_pair(|pair| {
        let (trace, at) = (Trace::default(), somewhere(pair));
        let private = Arc::new(Mutex::new(None));
        let (warmed, inside, outside) = (trace.clone(), Arc::clone(&private), at.clone());
        let (then, drained) = (trace.clone(), trace.clone());
        let running = server(pair, &at)
            .on_start(move |starting| {
                let itself = connect(pair, starting.address())?;
                itself.nothing().wait()?;
                assert!(connect(pair, &outside.parse()?).is_err(), "it is not exposed");
                *inside.lock().unwrap() = Some(starting.address().clone());
                warmed.note("warm");
                Ok(())
            })
            .on_start(move |_| {
                then.note("and ready");
                Ok(())
            })
            .register(registry(pair, "one", &trace))
            .register(registry(pair, "the other", &trace))
            .on_drain(move || drained.note("asked to drain"));
        let running = pair.start(running);
        assert_eq!(running.address(), &at.parse::<Address>().unwrap());
        assert_eq!(trace.take(), ["warm", "and ready", "one was told", "the other was told"]);
        let private = private.lock().unwrap().take().expect("the hook ran");
        assert!(connect(pair, &private).is_err(), "it is closed again");
        let Address::Unix(path) = private else { panic!("it is a path") };
        assert!(!std::path::Path::new(&path).parent().unwrap().exists());

        let report = running.drain();
        assert_eq!(trace.take(), ["the other took it back", "one took it back", "asked to drain"]);
        let of_first = report.steps.iter().filter(|(_, shard, _)| *shard == 0);
        let steps: Vec<_> = of_first.map(|(.., step)| *step).collect();
        assert_eq!(steps.first(), Some(&DrainStep::Unregistered));
        assert!(steps.is_sorted() && steps.last() == Some(&DrainStep::Closed), "{steps:?}");
        assert!(report.is_clean(), "{report}");
    });
}

#[test]
fn f10_a_server_that_is_not_ready_is_never_reached() {
    over_every_pair(|pair| {
        let (trace, at) = (Trace::default(), somewhere(pair));
        let then = trace.clone();
        let failed = server(pair, &at)
            .on_start(|_| Err("the disk is empty".into()))
            .on_start(move |_| {
                then.note("further hooks");
                Ok(())
            })
            .register(registry(pair, "one", &trace))
            .start()
            .expect_err("it is not ready");
        assert!(matches!(&failed, ServeError::Start(_)), "{failed}");
        assert!(failed.to_string().contains("the disk is empty"), "{failed}");
        assert_eq!(trace.take(), [""; 0]);
        assert!(connect(pair, &at.parse().unwrap()).is_err());
    });
}

#[test]
fn f10_a_server_that_cannot_be_registered_ends_and_takes_back_what_it_said() {
    over_every_pair(|pair| {
        let (trace, at) = (Trace::default(), somewhere(pair));
        let drained = trace.clone();
        let broken = Registry { is_broken: true, ..registry(pair, "two", &trace) };
        let failed = server(pair, &at)
            .register(registry(pair, "one", &trace))
            .register(broken)
            .register(registry(pair, "three", &trace))
            .on_drain(move || drained.note("asked to drain"))
            .start()
            .expect_err("it cannot be registered");
        assert!(matches!(&failed, ServeError::Register(_)), "{failed}");
        assert!(failed.to_string().contains("on fire"), "{failed}");
        assert_eq!(trace.take(), ["one was told", "one took it back"]);
        assert!(connect(pair, &at.parse().unwrap()).is_err());
        // The address is free again.
        pair.start(server(pair, &at)).drain();
    });
}

/// Panics when it should take something back.
struct Rude;

impl Register for Rude {
    fn register(&mut self, _: &Address) -> Result<(), StartError> {
        Ok(())
    }

    fn unregister(&mut self) {
        panic!("as asked");
    }
}

#[test]
fn f09_a_registry_that_panics_keeps_no_server_from_ending() {
    over_one_pair(|pair| {
        let trace = Trace::default();
        let running = server(pair, "127.0.0.1:0").register(registry(pair, "one", &trace));
        let running = pair.start(running.register(Rude));
        assert!(running.drain().is_clean());
        assert_eq!(trace.take(), ["one was told", "one took it back"]);
    });
}

#[test]
fn an_address_that_is_in_use_is_an_error_after_the_hooks() {
    over_one_pair(|pair| {
        let taken = pair.start(server(pair, "127.0.0.1:0"));
        let trace = Trace::default();
        let ran = trace.clone();
        let failed = server(pair, &taken.address().to_string())
            .on_start(move |_| {
                ran.note("warm");
                Ok(())
            })
            .start()
            .expect_err("it is in use");
        assert!(matches!(failed, ServeError::Listen { .. }), "{failed}");
        assert_eq!(trace.take(), ["warm"]);
    });
}
