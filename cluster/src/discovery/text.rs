//! Lists of instances as text: one a line, for files and caches.
//!
//! ```text
//! # service name address, and what else is to say
//! quotes a1 127.0.0.1:7001 weight=200 zone=z1 group=blue version=1.2 tag.disk=fast
//! quotes a2 unix:/run/quotes identity=a2-7f
//! quotes a3 10.0.0.7:7001 tls_name=a3.example.com
//! ```
//!
//! Addresses are those of sockets: a name is not looked up here, but by [`DnsSource`](super::DnsSource). Spaces, `=`, `%`, `#` and what does not print are written as `%20`.

use std::fmt;
use std::fmt::Write as _;

use ringcall_core::{Address, Expected, Identity};

use super::{Instance, Invalid};

/// The largest text that is read.
pub(super) const TEXT_BYTES_MAX: usize = 16 << 20;

/// Why a text is not a list of instances.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadList {
    /// In which line, counted from 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for BadList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

impl std::error::Error for BadList {}

/// Reads a list of instances. It is all or nothing: half a list would look like one from which instances have
/// vanished.
///
/// # Errors
/// The first line that is not an instance, or that has the name of another one of its service.
pub fn read_list(text: &str) -> Result<Vec<Instance>, BadList> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(BadList { line: 1, what: "the list is larger than 16 MiB".to_owned() });
    }
    let mut names = std::collections::BTreeSet::new();
    let mut instances = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let bad = |what| BadList { line: index + 1, what };
        let instance = read_line(line).map_err(bad)?;
        if !names.insert((instance.service.clone(), instance.name.clone())) {
            return Err(bad(format!("there is another instance {:?}", instance.name)));
        }
        instances.push(instance);
    }
    Ok(instances)
}

fn read_line(line: &str) -> Result<Instance, String> {
    let mut words = line.split_ascii_whitespace();
    let mut next = || words.next().ok_or_else(|| "service, name and address are needed".to_owned());
    let (service, name, address) = (unescape(next()?)?, unescape(next()?)?, unescape(next()?)?);
    let address: Address = address.parse().map_err(|_| no_address(&address))?;
    let mut instance = Instance::new(service, name, address);
    for word in words {
        let (key, value) = word.split_once('=').ok_or_else(|| format!("{word:?} has no `=`"))?;
        let (key, value) = (unescape(key)?, unescape(value)?);
        let number = |text: &str| text.parse().map_err(|_| format!("{key}={text} is no number"));
        match &key[..] {
            "weight" => {
                instance.weight =
                    value.parse().map_err(|_| format!("weight={value} is no weight"))?;
            }
            "priority" => {
                instance.priority =
                    value.parse().map_err(|_| format!("priority={value} is no priority"))?;
            }
            "zone" => instance.zone = value,
            "group" => instance.group = value,
            "version" => instance.version = value,
            "identity" | "required_identity" => {
                let identity =
                    Identity::new(&value).map_err(|bad| format!("{key}={value}: {bad}"))?;
                let is_required = key != "identity";
                instance.identity = Some(Expected { identity, is_required });
            }
            "tls_name" => instance.tls_name = Some(value),
            "registered_ms" => instance.registered_ms = Some(number(&value)?),
            "shapes" => {
                let shapes = value.split(',').map(|it| u64::from_str_radix(it, 16));
                let shapes: Result<Vec<u64>, _> = shapes.collect();
                instance.shapes = shapes.map_err(|_| format!("shapes={value} is no list"))?;
            }
            _ => match key.strip_prefix("tag.") {
                Some(tag) => drop(instance.tags.insert(tag.to_owned(), value)),
                None => return Err(format!("{key:?} is not known; a tag is written tag.{key}=…")),
            },
        }
    }
    instance.check().map_err(|invalid: Invalid| format!("{:?}: {invalid}", instance.name))?;
    Ok(instance)
}

/// Names are no addresses here: an instance is at one place.
fn no_address(text: &str) -> String {
    format!(
        "{text:?} is not the address of an instance: write 127.0.0.1:7000, [::1]:7000 or unix:/path; names are looked up \
         by `DnsSource`"
    )
}

