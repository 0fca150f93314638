//! Which groups an operator has moved instances to: a setting of the centre for each service, read as rules.
//!
//! Nothing is rewritten that instances say. A node tells them when they register, and they say it of themselves from then on: so a
//! server takes calls to its new group before any caller hears of it, and nodes that have read different versions tell
//! callers the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ringcall::cluster::discovery::Instance;
use serde::Deserialize;

use crate::wire::shown;
use crate::{Centre, GroupRules, Placement, RefusedRules, SettingRecord, Stamp};

/// Of a service.
const RULES_MAX: usize = 256;
/// How long the names of groups, instances and zones may be, and tags.
const WORD_BYTES_MAX: usize = 256;
/// How many services are remembered until it is looked for those that have no setting any more.
const KEPT_MIN: usize = 512;

/// The key of the setting that says it of a service.
pub(crate) fn key(service: &str) -> String {
    format!("groups/{service}")
}

/// Instances that are to be in a group: those of which all is so that is said here.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    names: Option<BTreeSet<String>>,
    tags: Option<BTreeMap<String, String>>,
    zone: Option<String>,
    group: String,
}

impl Rule {
    fn check(&self) -> Result<(), String> {
        let is_word = |word: &String| {
            (1..=WORD_BYTES_MAX).contains(&word.len()) && !word.chars().any(char::is_control)
        };
        let Rule { names, tags, zone, group } = self;
        let is_empty = names.as_ref().is_none_or(BTreeSet::is_empty)
            && tags.as_ref().is_none_or(BTreeMap::is_empty)
            && zone.is_none();
        if is_empty {
            return Err("it says of no instances: `names`, `tags` or `zone` do".to_owned());
        }
        let names = names.iter().flatten().chain(zone).chain([group]);
        let tags = tags.iter().flatten().flat_map(|(key, value)| [key, value]);
        match names.chain(tags).find(|word| !is_word(word)) {
            None => Ok(()),
            Some(word) => Err(format!(
                "{:?} cannot be a name: it has 1 to {WORD_BYTES_MAX} bytes and no control characters",
                word.chars().take(64).collect::<String>()
            )),
        }
    }

    fn is_about(&self, instance: &Instance) -> bool {
        let Rule { names, tags, zone, group: _ } = self;
        names.as_ref().is_none_or(|names| names.contains(&instance.name))
            && tags.iter().flatten().all(|(key, value)| instance.tags.get(key) == Some(value))
            && zone.as_ref().is_none_or(|zone| *zone == instance.zone)
    }
}

/// Reads a text, or says what is wrong with it.
fn read(text: &str) -> Result<Vec<Rule>, String> {
    let rules: Vec<Rule> = serde_json::from_str(text).map_err(|error| shown(&error.to_string()))?;
    if rules.len() > RULES_MAX {
        return Err(format!("it has {} rules, of {RULES_MAX} at most", rules.len()));
    }
    for (number, rule) in (1..).zip(&rules) {
        rule.check().map_err(|what| format!("rule {number}: {what}"))?;
    }
    Ok(rules)
}

/// What a node has read of the groups of all services.
#[derive(Debug, Default)]
pub(crate) struct Placing {
    services: BTreeMap<String, OfService>,
    /// When as many are kept, those that have no setting any more are forgotten.
    forget_at: usize,
    refused: u64,
}

#[derive(Debug)]
struct OfService {
    /// What was read last, whether it can be or not.
    read: Arc<SettingRecord>,
    in_force: Option<InForce>,
    refused: Option<RefusedRules>,
}

#[derive(Debug)]
struct InForce {
    version: Stamp,
    /// There are none once the setting was removed.
    rules: Vec<Rule>,
}

impl Placing {
    /// Where an instance is to be; `None` if this node cannot say.
    pub(crate) fn place(&mut self, centre: &Centre, instance: &Instance) -> Option<Placement> {
        let InForce { version, rules } = self.look(centre, &instance.service)?.in_force.as_ref()?;
        let rule = rules.iter().find(|rule| rule.is_about(instance));
        Some(Placement { version: *version, group: rule.map(|rule| rule.group.clone()) })
    }

    /// What is in force of a service, and what was refused.
    pub(crate) fn rules(&mut self, centre: &Centre, service: &str) -> GroupRules {
        let Some(of_service) = self.look(centre, service) else { return GroupRules::default() };
        let in_force = of_service.in_force.as_ref();
        GroupRules {
            version: in_force.map(|it| it.version),
            rules: in_force.map_or(0, |it| u32::try_from(it.rules.len()).unwrap_or(u32::MAX)),
            refused: of_service.refused.clone(),
        }
    }

    /// How many texts were refused.
    pub(crate) fn refused(&self) -> u64 {
        self.refused
    }

