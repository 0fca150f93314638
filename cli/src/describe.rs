//! `ringcall describe`.

use std::time::Duration;

use ringcall_generic::{Catalog, Method, Service};
use serde_json::{Map, Value, json};

use crate::args::{Describe, ServerArgs};
use crate::connect::connect;
use crate::exit::{Exit, Problem};
use crate::list::{flags, method_as_json};
use crate::screen::Screen;
use crate::text::{harmless, one_line, quoted};

pub(crate) fn run(args: &Describe, screen: &mut Screen<'_>) -> Result<Exit, Problem> {
    let catalog = Catalog::wait_for(&connect(&args.server)?)?;
    let chosen = choose(&catalog, args.of.as_deref())?;
    match (&chosen, args.schema, args.server.json) {
        (Chosen::Method(method), true, _) => screen.json(&schemas(method))?,
        (Chosen::Services(services), true, _) => {
            let methods = services.iter().flat_map(|service| service.methods());
            let all = methods.map(|method| (method.full_name().to_owned(), schemas(method)));
            screen.json(&all.collect::<Map<_, _>>().into())?;
        }
        (Chosen::Method(method), _, true) => screen.json(&as_json(method))?,
        (Chosen::Services(services), _, true) => {
            screen.json(&services.iter().map(|service| service_as_json(service)).collect())?;
        }
        (Chosen::Method(method), ..) => screen.line(&for_people(method, &args.server))?,
        (Chosen::Services(services), ..) => {
            for service in services {
                show_service(service, &args.server, screen)?;
            }
        }
    }
    Ok(Exit::Done)
}

/// What was asked for.
enum Chosen<'a> {
    Services(Vec<&'a Service>),
    Method(&'a Method),
}

fn choose<'a>(catalog: &'a Catalog, name: Option<&str>) -> Result<Chosen<'a>, Problem> {
    let services = catalog.services();
    match name {
        None => Ok(Chosen::Services(services.iter().collect())),
        Some(name) if name.contains('/') => Ok(Chosen::Method(catalog.find(name)?)),
        Some(name) => {
            let found = services.iter().find(|service| service.name() == name);
            let found = found.ok_or_else(|| no_such_service(name, services))?;
            Ok(Chosen::Services(vec![found]))
        }
    }
}

fn no_such_service(name: &str, services: &[Service]) -> Problem {
    const SHOWN_MAX: usize = 8;
    let mut names: Vec<_> = services.iter().map(Service::name).take(SHOWN_MAX).collect();
    if services.len() > SHOWN_MAX {
        names.push("others");
    }
    let names = names.join(", ");
    Problem::misused(format_args!("the server has no service {name}; it has {names}"))
}

fn show_service(
    service: &Service,
    server: &ServerArgs,
    screen: &mut Screen<'_>,
) -> Result<(), Problem> {
    screen.line(&one_line(service.name()))?;
    if !service.docs().trim().is_empty() {
        screen.line("")?;
        screen.line(&indented(service.docs()))?;
    }
    for method in service.methods() {
        screen.line("")?;
        screen.line(&for_people(method, server))?;
    }
    screen.line("")?;
    Ok(())
}

/// The name, and all else further to the right, in parts with a line between them.
fn for_people(method: &Method, server: &ServerArgs) -> String {
    let mut parts = vec![one_line(method.full_name())];
    let docs = method.docs();
    if !docs.trim().is_empty() {
        parts.push(indented(docs));
    }
    parts.push(indented(&method.signature()));
    let mut facts = flags(method);
    let deadline = method.deadline().map_or_else(
        || "deadline 1s (the default)".to_owned(),
        |deadline| format!("deadline {}", humantime::format_duration(rounded(deadline))),
    );
    facts.insert(0, &deadline);
    parts.push(indented(&facts.join(", ")));
    parts.push(indented(&command(method, server)));
    parts.join("\n\n")
}

/// To the microsecond: what is below is nobody's wish.
fn rounded(time: Duration) -> Duration {
    Duration::from_micros(time.as_micros() as u64)
}

/// What calls it, for a shell.
fn command(method: &Method, server: &ServerArgs) -> String {
    let name = one_line(method.full_name());
    let mut command = format!("ringcall call {} {}", quoted(&server.address), quoted(&name));
    if !method.argument().is_leaf("unit") {
        command.push(' ');
        command.push_str(&quoted(&crate::text::escaped(&method.example().to_string())));
    }
    if method.items_in().is_some() {
        let item = quoted(&crate::text::escaped(&method.example_item().to_string()));
        command.push_str(&format!(" --items {item}"));
    }
    command
}

fn indented(text: &str) -> String {
    let lines = text.trim_end().lines().map(|line| match line.trim_end() {
        "" => String::new(),
        line => format!("    {}", harmless(line)),
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn schemas(method: &Method) -> Value {
    let mut schemas =
        json!({ "argument": method.argument_schema(), "reply": method.reply_schema() });
    if let Some(error) = method.error_schema() {
        schemas["error"] = error;
    }
    schemas
}

fn as_json(method: &Method) -> Value {
    let mut described = method_as_json(method);
    described["signature"] = method.signature().into();
    described["example"] = method.example();
    described
}

fn service_as_json(service: &Service) -> Value {
    let methods: Vec<_> = service.methods().iter().map(as_json).collect();
    json!({ "service": service.name(), "docs": service.docs(), "methods": methods })
}
