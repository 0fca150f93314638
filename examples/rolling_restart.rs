//! Two servers, restarted in turn while clients call them: no call is lost, and none runs twice.
//!
//! ```text
//! $ cargo run --release --example rolling_restart -- 10
//! restart 1: 7 calls finished, 0 refused, 0 cancelled; 8 connections closed, 0 cut off; after 51 ms
//! …
//! 1806 transfers booked, 0 lost, 0 booked twice; 74 calls were made again elsewhere
//! ```

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::thread;
use std::time::Duration;

use ringcall::{Client, Context, RunningServer, Server};

#[ringcall::service]
trait Bank {
    /// Must not be done twice: nobody may try again unless it certainly did not run.
    async fn transfer(&self, cx: &Context, number: u64) -> u64;
}

/// The books, which outlive each server.
#[derive(Clone, Default)]
struct Books(Arc<Mutex<HashMap<u64, u32>>>);

impl Bank for Books {
    async fn transfer(&self, cx: &Context, number: u64) -> u64 {
        *self.0.lock().unwrap().entry(number).or_default() += 1;
        cx.sleep(Duration::from_millis(number % 50)).await;
        number
    }
}

fn start(books: &Books) -> Result<RunningServer, ringcall::ServeError> {
    Server::bind("127.0.0.1:0").service(books.clone().into_bank()).start()
}

/// Where the servers are; a registry would say.
#[derive(Default)]
struct Addresses(RwLock<Vec<String>>);

impl Addresses {
    fn publish(&self, servers: &[RunningServer]) {
        let addresses = servers.iter().map(|server| server.address().to_string());
        *self.0.write().unwrap() = addresses.collect();
    }

    fn connect(&self, turn: u64) -> Option<BankClient<Client>> {
        let address = {
            let addresses = self.0.read().unwrap();
            addresses[turn as usize % addresses.len()].clone()
        };
        BankClient::connect(&address[..]).wait().ok()
    }
}

/// Makes transfers until it is told to stop. How many, and how many of them failed.
fn call(teller: u64, addresses: &Addresses, again: &AtomicU64, stop: &AtomicBool) -> (u64, u64) {
    let (mut client, mut turn, mut lost) = (None, teller, 0);
    for round in 0.. {
        if stop.load(Ordering::Relaxed) {
            return (round, lost);
        }
        let number = teller << 32 | round;
        loop {
            let Some(bank) = client.take().or_else(|| addresses.connect(turn)) else {
                turn += 1;
                continue;
            };
            match bank.transfer(&number).wait() {
                Ok(_) => client = Some(bank),
                // The server goes, and has not run it.
                Err(error) if error.is_safe_to_retry() => {
                    again.fetch_add(1, Ordering::Relaxed);
                    turn += 1;
                    continue;
                }
                Err(error) => {
                    println!("transfer {number:x} is lost: {error}");
                    lost += 1;
                }
            }
            break;
        }
    }
    unreachable!("it is told to stop before")
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let restarts = std::env::args().nth(1).map_or(Ok(10), |text| text.parse::<usize>())?;
    let (books, addresses) = (Books::default(), Addresses::default());
    let mut servers = vec![start(&books)?, start(&books)?];
    addresses.publish(&servers);
    let (again, stop) = (AtomicU64::new(0), AtomicBool::new(false));

    let tellers = thread::scope(|scope| {
        let (addresses, again, stop) = (&addresses, &again, &stop);
        let tellers: Vec<_> = (0..16)
            .map(|teller| scope.spawn(move || call(teller, addresses, again, stop)))
            .collect();
        let restarted = (1..=restarts).try_for_each(|round| {
            thread::sleep(Duration::from_millis(50));
            // The oldest goes. Nobody hears of that but by its goodbye.
            let successor = start(&books)?;
            let old = servers.remove(0);
            println!("restart {round}: {}", old.drain());
            servers.push(successor);
            addresses.publish(&servers);
            Ok::<(), ringcall::ServeError>(())
        });
        stop.store(true, Ordering::Relaxed);
        let ends: Vec<_> = tellers.into_iter().filter_map(|teller| teller.join().ok()).collect();
        restarted.map(|()| ends)
    })?;

    let made: u64 = tellers.iter().map(|(made, _)| made).sum();
    let lost: u64 = tellers.iter().map(|(_, lost)| lost).sum();
    let books = books.0.lock().unwrap();
    let twice = books.values().filter(|times| **times > 1).count();
    println!(
        "{} transfers booked, {lost} lost, {twice} booked twice; {} calls were made again elsewhere",
        books.len(),
        again.load(Ordering::Relaxed)
    );
    if lost > 0 || twice > 0 || books.len() as u64 != made {
        return Err("a restart was noticed".into());
    }
    Ok(())
}
