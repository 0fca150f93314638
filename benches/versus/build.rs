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
    let echo = Service::builder()
        .package("versus")
        .name("Echo")
        .method(method("blob", "Blob", "super::Blob"))
        .method(method("order", "Order", "super::Order"))
        .build();
    Builder::new().compile(&[echo]);
}
