//! `#[service]`.

mod expand;
mod parse;
mod stream;

use proc_macro2::TokenStream;
use syn::Result;

pub(crate) fn expand(arguments: TokenStream, item: TokenStream) -> Result<TokenStream> {
    Ok(expand::expand(&parse::Service::parse(arguments, item)?))
}
