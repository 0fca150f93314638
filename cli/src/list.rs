//! `ringcall list`.

use ringcall_generic::{Catalog, Method, Service};
use serde_json::{Value, json};

use crate::args::List;
use crate::connect::connect;
use crate::exit::{Exit, Problem};
use crate::screen::Screen;
use crate::text::{first_line, one_line};

pub(crate) fn run(args: &List, screen: &mut Screen<'_>) -> Result<Exit, Problem> {
    let catalog = Catalog::wait_for(&connect(&args.server)?)?;
    for method in catalog.not_understood() {
        let method = one_line(method);
        screen.note(&format!(
            "{method} is left out: what the server says of its types cannot be understood"
        ))?;
    }
    if args.server.json {
        screen.json(&catalog.services().iter().map(as_json).collect())?;
        return Ok(Exit::Done);
    }
    let rows: Vec<_> = catalog.services().iter().flat_map(rows).collect();
    let width = |column: usize| {
        let widths = rows.iter().map(|row| row[column].chars().count());
        widths.max().unwrap_or_default()
    };
    let (names, flags) = (width(0), width(1));
    for [name, of_method, docs] in &rows {
        screen.line(format!("{name:names$}  {of_method:flags$}  {docs}").trim_end())?;
    }
    Ok(Exit::Done)
}

/// Of the service and of its methods: name, flags, docs.
fn rows(service: &Service) -> impl Iterator<Item = [String; 3]> {
    let own = [one_line(service.name()), String::new(), first_line(service.docs())];
    let of_method = |method: &Method| {
        [one_line(method.full_name()), flags(method).join(" "), first_line(method.docs())]
    };
    std::iter::once(own).chain(service.methods().iter().map(of_method))
}

/// What is special about a method.
pub(crate) fn flags(method: &Method) -> Vec<&'static str> {
    let flags = [
        (method.is_one_way(), "one-way"),
        (method.is_idempotent(), "idempotent"),
        (method.has_streams(), "streams"),
    ];
    flags.into_iter().filter(|(is_so, _)| *is_so).map(|(_, flag)| flag).collect()
}

fn as_json(service: &Service) -> Value {
    let methods: Vec<_> = service.methods().iter().map(method_as_json).collect();
    json!({ "service": service.name(), "docs": service.docs(), "methods": methods })
}

/// What there is in a line of the list, and how long callers wait.
pub(crate) fn method_as_json(method: &Method) -> Value {
    json!({
        "method": method.full_name(),
        "docs": method.docs(),
        "one_way": method.is_one_way(),
        "idempotent": method.is_idempotent(),
        "streams": method.has_streams(),
        "deadline_ms": method.deadline().map(|deadline| deadline.as_secs_f64() * 1e3),
    })
}
