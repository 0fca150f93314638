//! What a server says of its types when it means harm, and what is left of it.

use ringcall::reflection::{MethodDescription, ServiceDescription};
use ringcall::{Codec, UntypedCall};
use ringcall_generic::{Catalog, GenericCall, GenericError, Method};
use serde_json::{Value, json};

fn description(name: &str, text_in: &str, text_out: &str) -> MethodDescription {
    MethodDescription {
        name: name.to_owned(),
        docs: String::new(),
        text_in: format!("rkyv-0.8/2;{text_in}"),
        text_out: format!("rkyv-0.8/2;{text_out}"),
        is_one_way: false,
        is_idempotent: false,
        deadline: None,
    }
}

fn read(methods: Vec<MethodDescription>) -> Catalog {
    Catalog::read([ServiceDescription { name: "a.B".to_owned(), docs: String::new(), methods }])
}

fn method(text_in: &str, text_out: &str) -> Method {
    let catalog = read(vec![description("method", text_in, text_out)]);
    catalog.method("a.B/method").expect("it is understood").clone()
}

fn of(text: &str) -> Method {
    method(text, &format!("{text};never"))
}

fn reason(method: &Method, value: &Value) -> String {
    method.encode_argument(value).unwrap_err().to_string()
}

#[test]
fn a_type_that_is_nothing_but_itself_has_no_values() {
    for text in ["struct A:1:1{0=^0 }", "struct A:1:1{0=box:4:4(^0 ) }"] {
        let method = of(text);
        assert!(reason(&method, &json!(5)).contains("nests too deep"));
        assert_eq!(method.decode_reply(&[5]), None);
        assert_eq!(method.example(), Value::Null);
        assert!(method.signature().contains("struct A("));
        assert_eq!(method.argument_schema()["$ref"], "#/$defs/A");
    }
}

/// `struct Chain(Option<Box<Chain>>)`, of which there is one value only.
#[test]
fn a_chain_of_nothing_ends() {
    let method = of("struct Chain:4:4{0=option:4:4(box:4:4(^0 ) ) }");
    assert_eq!(method.encode_argument(&Value::Null).unwrap(), [0xc0]);
    assert_eq!(method.decode_reply(&[0xc0]), Some(Value::Null));
    assert!(reason(&method, &json!(5)).contains("nests too deep"));
    assert_eq!(method.decode_reply(&[5]), None);
}

/// Types of which each is in the next one, and the last one's number. Nothing is made of them where they are defined.
fn chain(len: usize, field: &str) -> (String, usize) {
    let types = (1..len).fold("0=array-0(struct T{0=u8 } ) ".to_owned(), |text, number| {
        text + &format!("{number}=array-0(struct T{{{field}=^{number} }} ) ")
    });
    (types, len)
}

#[test]
fn long_chains_of_references_are_no_recursion() {
    for field in ["0", "a"] {
        let (types, last) = chain(6_000, field);
        let method = method(
            &format!("struct R{{{types}{last}=^{last} }}"),
            &format!("struct R{{{types}}};^{last}"),
        );
        assert_eq!(method.example(), Value::Null);
        assert!(method.signature().contains("struct T"));
        assert!(method.argument_schema()["$defs"].as_object().unwrap().len() > 6_000);
        assert!(method.error_schema().is_some());
        let expected = if field == "0" { None } else { Some(json!(5)) };
        assert_eq!(method.decode_error(&[5]), expected);
    }
}

#[test]
fn values_nest_as_deep_as_json_may() {
    let method = of("struct Node{next=option(box(^0 ) ) }");
    let nested = |depth: usize| (0..depth).fold(Value::Null, |next, _| json!({ "next": next }));
    let encoded = method.encode_argument(&nested(120)).unwrap();
    assert_eq!(method.decode_reply(&encoded), Some(nested(120)));
    assert!(reason(&method, &nested(200)).contains("nests too deep"));
    // The same where no type is known of what is in there.
    let method = of("something");
    assert!(method.encode_argument(&nested(120)).is_ok());
    assert!(reason(&method, &nested(200)).contains("nests too deep"));
}

