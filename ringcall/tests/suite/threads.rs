//! Clients on threads of their own.

use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;

use crate::alone::in_its_own_process;
use crate::common::*;
use ringcall::observe::{Event, Observer};
use ringcall::{Client, ClientThreads, ServeError, ShardConfig, WaitPolicy};

fn threads(pair: Pair, n: usize, wait: WaitPolicy) -> ClientThreads {
    let mut config = pair.connecting(ShardConfig::default());
    config.wait = wait;
    let threads = ClientThreads::start(n, config).expect("they start");
    assert_eq!(threads.transport().name, pair.client.to_string());
    threads
}

/// The thread on which a client is: that of its callbacks.
fn thread_of(kitchen: &KitchenClient<Client>) -> String {
    let (told, tells) = channel();
    kitchen.nothing().callback(move |end| {
        end.expect("answered");
        let _ = told.send(thread::current().name().unwrap_or_default().to_owned());
    });
    tells.recv().expect("it is told")
}

/// How many threads of this process have a name that begins so.
fn count(name: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let is_so = |task: std::io::Result<std::fs::DirEntry>| {
        let comm = task.and_then(|task| std::fs::read_to_string(task.path().join("comm")));
        comm.is_ok_and(|comm| comm.starts_with(name))
    };
    tasks.map(is_so).filter(|is_so| *is_so).count()
}

#[test]
fn clients_take_turns_on_the_threads_that_they_are_given() {
    over_every_pair(|pair| {
        let (server, _) = pair.serve();
        for wait in [WaitPolicy::Adaptive, WaitPolicy::Park] {
            let threads = threads(pair, 2, wait);
            assert_eq!(threads.len(), 2);
            let connect =
                || KitchenClient::connect(server.address()).threads(&threads).wait().unwrap();
            let clients = [connect(), connect(), connect()];
            let on: Vec<String> = clients.iter().map(thread_of).collect();
            assert_eq!(on, ["ringcall-client-0", "ringcall-client-1", "ringcall-client-0"]);
            assert_eq!(thread_of(&pair.kitchen(&server)), "ringcall-client");
            // They outlive the handle, and end with the clients.
            drop(threads);
            clients.iter().for_each(|client| drop(client.cook(&order(1)).wait().expect("cooked")));
        }
    });
}

#[test]
fn the_threads_of_clients_end_with_the_last_of_them() {
    // Other tests have threads of that name, too.
    let name = "the_threads_of_clients_end_with_the_last_of_them";
    in_its_own_process(module_path!(), name, || {
        over_every_engine_in_turn(|pair| {
            let (server, seen) = pair.serve();
            let threads = threads(pair, 3, WaitPolicy::Park);
            let client = KitchenClient::connect(server.address()).threads(&threads).wait().unwrap();
            drop(threads);
            assert_eq!(count("ringcall-client"), 3);
            // What the last client has left behind is done.
            let (told, tells) = channel();
            client.simmer(&50).callback(move |end| {
                let _ = told.send(end.is_ok());
            });
            drop(client);
            assert!(tells.recv().unwrap());
            assert_eq!(seen.finished.load(Ordering::SeqCst), 1);
            eventually("they have ended", || count("ringcall-client") == 0);
        });
    });
}

#[test]
fn settings_of_the_threads_are_those_of_their_clients() {
    struct Told(Mutex<HashSet<u64>>);
    impl Observer for Told {
        fn observe(&self, event: &Event<'_>) {
            if let Event::CallEnded(call, _) = event {
                assert!(self.0.lock().unwrap().insert(call.number), "told twice");
            }
        }
    }
    over_one_pair(|pair| {
        let (server, _) = pair.serve();
        let told = Arc::new(Told(Mutex::default()));
        let mut config = pair.connecting(ShardConfig::default());
        config.observers.add(Arc::clone(&told) as _);
        let threads = ClientThreads::start(1, config).unwrap();
        let client = KitchenClient::connect(server.address()).threads(&threads).wait().unwrap();
        (0..3).for_each(|_| drop(client.nothing().wait().unwrap()));
        assert_eq!(told.0.lock().unwrap().len(), 3);
        // What makes no sense is said at once.
        let mut config = ShardConfig::default();
        config.client = ringcall::Config::new().in_flight_max(0);
        let error = ClientThreads::start(2, config).expect_err("nothing could be called");
        assert!(matches!(error, ServeError::Config(_)), "{error}");
    });
}
