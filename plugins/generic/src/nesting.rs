//! How deep types and values nest. Texts bound how deep types do as they are written, but those may refer to themselves.

use ringcall::shapes::{Described, Type};
use serde_json::Value;

/// How deep values may nest, which is as deep as JSON is read, and how many types may stand for one value.
pub(crate) const DEPTH_MAX: usize = 128;

/// What is written in place of a value of this type: a box, an option that is something and a struct of one place add
/// nothing to what is in them. So whoever goes on from here goes into a value, or is at its end.
///
/// `None` if there are too many of them, since a type may be nothing but itself.
pub(crate) fn bare<'a>(types: &'a Described, mut ty: &'a Type, value: &Value) -> Option<&'a Type> {
    for _ in 0..DEPTH_MAX {
        ty = match ty {
            Type::Container(name, inside) => match (name.as_str(), inside.as_slice()) {
                ("box", [inside]) => inside,
                ("option", [inside]) if !value.is_null() => inside,
                _ => return Some(ty),
            },
            Type::User(number) => match types.user(*number).variants.as_slice() {
                [of_struct] if !types.user(*number).is_enum && of_struct.has_places() => {
                    let [field] = of_struct.fields.as_slice() else { return Some(ty) };
                    &field.ty
                }
                _ => return Some(ty),
            },
            Type::Leaf(_) => return Some(ty),
        };
    }
    None
}
