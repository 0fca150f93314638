//! Writes tonic's client and server from what follows: as from a `.proto` file, but without a compiler
//! for one.

use tonic_build::manual::{Builder, Method, Service};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let method = |name: &str, route: &str, message: &str| {
        Method::builder()
            .name(name)
            .route_name(route)
            .input_type(message)
            .output_type(message)
            .codec_path("tonic_prost::ProstCodec")
            .build()
    };
    let items = Method::builder()
        .name("items")
        .route_name("Items")
        .input_type("super::Blob")
        .output_type("super::Blob")
        .codec_path("tonic_prost::ProstCodec")
        .server_streaming()
        .build();
    let echo = Service::builder()
        .package("versus")
        .name("Echo")
        .method(method("blob", "Blob", "super::Blob"))
        .method(method("order", "Order", "super::Order"))
        .method(items)
        .build();
    Builder::new().compile(&[echo]);
}
