//! Services of ringcall over HTTP, for whoever has no client of it: scripts, browsers, tools.
//!
//! A server that offers [`ringcall::reflection`] says what it serves, and a [`Gateway`] makes a call of each request
//! `POST /package.Service/method` whose body is the argument in JSON; streams are a line of JSON for each item. Beside that it has a console at `/`, where methods are tried
//! out, and `/openapi.json`, `/services.json` and `/healthz`. The page `docs/GATEWAY.md` has the tables of headers, of statuses and
//! of what may be set.
//!
//! ```no_run
//! use ringcall::{AnyChannel, Client};
//! use ringcall_gateway::{Gateway, GatewayConfig};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect("127.0.0.1:7000").lazy().await?;
//! let gateway = Gateway::new(AnyChannel::new(client), GatewayConfig::default())?;
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
//! let told_to_end = std::future::pending(); // `tokio::signal`, for example
//! gateway.serve(listener, told_to_end).await;
//! # Ok(()) }
//! ```
//!
//! [`Gateway::handle`] is the same for one request, within a service of hyper's or axum's:
//!
//! ```
//! # use ringcall_gateway::{Gateway, GatewayBody};
//! async fn answer(
//!     gateway: Gateway,
//!     request: http::Request<hyper::body::Incoming>,
//! ) -> http::Response<GatewayBody> {
//!     gateway.handle(request).await
//! }
//! ```
//!
//! It has no authentication of its own: [`Gateway::authorize`] takes a hook.

#![forbid(unsafe_code)]

mod answer;
mod body;
mod config;
mod console;
mod gateway;
mod known;
mod lines;
mod listing;
mod openapi;
mod origin;
mod problem;
mod request;
mod serve;
mod streams;
mod watch;

pub use body::GatewayBody;
pub use config::{BadGatewayConfig, GatewayConfig};
pub use gateway::Gateway;
pub use problem::http_status;
pub use serve::Stopped;
