//! A registry of three nodes. Servers come and go, a node goes for good, and a caller that asks the registry where they are
//! notices no failure.
//!
//! ```text
//! $ cargo run --example registry
//! two servers            s1, s2
//! a third one            s1, s2, s3
//! a node is gone         s1, s2, s3
//! the first one drains   s2, s3
//! a fourth one           s2, s3, s4
//! no node is left        s2, s3, s4
//! ```

use std::collections::BTreeMap;
use std::time::Duration;
use std::{env, fs, process};

use ringcall::{BlockOn, RunningServer, Server, ShardConfig};
use ringcall_registry::{
    Node, NodeConfig, Registrar, Registry as _, RegistryChannel, Replication as _, Tending,
    balanced,
};

#[ringcall::service(name = "example.Shop")]
trait Shop {
    /// Which server it is.
    #[method(idempotent)]
    async fn name(&self) -> String;
}

struct Named(String);

impl Shop for Named {
    async fn name(&self) -> String {
        self.0.clone()
    }
}

type Error = Box<dyn std::error::Error>;

/// A node, with a thread that keeps it up to date.
struct Running {
    server: RunningServer,
    _tending: Tending,
}

fn node(address: &str, all: &[String]) -> Result<Running, Error> {
    let mut config = NodeConfig::default();
    config.peers = all.to_vec();
    let node = Node::new(config);
    let tending = node.start(ShardConfig::default())?;
    let server = Server::bind(address)
        .service(node.clone().into_registry())
        .service(node.into_replication())
        .start()?;
    Ok(Running { server, _tending: tending })
}

fn shop(name: &str, registry: &[String]) -> Result<RunningServer, Error> {
    let registrar = Registrar::new(registry, "shop").name(name).lease(Duration::from_secs(3));
    let server = Server::bind("127.0.0.1:0").service(Named(name.to_owned()).into_shop());
    Ok(server.register(registrar).start()?)
}

/// Calls until all of these have answered, and nobody else has of the last fifty.
fn call_until(shop: &ShopClient<RegistryChannel>, names: &[&str]) -> Result<String, Error> {
    loop {
        let mut answers = BTreeMap::<String, u32>::new();
        for _ in 0..50 {
            *answers.entry(shop.name().wait()?.to_string()).or_default() += 1;
        }
        if answers.keys().map(String::as_str).eq(names.iter().copied()) {
            return Ok(names.join(", "));
        }
    }
}

fn main() -> Result<(), Error> {
    let folder = env::temp_dir().join(format!("ringcall-registry-example-{}", process::id()));
    fs::create_dir_all(&folder)?;
    let address = |name: &str| format!("unix:{}", folder.join(name).display());
    let registry: Vec<String> = ["r1", "r2", "r3"].iter().map(|name| address(name)).collect();
    let mut nodes = Vec::new();
    for address in &registry {
        nodes.push(node(address, &registry)?);
    }
    let one = shop("s1", &registry)?;
    let _two = shop("s2", &registry)?;

    let channel = balanced(&registry, "shop").start()?;
    channel.block_on(channel.ready().within(Duration::from_secs(10)))?;
    let client = ShopClient::new(channel);

    println!("two servers            {}", call_until(&client, &["s1", "s2"])?);
    let _three = shop("s3", &registry)?;
    println!("a third one            {}", call_until(&client, &["s1", "s2", "s3"])?);
    nodes.remove(0).server.stop();
    println!("a node is gone         {}", call_until(&client, &["s1", "s2", "s3"])?);
    one.drain();
    println!("the first one drains   {}", call_until(&client, &["s2", "s3"])?);
    let _four = shop("s4", &registry)?;
    println!("a fourth one           {}", call_until(&client, &["s2", "s3", "s4"])?);
    drop(nodes);
    println!("no node is left        {}", call_until(&client, &["s2", "s3", "s4"])?);
    fs::remove_dir_all(&folder)?;
    Ok(())
}
