//! Settings and rules as text, in whichever format of serde: the feature `serde`.
//!
//! What is read has been checked, so whoever writes a file hears of a mistake where it is read, and not when it is put in
//! force. Names are those of the fields, every one may be left out that has a default, and one that is not known is an
//! error: it would be a setting of which nothing comes.
//!
//! What serde derives for enums is read otherwise by each format (YAML wants tags). So they are a word or a table with one
//! entry here, everywhere.

mod rules;
mod settings;
#[cfg(test)]
mod tests;

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use ringcall_core::Status;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Unexpected, Visitor};

pub(crate) use rules::{MatchText, RouteText, RulesText};

const A_TIME: &str = "a time such as \"250ms\", \"5s\" or \"10min\"";

/// A time as people write it.
pub(crate) fn time<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    from.deserialize_str(Time)
}

/// The same where there need not be one.
pub(crate) fn time_if_any<'de, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<Duration>, D::Error> {
    from.deserialize_option(IfAny(Time))
}

struct Time;

impl Visitor<'_> for Time {
    type Value = Duration;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(A_TIME)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
        humantime::parse_duration(text)
            .map_err(|why| E::custom(format_args!("{text:?} is not {A_TIME}: {why}")))
    }
}

struct IfAny<V>(V);

impl<'de> Visitor<'de> for IfAny<Time> {
    type Value = Option<Duration>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    fn visit_none<E>(self) -> Result<Option<Duration>, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Option<Duration>, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Option<Duration>, D::Error> {
        time(from).map(Some)
    }
}

/// Something that may be switched off: `false`, or a table; `true` is a table in which nothing is said. Not every format
/// has a word for nothing, TOML does not.
pub(crate) fn switch<'de, T: Deserialize<'de> + Default, D: Deserializer<'de>>(
    from: D,
) -> Result<Option<T>, D::Error> {
    from.deserialize_any(Switch(PhantomData))
}

struct Switch<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de> + Default> Visitor<'de> for Switch<T> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table of settings, true for its defaults or false for none")
    }

    fn visit_bool<E>(self, is_on: bool) -> Result<Option<T>, E> {
        Ok(is_on.then(T::default))
    }

    fn visit_none<E>(self) -> Result<Option<T>, E> {
        Ok(None)
    }

    fn visit_unit<E>(self) -> Result<Option<T>, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Option<T>, D::Error> {
        switch(from)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Option<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Some)
    }
}

/// What is written as a word or as a table.
trait Written<'de>: Sized {
    /// What may be written.
    const ALLOWED: &'static str;
    /// What a table says. Of an enum it has one entry, whose key is the variant.
    type Table: Deserialize<'de> + Into<Self>;
    /// Whether the table is an enum. One of a struct has been read to its end, and not every format can be asked again there.
    const IS_ENUM: bool = true;

    fn of_word(word: &str) -> Option<Self>;
}

fn written<'de, T: Written<'de>, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    from.deserialize_any(WordOrTable(PhantomData))
}

struct WordOrTable<T>(PhantomData<T>);

impl<'de, T: Written<'de>> Visitor<'de> for WordOrTable<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::ALLOWED)
    }

    fn visit_str<E: Error>(self, word: &str) -> Result<T, E> {
        T::of_word(word).ok_or_else(|| E::invalid_value(Unexpected::Str(word), &self))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        let table = T::Table::deserialize(MapAccessDeserializer::new(&mut map))?;
        // Of an enum nobody has looked whether there is more.
        let more = if T::IS_ENUM { map.next_key::<String>()? } else { None };
        match more {
            None => Ok(table.into()),
            Some(key) => Err(A::Error::custom(format_args!("`{key}` is one too many, for {self}"))),
        }
    }
}

impl<'de, T: Written<'de>> fmt::Display for WordOrTable<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.expecting(f)
    }
}

/// Statuses, by their names.
pub(crate) fn statuses<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Status>, D::Error> {
    let all = Vec::<StatusText>::deserialize(from)?;
    Ok(all.into_iter().map(|StatusText(status)| status).collect())
}

/// A status by its name, or by the number of one that is yours.
struct StatusText(Status);

impl<'de> Deserialize<'de> for StatusText {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<StatusText, D::Error> {
        from.deserialize_any(StatusVisitor).map(StatusText)
    }
}

struct StatusVisitor;

impl Visitor<'_> for StatusVisitor {
    type Value = Status;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the number of a status, or its name:")?;
        Status::ALL.iter().try_for_each(|(_, name)| write!(f, " {name}"))
    }

    fn visit_str<E: Error>(self, word: &str) -> Result<Status, E> {
        let found = Status::ALL.iter().find(|(_, name)| *name == word);
        let status = found.map(|(status, _)| *status);
        status.ok_or_else(|| E::invalid_value(Unexpected::Str(word), &self))
    }

    fn visit_u64<E: Error>(self, code: u64) -> Result<Status, E> {
        let code =
            u16::try_from(code).map_err(|_| E::invalid_value(Unexpected::Unsigned(code), &self))?;
        Ok(Status::from_wire(code))
    }

    fn visit_i64<E: Error>(self, code: i64) -> Result<Status, E> {
        let code =
            u16::try_from(code).map_err(|_| E::invalid_value(Unexpected::Signed(code), &self))?;
        Ok(Status::from_wire(code))
    }
}
