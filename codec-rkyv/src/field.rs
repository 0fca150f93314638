//! Fields of messages, for the code that `#[message]` makes.

use core::marker::PhantomData;

use crate::{Shape, WireType};

/// A field of a type that is a wire type, as a bound elsewhere says. If it is not, that bound is the one place where the
/// compiler says so: what is asked of the field is [nothing](NoField) then.
#[doc(hidden)]
#[derive(Debug)]
pub struct FieldOf<T>(PhantomData<T>);

impl<T: WireType> FieldOf<T> {
    pub const CHECK: () = T::CHECK;

    pub fn describe(shape: &mut Shape, name: &str) {
        shape.field::<T>(name);
    }
}

/// What the compiler finds where it finds none of the above.
#[doc(hidden)]
pub trait NoField {
    const CHECK: () = ();

    fn describe(_: &mut Shape, _: &str) {
        unreachable!("a field that is no wire type does not compile");
    }
}

impl<T> NoField for FieldOf<T> {}
