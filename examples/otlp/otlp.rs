//! Calls as traces of OpenTelemetry, sent to a collector by OTLP over HTTP: a caller, a service, and a second one
//! behind it, in one trace.
//!
//! ```text
//! cargo run --release -p ringcall-example-otlp
//! OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318 cargo run --release -p ringcall-example-otlp
//! ```
//!
//! Without a collector of yours the example is its own, and prints what it was sent.

use std::collections::HashMap;
use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use prost::Message;
use ringcall::{Client, Context, Server};
use ringcall_tracing::Spans;
use tracing_subscriber::layer::SubscriberExt;

#[ringcall::service(name = "demo.Prices")]
pub trait Prices {
    async fn price(&self, article: u64) -> u64;
}

#[ringcall::service(name = "demo.Orders")]
pub trait Orders {
    async fn order(&self, cx: &Context, article_and_amount: (u64, u64)) -> u64;
}

#[derive(Clone)]
struct Catalogue;

impl Prices for Catalogue {
    async fn price(&self, article: u64) -> u64 {
        article % 100
    }
}

#[derive(Clone)]
struct Desk {
    prices: Client,
}

impl Orders for Desk {
    async fn order(&self, cx: &Context, (article, amount): (u64, u64)) -> u64 {
        // Part of the trace of this call.
        let price = PricesClient::new(cx.client(&self.prices)).price(&article).await;
        price.map_or(0, |price| price.to_native() * amount)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let collector = match std::env::var_os("OTEL_EXPORTER_OTLP_ENDPOINT") {
        None => Some(Collector::start()?),
        Some(_) => None,
    };
    let provider = export_to(collector.as_ref())?;
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("ringcall"));
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(layer))?;
    let spans = || Arc::new(Spans::opentelemetry());

    let prices = Server::bind("127.0.0.1:0").service(Catalogue.into_prices());
    let prices = prices.observer(spans()).start()?;
    let desk = Desk { prices: Client::connect(prices.address()).observer(spans()).wait()? };
    let orders = Server::bind("127.0.0.1:0").service(desk.into_orders());
    let orders = orders.observer(spans()).start()?;

    let client = OrdersClient::connect(orders.address()).observer(spans()).wait()?;
    let total = tracing::info_span!("checkout").in_scope(|| client.order(&(1042, 3)).wait())?;
    println!("three of article 1042 cost {}", total.to_native());

    // Servers first: what they have served ends with them.
    drop((client, orders, prices));
    provider.shutdown()?;
    if let Some(collector) = collector {
        let all = collector.spans();
        print_below(&all, &[], 0);
        assert_eq!(depth_of(&all, "demo.Prices/price"), 4, "checkout, two calls made and served");
    }
    Ok(())
}

/// Sends spans in batches to the collector of the environment, or to our own.
fn export_to(collector: Option<&Collector>) -> Result<SdkTracerProvider, Box<dyn Error>> {
    let exporter = SpanExporter::builder().with_http();
    let exporter = match collector {
        Some(collector) => exporter.with_endpoint(&collector.url),
        None => exporter,
    };
    let resource = Resource::builder().with_service_name("ringcall-example").build();
    let provider = SdkTracerProvider::builder().with_resource(resource);
    Ok(provider.with_batch_exporter(exporter.build()?).build())
}

/// How many spans are around the innermost one of this name.
fn depth_of(all: &[Span], name: &str) -> usize {
    let by_id: HashMap<_, _> = all.iter().map(|span| (&span.span_id[..], span)).collect();
    let depth = |span: &Span| {
        let parents =
            std::iter::successors(Some(span), |span| by_id.get(&span.parent_span_id[..]).copied());
        parents.count() - 1
    };
    all.iter().filter(|span| span.name == name).map(depth).max().unwrap_or(0)
}

fn print_below(all: &[Span], parent: &[u8], depth: usize) {
    for span in all.iter().filter(|span| span.parent_span_id == parent) {
        let kind = match span.kind() {
            opentelemetry_proto::tonic::trace::v1::span::SpanKind::Client => "called ",
            opentelemetry_proto::tonic::trace::v1::span::SpanKind::Server => "served ",
            _ => "",
        };
        let took = (span.end_time_unix_nano - span.start_time_unix_nano) / 1000;
        println!("{:width$}{kind}{} {took} µs", "", span.name, width = depth * 2);
        print_below(all, &span.span_id, depth + 1);
    }
}

// ---- what stands for a collector ----

struct Collector {
    url: String,
    spans: Arc<Mutex<Vec<Span>>>,
}

impl Collector {
    fn start() -> std::io::Result<Collector> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let url = format!("http://{}/v1/traces", listener.local_addr()?);
        let spans = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&spans);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if let Err(error) = receive(&stream, &kept) {
                    eprintln!("the collector: {error}");
                }
            }
        });
        Ok(Collector { url, spans })
    }

    fn spans(&self) -> Vec<Span> {
        self.spans.lock().map(|spans| spans.clone()).unwrap_or_default()
    }
}

/// One request a connection; it comes from the exporter above.
fn receive(stream: &TcpStream, kept: &Mutex<Vec<Span>>) -> Result<(), Box<dyn Error>> {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.parse()?;
            }
            None if line.trim_end().is_empty() => break,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let request = ExportTraceServiceRequest::decode(&body[..])?;
    let spans = request.resource_spans.into_iter().flat_map(|it| it.scope_spans);
    if let Ok(mut kept) = kept.lock() {
        kept.extend(spans.flat_map(|it| it.spans));
    }
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    Ok((&mut &*stream).write_all(head.as_bytes())?)
}