/// Writes a list as [`read_list`] reads it.
#[must_use]
pub fn format_list<'a>(instances: impl IntoIterator<Item = &'a Instance>) -> String {
    let mut text = String::new();
    for it in instances {
        let address = escape(&it.address.to_string());
        // Writing to a string does not fail.
        let _ = write!(text, "{} {} {address}", escape(&it.service), escape(&it.name));
        let _ = write!(text, " weight={}", it.weight);
        if it.priority != 0 {
            let _ = write!(text, " priority={}", it.priority);
        }
        let said = [("zone", &it.zone), ("group", &it.group), ("version", &it.version)];
        for (key, value) in said.iter().filter(|(_, value)| !value.is_empty()) {
            let _ = write!(text, " {key}={}", escape(value));
        }
        if let Some(Expected { identity, is_required }) = &it.identity {
            let key = if *is_required { "required_identity" } else { "identity" };
            let _ = write!(text, " {key}={}", escape(identity.as_str()));
        }
        if let Some(name) = &it.tls_name {
            let _ = write!(text, " tls_name={}", escape(name));
        }
        if let Some(at) = it.registered_ms {
            let _ = write!(text, " registered_ms={at}");
        }
        if !it.shapes.is_empty() {
            let shapes: Vec<String> = it.shapes.iter().map(|shape| format!("{shape:x}")).collect();
            let _ = write!(text, " shapes={}", shapes.join(","));
        }
        for (key, value) in &it.tags {
            let _ = write!(text, " tag.{}={}", escape(key), escape(value));
        }
        text.push('\n');
    }
    text
}

/// A list as a file has it, if it would be read as what it is.
#[cfg(feature = "file")]
pub(super) fn file_text<'a>(
    instances: impl IntoIterator<Item = &'a Instance>,
) -> Result<String, String> {
    let instances: Vec<&Instance> = instances.into_iter().collect();
    for instance in &instances {
        instance.check().map_err(|invalid| format!("{:?}: {invalid}", instance.name))?;
    }
    // Without a line it would look as if it was being written.
    let text = format!("{HEADING}\n{}", format_list(instances.iter().copied()));
    let read = read_list(&text).map_err(|bad| bad.what)?;
    match read.iter().zip(&instances).find(|(read, written)| read != *written) {
        Some((_, instance)) => Err(format!("{:?} cannot be written as it is", instance.name)),
        None => Ok(text),
    }
}

/// What a list that was written by a program begins with.
#[cfg(feature = "file")]
const HEADING: &str = "# service name address, and what else is to say";

fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        let is_plain = !c.is_whitespace() && !c.is_control() && !matches!(c, '=' | '%' | '#');
        if is_plain {
            escaped.push(c);
        } else {
            let mut bytes = [0; 4];
            for byte in c.encode_utf8(&mut bytes).bytes() {
                let _ = write!(escaped, "%{byte:02X}");
            }
        }
    }
    escaped
}

