//! Streams in the signature of a method, recognised by how they are written: nothing else is known here.

use syn::spanned::Spanned;
use syn::{
    AngleBracketedGenericArguments, Error, GenericArgument, PathArguments, Result, Type,
    TypeImplTrait, TypeParamBound,
};

use super::parse::ReplyStream;

/// What a parameter is a stream of: `impl Stream<Item = X>` or `Items<X>`.
pub(super) fn parameter(ty: &Type) -> Result<Option<Type>> {
    if let Type::ImplTrait(stream) = ty {
        return item(stream).map(Some);
    }
    let Some(arguments) = arguments_of("Items", ty) else { return Ok(None) };
    let mut types = types(arguments);
    match (types.next(), types.next()) {
        (Some(item), None) => Ok(Some(item.clone())),
        _ => Err(Error::new(ty.span(), "write what it is a stream of: `Items<Message>`")),
    }
}

/// A reply that is a stream: `impl Stream<Item = M>` or `Result<impl Stream<Item = M>, E>`.
pub(super) fn reply(ty: &Type) -> Result<Option<ReplyStream>> {
    if let Type::ImplTrait(stream) = ty {
        return stream_of(ty, item(stream)?, None).map(Some);
    }
    let Some(arguments) = arguments_of("Result", ty) else { return Ok(None) };
    let mut types = types(arguments);
    let Some(Type::ImplTrait(stream)) = types.next() else { return Ok(None) };
    let item = item(stream)?;
    match types.next() {
        Some(error) => stream_of(ty, item, Some(error.clone())).map(Some),
        None => Err(Error::new(
            ty.span(),
            "write the error, too: `Result<impl Stream<Item = Message>, Error>`",
        )),
    }
}

fn stream_of(ty: &Type, item: Type, error: Option<Type>) -> Result<ReplyStream> {
    let may_fail = error.is_some();
    let mut reply =
        ReplyStream { ty: ty.clone(), item, error, may_fail, may_end_with_error: false };
    if let Some(arguments) = arguments_of("Result", &reply.item) {
        let both: Vec<Type> = types(arguments).cloned().collect();
        let Ok([item, error]) = <[Type; 2]>::try_from(both) else {
            return Err(Error::new(
                reply.item.span(),
                "write the error, too: `impl Stream<Item = Result<Message, Error>>`",
            ));
        };
        reply.item = item;
        reply.error.get_or_insert(error);
        reply.may_end_with_error = true;
    }
    Ok(reply)
}

/// The `X` of `impl Stream<Item = X>`.
fn item(stream: &TypeImplTrait) -> Result<Type> {
    let item = stream.bounds.iter().find_map(|bound| {
        let TypeParamBound::Trait(bound) = bound else { return None };
        let last = bound.path.segments.last()?;
        let PathArguments::AngleBracketed(arguments) = &last.arguments else { return None };
        if last.ident != "Stream" {
            return None;
        }
        arguments.args.iter().find_map(|argument| match argument {
            GenericArgument::AssocType(item) if item.ident == "Item" => Some(item.ty.clone()),
            _ => None,
        })
    });
    item.ok_or_else(|| {
        Error::new(
            stream.span(),
            "only streams are written with `impl` in a service: `impl Stream<Item = Message>`",
        )
    })
}

/// What is in the angle brackets of a path that ends with this name.
fn arguments_of<'a>(name: &str, ty: &'a Type) -> Option<&'a AngleBracketedGenericArguments> {
    let Type::Path(path) = ty else { return None };
    let last = path.path.segments.last()?;
    match &last.arguments {
        PathArguments::AngleBracketed(arguments) if last.ident == name => Some(arguments),
        _ => None,
    }
}

fn types(arguments: &AngleBracketedGenericArguments) -> impl Iterator<Item = &Type> {
    arguments.args.iter().filter_map(|argument| match argument {
        GenericArgument::Type(ty) => Some(ty),
        _ => None,
    })
}
