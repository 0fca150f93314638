//! Rules. They are made as programs make them, so that there is nothing which only a text can say.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};

use super::{StatusText, Written, time, written};
use crate::route::{Action, BadRules, By, Match, Route, Rule, Rules, Subset, Text};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RulesText {
    #[serde(default)]
    version: u64,
    #[serde(default)]
    rules: Vec<Rule>,
}

impl TryFrom<RulesText> for Rules {
    type Error = BadRules;

    fn try_from(text: RulesText) -> Result<Rules, BadRules> {
        let rules = text.rules.into_iter().fold(Rules::new(text.version), Rules::with);
        rules.check().map(|()| rules)
    }
}

#[derive(serde::Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct MatchText {
    service: Option<String>,
    method: Option<String>,
    methods: Option<String>,
    metadata: BTreeMap<String, Text>,
    tag: BTreeMap<String, Text>,
    field: BTreeMap<String, Text>,
    number: BTreeMap<String, RangeText>,
    percent: Option<Percent>,
    by: Option<By>,
}

impl TryFrom<MatchText> for Match {
    type Error = &'static str;

    fn try_from(text: MatchText) -> Result<Match, &'static str> {
        let all = Match::all();
        let mut this = match (text.service, text.method, text.methods) {
            (None, None, None) => all,
            (Some(name), None, None) => all.service(name),
            (None, Some(name), None) => all.method(name),
            (None, None, Some(begin)) => all.methods(begin),
            _ => return Err("only one can be said of `service`, `method` and `methods`"),
        };
        this = text.metadata.into_iter().fold(this, |it, (key, value)| it.metadata(key, value));
        this = text.tag.into_iter().fold(this, |it, (key, value)| it.tag(key, value));
        this = text.field.into_iter().fold(this, |it, (name, value)| it.field(name, value));
        this = text.number.into_iter().fold(this, |it, (name, of)| it.number(name, of.range()));
        match (text.percent, text.by) {
            (None, None) => Ok(this),
            (Some(share), by) => Ok(this.per_10_000(share.per_10_000, by.unwrap_or(By::Chance))),
            (None, Some(_)) => Err("`by` says how a share is chosen, and `percent` says of none"),
        }
    }
}

/// Numbers with these two among them.
#[derive(serde::Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
struct RangeText {
    from: u64,
    to: Option<u64>,
}

impl RangeText {
    fn range(&self) -> RangeInclusive<u64> {
        self.from..=self.to.unwrap_or(u64::MAX)
    }
}

struct Percent {
    per_10_000: u32,
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Percent, D::Error> {
        from.deserialize_any(PercentVisitor)
    }
}

struct PercentVisitor;

impl Visitor<'_> for PercentVisitor {
    type Value = Percent;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a share in percent, 0 to 100, with two digits behind the point at most")
    }

    fn visit_u64<E: Error>(self, percent: u64) -> Result<Percent, E> {
        match u32::try_from(percent) {
            Ok(percent @ 0..=100) => Ok(Percent { per_10_000: percent * 100 }),
            _ => Err(E::invalid_value(Unexpected::Unsigned(percent), &self)),
        }
    }

    fn visit_i64<E: Error>(self, percent: i64) -> Result<Percent, E> {
        match u64::try_from(percent) {
            Ok(percent) => self.visit_u64(percent),
            Err(_) => Err(E::invalid_value(Unexpected::Signed(percent), &self)),
        }
    }

    fn visit_f64<E: Error>(self, percent: f64) -> Result<Percent, E> {
        let parts = (percent * 100.0).round();
        // 0.07 times 100 is not quite 7. What is no number is not near to any, either.
        let is_whole = (percent * 100.0 - parts).abs() < 1e-6;
        match is_whole && (0.0..=10_000.0).contains(&parts) {
            true => Ok(Percent { per_10_000: parts as u32 }),
            false => Err(E::invalid_value(Unexpected::Float(percent), &self)),
        }
    }
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Text, D::Error> {
        written(from)
    }
}

impl Written<'_> for Text {
    const ALLOWED: &'static str =
        "a text, { is = \"a text\" }, { begins = \"a text\" } or { present = true or false }";
    type Table = TextTable;

    fn of_word(word: &str) -> Option<Text> {
        Some(word.into())
    }
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum TextTable {
    Is(String),
    Begins(String),
    Present(bool),
}