fn unescape(text: &str) -> Result<String, String> {
    let bad = || format!("{text:?} has a % that is not followed by two digits");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        if byte != b'%' {
            bytes.push(byte);
            rest = after;
            continue;
        }
        let (digits, after) = after.split_at_checked(2).ok_or_else(bad)?;
        // Or it would be a number with a sign.
        let is_number = digits.iter().all(u8::is_ascii_hexdigit);
        let digits = std::str::from_utf8(digits).ok().filter(|_| is_number).ok_or_else(bad)?;
        bytes.push(u8::from_str_radix(digits, 16).map_err(|_| bad())?);
        rest = after;
    }
    String::from_utf8(bytes).map_err(|_| format!("{text:?} is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_list_is_read_as_it_is_written() {
        let text = "\n# comment\nquotes a1 127.0.0.1:7001 weight=200 priority=1 zone=z1 tag.disk=very%20fast\n\
                    quotes a2 unix:/run/quotes group=blue version=2 registered_ms=17 shapes=1,ff\n\
                    quotes a3 unix:/run/a3 identity=a%203 tls_name=a3.example\nquotes a4 unix:/run/a4 required_identity=a4\n";
        let list = read_list(text).unwrap();
        assert_eq!(list.len(), 4);
        assert_eq!((list[0].weight, list[0].priority, &list[0].zone[..]), (200, 1, "z1"));
        assert_eq!(list[0].tags["disk"], "very fast");
        assert_eq!(
            (list[1].tls_name.as_deref(), list[2].tls_name.as_deref()),
            (None, Some("a3.example"))
        );
        assert_eq!((list[1].registered_ms, &list[1].shapes[..]), (Some(17), &[1, 255][..]));
        let expected = |n: usize| list[n].identity.clone().unwrap();
        assert_eq!(expected(2), Expected::new(Identity::new("a 3").unwrap()));
        assert_eq!(expected(3), Expected::new(Identity::new("a4").unwrap()).required());
        assert_eq!(read_list(&format_list(&list)).unwrap(), list);
    }

    #[test]
    fn what_is_wrong_with_a_list_is_told_with_its_line() {
        let wrong = |text: &str| read_list(text).unwrap_err().to_string();
        assert_eq!(wrong("\nquotes a1"), "line 2: service, name and address are needed");
        assert!(wrong("quotes a1 7000").contains("write 127.0.0.1:7000"));
        let name = wrong("quotes a1 localhost:7101");
        assert!(name.contains("\"localhost:7101\"") && name.contains("`DnsSource`"), "{name}");
        assert!(!name.contains("host:7000"), "{name}");
        assert!(wrong("quotes a1 127.0.0.1:1 colour=red").contains("tag.colour"));
        assert!(wrong("quotes a1 127.0.0.1:1 weight=-1").contains("weight=-1"));
        assert!(wrong("quotes a1 127.0.0.1:1 identity=a%0a").contains("control characters"));
        assert!(wrong("quotes a1 127.0.0.1:0").contains("nobody can be reached"));
        let twice = "quotes a1 127.0.0.1:1\nquotes a1 127.0.0.1:2";
        assert_eq!(wrong(twice), "line 2: there is another instance \"a1\"");
        for bad in ["a%2", "a%+5", "a%-5", "a%2g", "a%\u{e4}"] {
            assert!(wrong(&format!("quotes {bad} 127.0.0.1:1")).contains('%'), "{bad}");
        }
    }

    /// Mostly one that may be.
    #[cfg(feature = "file")]
    fn any_instance() -> impl Strategy<Value = Instance> {
        let text = || "[a-c]{1,2}|\\PC{0,8}|[ =%#\\t\u{a0}]{1,3}|[a-z]{255}\u{e4}?";
        let address = proptest::sample::select(vec![
            "127.0.0.1:1",
            "127.0.0.1:0",
            "[::1]:2",
            "[fe80::1%3]:4",
            "unix:/a b=%#",
            "unix:x",
        ]);
        let identity = (
            proptest::option::of(("[a-z ]{1,5}", any::<bool>())),
            proptest::option::of("[a-z. ]{0,5}"),
        );
        let numbers = (0..10_002_u32, 0..3_u16, any::<Option<u64>>());
        let tags = proptest::collection::btree_map(text(), text(), 0..3);
        let shapes = proptest::collection::vec(any::<u64>(), 0..3);
        let texts = (text(), text(), text(), text(), text());
        (texts, address, identity, numbers, tags, shapes).prop_map(
            |((service, name, zone, group, version), address, identity, numbers, tags, shapes)| {
                let mut it = Instance::new(service, name, address.parse::<Address>().unwrap());
                (it.zone, it.group, it.version) = (zone, group, version);
                (it.weight, it.priority, it.registered_ms) = numbers;
                (it.tags, it.shapes) = (tags, shapes);
                it.tls_name = identity.1;
                it.identity = identity.0.map(|(text, is_required)| Expected {
                    identity: Identity::new(&text).unwrap(),
                    is_required,
                });
                it
            },
        )
    }

    proptest! {
        #[test]
        fn g09_any_text_ends(text in "[ -~\n]{0,200}") {
            if let Ok(list) = read_list(&text) {
                prop_assert_eq!(read_list(&format_list(&list)), Ok(list));
            }
        }

        #[test]
        #[cfg(feature = "file")]
        fn g09_what_a_file_is_given_is_read_from_it_or_refused(
            list in proptest::collection::vec(any_instance(), 0..4),
        ) {
            let mut names: Vec<_> = list.iter().map(|it| (&it.service, &it.name)).collect();
            names.sort_unstable();
            names.dedup();
            let is_sound = names.len() == list.len() && list.iter().all(|it| it.check().is_ok());
            match file_text(&list) {
                Ok(text) => {
                    prop_assert!(is_sound && text.ends_with('\n'));
                    prop_assert_eq!(read_list(&text), Ok(list));
                }
                Err(what) => prop_assert!(!is_sound, "{}", what),
            }
        }

        #[test]
        fn what_is_written_is_read(name in "[^\\p{C}]{1,20}", tag in "[^\\p{C}]{1,20}") {
            let address: std::net::SocketAddr = ([127, 0, 0, 1], 1).into();
            let mut instance = Instance::new("s", name, address);
            instance.tags.insert(tag.clone(), tag);
            let list = vec![instance];
            prop_assert_eq!(read_list(&format_list(&list)), Ok(list));
        }
    }
}
