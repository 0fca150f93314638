//! The document of what there is, in OpenAPI 3.1.

use std::collections::{BTreeMap, HashMap};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use ringcall_generic::{Catalog, Method};
use serde_json::{Map, Value, json};

use crate::GatewayConfig;
use crate::listing::{docs, millis, which};

/// What stands in a path as it is. Braces would be a template.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'-').remove(b'_').remove(b'~');

pub(crate) fn document(catalog: &Catalog, config: &GatewayConfig) -> Value {
    let mut schemas = Schemas::default();
    let mut paths = Map::new();
    for method in catalog.methods() {
        let part = |text| utf8_percent_encode(text, PATH);
        let path = format!("/{}/{}", part(method.service()), part(method.name()));
        paths.insert(path, json!({ "post": operation(method, config, &mut schemas) }));
    }
    let tags = catalog.services().iter();
    let tags = tags.map(|it| json!({ "name": it.name(), "description": docs(it.docs()) }));
    let tags: Vec<_> = tags.collect();
    json!({
        "openapi": "3.1.0",
        "info": { "title": config.title, "version": env!("CARGO_PKG_VERSION") },
        "servers": [{ "url": "." }],
        "tags": tags,
        "paths": paths,
        "components": {
            "schemas": schemas.finish(),
            "parameters": parameters(config),
            "responses": { "Failure": failure() },
        },
    })
}

fn operation(method: &Method, config: &GatewayConfig, schemas: &mut Schemas) -> Value {
    let docs = docs(method.docs());
    let names = ["Deadline", "IdempotencyKey", "Group", "Traceparent"];
    let parameter = |name| json!({ "$ref": format!("#/components/parameters/{name}") });
    let mut operation = json!({
        "operationId": method.full_name(),
        "tags": [method.service()],
        "summary": docs.lines().next().unwrap_or_default(),
        "description": docs,
        "x-ringcall-idempotent": method.is_idempotent(),
        "parameters": names.map(parameter),
        "requestBody": request_body(method, schemas),
        "responses": responses(method, config, schemas),
    });
    if let Some(streams) = method.streams() {
        operation["x-ringcall-streams"] = which(streams).into();
    }
    // Whoever sends items takes its time, unless something is said of that.
    let unsaid = if method.items_in().is_some() { None } else { Some(config.deadline) };
    if let Some(deadline) = method.deadline().or(unsaid) {
        operation["x-ringcall-deadline-ms"] = millis(deadline.min(config.deadline_max)).into();
    }
    operation
}

fn request_body(method: &Method, schemas: &mut Schemas) -> Value {
    let is_required = !method.argument().is_leaf("unit");
    if let Some(item) = method.items_in_schema() {
        let argument = schemas.take(method.argument_schema());
        let item = schemas.take(item);
        let lines = json!({
            "schema": { "anyOf": [argument, item] },
            "x-ringcall-argument": argument,
            "x-ringcall-item": item,
        });
        return json!({
            "description": "A line of JSON each, which is what the schema is of: the first is the argument, the others are items.",
            "required": is_required,
            "content": { "application/x-ndjson": lines },
        });
    }
    match method.argument().is_leaf("raw") {
        true => json!({ "content": bytes() }),
        false => json!({
            "required": is_required,
            "content": in_json(schemas.take(method.argument_schema())),
        }),
    }
}

/// A stream of the server, of which a schema is that of a line.
fn lines(method: &Method, item: Value, schemas: &mut Schemas) -> Value {
    let item = schemas.take(item);
    let line = |name: &str, schema: Value| {
        json!({
            "type": "object",
            "properties": { name: schema },
            "required": [name],
            "additionalProperties": false,
        })
    };
    let mut any = vec![line("item", item.clone()), line("end", json!({ "type": "null" }))];
    any.extend(method.error_schema().map(|error| line("error", schemas.take(error))));
    any.push(line("failure", json!({ "$ref": FAILURE })));
    json!({
        "description": "A line of JSON for each item, as it comes, which is what the schema is of; empty lines are to be skipped. \
                        The last line has no item.",
        "content": { "application/x-ndjson": { "schema": { "oneOf": any }, "x-ringcall-item": item } },
    })
}

fn responses(method: &Method, config: &GatewayConfig, schemas: &mut Schemas) -> Value {
    let mut responses = Map::new();
    let item = method.items_out_schema();
    let (status, reply) = match (method.is_one_way(), method.reply().is_leaf("raw")) {
        _ if item.is_some() => ("200", lines(method, item.unwrap_or_default(), schemas)),
        (true, _) => ("202", json!({ "description": "It was sent." })),
        (_, true) => ("200", json!({ "description": "The reply.", "content": bytes() })),
        _ => {
            let content = in_json(schemas.take(method.reply_schema()));
            ("200", json!({ "description": "The reply.", "content": content }))
        }
    };
    responses.insert(status.to_owned(), reply);
    if let Some(error) = method.error_schema() {
        let schema = json!({
            "type": "object",
            "properties": { "error": schemas.take(error) },
            "required": ["error"],
        });
        let error =
            json!({ "description": "The error of the handler.", "content": in_json(schema) });
        responses.insert(config.error_status.as_str().to_owned(), error);
    }
    responses.insert("default".to_owned(), json!({ "$ref": "#/components/responses/Failure" }));
    responses.into()
}