impl From<TextTable> for Text {
    fn from(text: TextTable) -> Text {
        match text {
            TextTable::Is(text) => Text::Is(text),
            TextTable::Begins(text) => Text::Begins(text),
            TextTable::Present(true) => Text::Present,
            TextTable::Present(false) => Text::Absent,
        }
    }
}

impl<'de> Deserialize<'de> for By {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<By, D::Error> {
        written(from)
    }
}

impl Written<'_> for By {
    const ALLOWED: &'static str =
        "\"chance\", \"key\", { metadata = \"a key\" } or { field = \"a name\" }";
    type Table = ByTable;

    fn of_word(word: &str) -> Option<By> {
        match word {
            "chance" => Some(By::Chance),
            "key" => Some(By::Key),
            _ => None,
        }
    }
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ByTable {
    Metadata(String),
    Field(String),
}

impl From<ByTable> for By {
    fn from(by: ByTable) -> By {
        match by {
            ByTable::Metadata(key) => By::Metadata(key),
            ByTable::Field(name) => By::Field(name),
        }
    }
}

impl<'de> Deserialize<'de> for Action {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Action, D::Error> {
        written(from)
    }
}

impl Written<'_> for Action {
    const ALLOWED: &'static str = "one of { route = [lanes] }, { split = { routes = [{ weight, to }], by } }, \
         { exclude = { subset } }, { mirror = { subset } }, { deny = \"STATUS\" } and { delay = \"a time\" }";
    type Table = ActionTable;

    fn of_word(_word: &str) -> Option<Action> {
        None
    }
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum ActionTable {
    Route(Route),
    Split(SplitText),
    Exclude(Subset),
    Mirror(Subset),
    Deny(StatusText),
    Delay(#[serde(deserialize_with = "time")] Duration),
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SplitText {
    routes: Vec<WeightedText>,
    by: Option<By>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WeightedText {
    weight: u32,
    to: Route,
}

impl From<ActionTable> for Action {
    fn from(action: ActionTable) -> Action {
        match action {
            ActionTable::Route(route) => Action::route(route),
            ActionTable::Split(SplitText { routes, by }) => {
                let routes = routes.into_iter().map(|it| (it.weight, it.to));
                Action::split(routes, by.unwrap_or(By::Chance))
            }
            ActionTable::Exclude(subset) => Action::Exclude(subset),
            ActionTable::Mirror(subset) => Action::Mirror(subset),
            ActionTable::Deny(StatusText(status)) => Action::Deny(status),
            ActionTable::Delay(time) => Action::Delay(time),
        }
    }
}

#[derive(serde::Deserialize)]
#[serde(transparent)]
pub(crate) struct RouteText(Vec<Subset>);

impl TryFrom<RouteText> for Route {
    type Error = &'static str;

    fn try_from(RouteText(lanes): RouteText) -> Result<Route, &'static str> {
        let mut lanes = lanes.into_iter();
        let first =
            lanes.next().ok_or("a route has a lane at least: [\"any\"] is to any instance")?;
        Ok(lanes.fold(Route::to(first), Route::or))
    }
}

impl<'de> Deserialize<'de> for Subset {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Subset, D::Error> {
        written(from)
    }
}

impl Written<'_> for Subset {
    const ALLOWED: &'static str =
        "\"any\", or a table of `names`, `version`, `group`, `zone`, `tag` and `alike`";
    type Table = SubsetTable;
    const IS_ENUM: bool = false;

    fn of_word(word: &str) -> Option<Subset> {
        (word == "any").then(Subset::all)
    }
}

#[derive(serde::Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub(super) struct SubsetTable {
    names: Option<Vec<String>>,
    version: Option<Text>,
    group: Option<Text>,
    zone: Option<Text>,
    tag: BTreeMap<String, Text>,
    alike: Vec<String>,
}

impl From<SubsetTable> for Subset {
    fn from(table: SubsetTable) -> Subset {
        let mut this = table.names.map_or_else(Subset::all, Subset::named);
        this = table.version.into_iter().fold(this, Subset::version);
        this = table.group.into_iter().fold(this, Subset::group);
        this = table.zone.into_iter().fold(this, Subset::zone);
        this = table.tag.into_iter().fold(this, |it, (key, value)| it.tag(key, value));
        table.alike.into_iter().fold(this, Subset::alike)
    }
}
