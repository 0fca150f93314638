//! What hostile peers are tried with: a server as a process of its own, an honest client that measures, a proxy
//! that makes faults. The attacks are in `python/`, so that they are as independent of these crates as any
//! peer; `cargo xtask hostile` and `cargo xtask soak` put everything together. See `docs/HOSTILE.md`.

pub mod attackers;
pub mod honest;
pub mod live;
pub mod process;
pub mod proxy;
pub mod victim;