#[test]
fn an_example_is_right_or_null() {
    let leaves = [
        "unit",
        "bool",
        "u8",
        "u16",
        "u32",
        "u64",
        "u128",
        "i8",
        "i16",
        "i32",
        "i64",
        "i128",
        "f32",
        "f64",
        "char",
        "nz-u8",
        "nz-i128",
        "string",
        "duration",
        "unix-time",
        "ipv4",
        "ipv6",
        "ip",
        "socket-v4",
        "socket-v6",
        "socket",
        "uuid",
        "bytes",
        "raw",
        "never",
        "nz-string",
        "instant",
        "array-100(u8 )",
        "array-20000(u8 )",
        "option(array-20000(u8 ) )",
        "tuple(never )",
        "option(never )",
        "enum E{A#0(0=never )B#1()}",
        "vec(struct S{a=array-64(string ) } )",
    ];
    for leaf in leaves {
        let method = of(leaf);
        let example = method.example();
        assert!(example.is_null() || method.encode_argument(&example).is_ok(), "{leaf}: {example}");
    }
    assert_eq!(of("array-100(u8 )").example().as_array().unwrap().len(), 100);
    assert_eq!(of("array-20000(u8 )").example(), Value::Null);
    assert_eq!(of("tuple(u8 never )").example(), Value::Null);
    assert_eq!(of("enum E{A#0(0=never )B#1()}").example(), json!("B"));
}

#[test]
fn an_example_has_no_more_than_a_mebibyte_of_names() {
    let name = "n".repeat(250);
    let many = |len: usize| format!("array-{len}(struct A{{{name}=u8 }} )");
    assert_eq!(of(&many(1000)).example().as_array().unwrap().len(), 1000);
    assert_eq!(of(&many(8000)).example(), Value::Null);
}

#[test]
fn zero_is_no_non_zero_number_however_it_is_written() {
    for zero in ["-0", "0", "+0", "-00"] {
        assert!(reason(&of("nz-i128"), &json!(zero)).contains("other than 0"), "{zero}");
        assert!(of("i128").encode_argument(&json!(zero)).is_ok(), "{zero}");
    }
}

#[test]
fn a_schema_takes_no_fields_that_encoding_does_not() {
    let method = of("struct A{a=u8 b=duration }");
    assert!(reason(&method, &json!({ "a": 1, "b": 1, "c": 1 })).contains("no field c"));
    let schema = &method.argument_schema()["$defs"]["A"];
    assert_eq!(schema["additionalProperties"], json!(false));
    let duration = &schema["properties"]["b"]["anyOf"][1];
    assert_eq!(duration["additionalProperties"], json!(false));
}

#[test]
fn names_of_callers_are_shortened_where_they_are_wrong() {
    let long = "x".repeat(10_000);
    let fields = of("struct A{a=u8 }");
    let variants = of("enum E{A#0()B#1(a=u8 )}");
    for text in [
        reason(&fields, &json!({ &long: 1 })),
        reason(&variants, &json!(long)),
        reason(&variants, &json!({ &long: 1 })),
        read(Vec::new()).find(&long).unwrap_err().to_string(),
    ] {
        assert!(text.len() < 200 && text.contains(&format!("{}…", &long[..60])), "{text}");
    }
}

#[test]
fn a_name_that_is_none_is_called_that() {
    let method = read(vec![description("no name", "unit", "unit;never")]);
    let method = method.method("a.B/no name").expect("it is listed");
    let shard = ringcall::Server::bind("127.0.0.1:0").start().unwrap();
    let client = ringcall::Client::connect(shard.address()).wait().unwrap();
    assert!(UntypedCall::new(&client, "a.B/no name", Codec::RAW, Vec::new()).is_err());
    let error = GenericCall::new(&client, method, &Value::Null).unwrap_err();
    assert!(matches!(error, GenericError::BadName { .. }), "{error}");
    assert!(error.to_string().contains("a.B/no name"), "{error}");
}

#[test]
fn methods_that_are_not_understood_are_left_out_and_named() {
    let catalog = read(vec![
        description("old", "u8", "unit;never"),
        description("new", "u8", "a newer grammar"),
        description("odd", "u8", "unit"),
        description("old", "bool", "unit;never"),
    ]);
    assert_eq!(catalog.not_understood(), ["a.B/new", "a.B/odd"]);
    assert!(catalog.method("a.B/new").is_none());
    let error = catalog.find("a.B/new").unwrap_err();
    assert!(matches!(error, GenericError::NotUnderstood { .. }), "{error}");
    // Of two that have one name it is the first one.
    assert!(catalog.method("a.B/old").unwrap().argument().is_leaf("u8"));
    assert_eq!(catalog.methods().count(), 2);
}