fn in_json(schema: Value) -> Value {
    json!({ "application/json": { "schema": schema } })
}

fn bytes() -> Value {
    json!({ "application/octet-stream": {} })
}

fn parameters(config: &GatewayConfig) -> Value {
    let header = |name: &str, description: String| json!({ "name": name, "in": "header", "description": description, "schema": { "type": "string" } });
    let most = humantime::format_duration(config.deadline_max);
    json!({
        "Deadline": header("x-deadline", format!("How long to wait, such as `250ms` or `2s`: {most} at most.")),
        "IdempotencyKey": header("idempotency-key", "What the call is to do once, in 1 to 256 bytes.".to_owned()),
        "Group": header("x-ringcall-group", "The group of servers that is asked for.".to_owned()),
        "Traceparent": header("traceparent", "The trace that the call belongs to, as W3C has it.".to_owned()),
    })
}

/// The schema of those that are described below.
const FAILURE: &str = "#/components/responses/Failure/content/application~1json/schema";

fn failure() -> Value {
    let schema = json!({
        "type": "object",
        "properties": {
            "code": { "type": "string", "description": "A word for what happened, which does not change." },
            "message": { "type": "string", "description": "The same for people." },
            "may_have_run": { "type": "boolean", "description": "Whether the call may have run." },
            "field": { "type": "string", "description": "Where the argument or the item is wrong." },
            "line": { "type": "integer", "minimum": 1, "description": "The line of the body that is wrong." },
            "retry_after_ms": { "type": "integer", "minimum": 0 },
        },
        "required": ["code", "message", "may_have_run"],
    });
    json!({ "description": "There is no answer of the handler.", "content": in_json(schema) })
}

// ---- schemas ----

/// How many types in one are described: their comparison takes the square of it, and it is somebody else who says how many.
const TYPES_MAX: usize = 256;
/// Where a schema of a method has the types in it.
const DEFS: &str = "#/$defs/";

/// The types of all methods, each once: those of one name are the same if everything in them is.
#[derive(Default)]
struct Schemas {
    /// What they are called here, by their names there and what is in them.
    names: HashMap<String, String>,
    components: BTreeMap<String, Value>,
}

impl Schemas {
    /// A schema whose types are among those here from now on.
    fn take(&mut self, mut schema: Value) -> Value {
        let definitions = schema.as_object_mut().and_then(|it| it.remove("$defs"));
        let Some(Value::Object(definitions)) = definitions else { return schema };
        if definitions.len() > TYPES_MAX {
            return json!({ "description": "It has more types in it than are described here." });
        }
        let own = definitions.keys().map(|name| (name, self.name(name, &definitions)));
        let own: Vec<_> = own.collect();
        let renamed: HashMap<&str, String> =
            own.iter().map(|(name, (to, _))| (name.as_str(), to.clone())).collect();
        for (name, (to, is_new)) in &own {
            if *is_new {
                let mut definition = definitions[*name].clone();
                rename(&mut definition, &renamed);
                self.components.insert(to.clone(), definition);
            }
        }
        rename(&mut schema, &renamed);
        schema
    }

    /// What a type is called here, and whether it was not yet.
    fn name(&mut self, name: &str, definitions: &Map<String, Value>) -> (String, bool) {
        let whole = whole(name, definitions);
        if let Some(known) = self.names.get(&whole) {
            return (known.clone(), false);
        }
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let plain: String = name.chars().map(|c| if is_plain(c) { c } else { '_' }).collect();
        let is_taken = |name: &String| self.names.values().any(|taken| taken == name);
        let mut numbered = (2..).map(|number| format!("{plain}-{number}"));
        let free = Some(plain.clone()).filter(|plain| !plain.is_empty() && !is_taken(plain));
        let free = free.or_else(|| numbered.find(|name| !is_taken(name))).unwrap_or(plain);
        self.names.insert(whole, free.clone());
        (free, true)
    }

    fn finish(self) -> Value {
        self.components.into_iter().collect::<Map<_, _>>().into()
    }
}

/// A type with all that is in it, as a text that others have only if they are the same.
fn whole(name: &str, definitions: &Map<String, Value>) -> String {
    let mut names = vec![name.to_owned()];
    let mut done = 0;
    while done < names.len() {
        let mut found = Vec::new();
        definitions.get(&names[done]).into_iter().for_each(|it| collect(it, &mut found));
        for name in found {
            if !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
        done += 1;
    }
    let parts: Vec<_> = names.iter().map(|name| json!([name, definitions.get(name)])).collect();
    Value::from(parts).to_string()
}

fn collect<'a>(schema: &'a Value, found: &mut Vec<&'a str>) {
    match schema {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value.as_str().and_then(|it| it.strip_prefix(DEFS)) {
                    Some(name) if key == "$ref" => found.push(name),
                    _ => collect(value, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, found)),
        _ => {}
    }
}

fn rename(schema: &mut Value, names: &HashMap<&str, String>) {
    match schema {
        Value::Object(fields) => {
            for (key, value) in fields {
                let to = value.as_str().and_then(|it| names.get(it.strip_prefix(DEFS)?));
                match to {
                    Some(to) if key == "$ref" => {
                        *value = format!("#/components/schemas/{to}").into();
                    }
                    _ => rename(value, names),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(|value| rename(value, names)),
        _ => {}
    }
}