    /// What there is of a service, read anew if it has changed.
    fn look(&mut self, centre: &Centre, service: &str) -> Option<&OfService> {
        let Some(record) = centre.record(&key(service)) else {
            self.services.remove(service);
            return None;
        };
        let is_known = |it: &OfService| Arc::ptr_eq(&it.read, &record);
        if !self.services.get(service).is_some_and(is_known) {
            self.take(centre, service, record);
        }
        self.services.get(service)
    }

    fn take(&mut self, centre: &Centre, service: &str, record: Arc<SettingRecord>) {
        let version = record.version;
        let before = self.services.remove(service).and_then(|it| it.in_force);
        let read = record.text.as_deref().map_or(Ok(Vec::new()), read);
        let (in_force, refused) = match read {
            Ok(rules) => {
                let count = rules.len();
                log::info!(
                    "{count} rules for groups of {service:?} are in force, version {version}"
                );
                (Some(InForce { version, rules }), None)
            }
            Err(what) => {
                self.refused += 1;
                let key = key(service);
                log::error!("version {version} of the setting {key:?} is refused: {what}");
                (before, Some(RefusedRules { version, what }))
            }
        };
        self.forget(centre);
        self.services.insert(service.to_owned(), OfService { read: record, in_force, refused });
    }

    /// Those of which there is nothing any more, when they may have become many.
    fn forget(&mut self, centre: &Centre) {
        if self.services.len() >= self.forget_at.max(KEPT_MIN) {
            self.services.retain(|service, _| centre.record(&key(service)).is_some());
            self.forget_at = 2 * self.services.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_text_is_a_part_of_a_line() {
        let what =
            read(r#"[{"names": ["a"], "group": "b", "x\nERROR all is lost": 1}]"#).unwrap_err();
        assert!(what.contains("unknown field") && !what.contains('\n'), "{what:?}");
        let said = crate::Refused::BadInstance { what: "a\nERROR".to_owned() };
        assert_eq!(said.to_string(), "no instance: a ERROR");
    }

    fn instance(name: &str, zone: &str, tags: &[(&str, &str)]) -> Instance {
        let address = "127.0.0.1:7000".parse::<ringcall::Address>().expect("an address");
        let mut instance = Instance::new("quotes", name, address);
        instance.zone = zone.to_owned();
        instance.tags = tags.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        instance
    }

    fn group<'a>(rules: &'a [Rule], instance: &Instance) -> Option<&'a str> {
        rules.iter().find(|rule| rule.is_about(instance)).map(|rule| rule.group.as_str())
    }

    #[test]
    fn the_first_rule_counts_of_which_all_is_so() {
        let text = r#"[
            {"names": ["a1", "a2"], "zone": "z1", "group": "blue"},
            {"names": ["a1"], "group": "green"},
            {"tags": {"disk": "fast", "cpu": "new"}, "group": "red"}
        ]"#;
        let rules = read(text).unwrap();
        let both = [("cpu", "new"), ("disk", "fast"), ("x", "y")];
        assert_eq!(group(&rules, &instance("a1", "z1", &both)), Some("blue"));
        assert_eq!(group(&rules, &instance("a1", "z2", &both)), Some("green"));
        assert_eq!(group(&rules, &instance("a2", "z2", &both)), Some("red"));
        assert_eq!(group(&rules, &instance("a2", "z2", &both[..1])), None);
    }

    #[test]
    fn what_makes_no_sense_is_refused_and_says_where() {
        let refused = |text: &str| read(text).unwrap_err();
        assert!(refused("no").contains("line 1"));
        assert!(refused(r#"[{"name": "a1", "group": "blue"}]"#).contains("unknown field `name`"));
        assert!(refused(r#"[{"group": "blue"}]"#).starts_with("rule 1: it says of no instances"));
        assert!(refused(r#"[{"names": [], "tags": {}, "group": "blue"}]"#).starts_with("rule 1: "));
        assert!(refused(r#"[{"names": ["a"], "group": ""}]"#).contains("\"\" cannot be a name"));
        assert!(refused(r#"[{"zone": "z", "group": "a\nb"}]"#).contains("control"));
        let long = "x".repeat(WORD_BYTES_MAX + 1);
        assert!(refused(&format!(r#"[{{"zone": "{long}", "group": "g"}}]"#)).len() < 200);
        let rules = |count| vec![r#"{"names": ["a"], "group": "b"}"#; count].join(",");
        assert!(read(&format!("[{}]", rules(RULES_MAX))).is_ok());
        assert!(refused(&format!("[{}]", rules(RULES_MAX + 1))).contains("256 at most"));
        assert!(refused(&"[".repeat(100_000)).len() < 200);
    }
}
