//! Rules as they are in force for one caller: what can be decided once is decided.

use std::ops::{ControlFlow, RangeInclusive};
use std::sync::Arc;
use std::time::Duration;

use ringcall_core::{Entropy, SplitMix64, Status};

use super::asked::{Field, Reader};
use super::rule::{CallTest, Condition, Methods, Share};
use super::{Action, Asked, By, Caller, Fields, Groups, Rule, Rules, Subset, Text};
use crate::balance::{hash, mix};
use crate::discovery::Instance;
use crate::settings::Settings;

/// Rules in force, for one caller.
#[derive(Debug)]
pub(crate) struct Router {
    pub(super) rules: Arc<Rules>,
    pub(super) caller: Caller,
    pub(super) groups: Option<Groups>,
    /// Those that are about calls of this caller, in order.
    compiled: Vec<Compiled>,
    /// Of all rules that have some: which rule, and the lanes.
    pub(super) routes: Vec<(u8, Vec<Subset>)>,
}

#[derive(Debug)]
struct Compiled {
    /// Which rule it is.
    rule: u8,
    method: Option<Methods>,
    conditions: Box<[Seen]>,
    share: Option<(u32, Draw)>,
    then: Then,
}

#[derive(Debug)]
enum Then {
    /// To one of the routes from `first` on: to each up to a number, of `of` in all.
    Route {
        first: u16,
        up_to: Box<[u32]>,
        of: u32,
        draw: Draw,
    },
    Exclude,
    Mirror,
    Deny(Status),
    Delay(Duration),
}

/// What is looked at in each call.
#[derive(Debug)]
enum Seen {
    Metadata(Box<str>, Text),
    Field(Box<[Reader]>, Text),
    Number(Box<[Reader]>, RangeInclusive<u64>),
    Custom(CallTest),
}

/// What decides about a share: a number that belongs to the rule, and what it is mixed with.
#[derive(Debug)]
struct Draw {
    salt: u64,
    by: DrawBy,
}

#[derive(Debug)]
enum DrawBy {
    Chance,
    Key,
    Metadata(Box<str>),
    Field(Box<[Reader]>),
}

/// What rules have decided about a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// A bit for each rule that excludes instances from it.
    pub(crate) excludes: u128,
    /// Which route it goes by, if any.
    pub(crate) route: Option<u16>,
    pub(crate) delay: Option<Duration>,
    /// The rule that asks for a copy.
    pub(crate) mirror: Option<u8>,
    /// The rule that denies it, and how.
    pub(crate) denied: Option<(u8, Status)>,
}

impl Router {
    /// By the caller, the groups and the fields of these settings.
    pub(crate) fn new(rules: &Arc<Rules>, settings: &Settings) -> Router {
        let mut router = Router {
            rules: Arc::clone(rules),
            caller: settings.caller.clone(),
            groups: settings.groups.clone(),
            compiled: Vec::new(),
            routes: Vec::new(),
        };
        for (index, rule) in rules.list().iter().enumerate() {
            router.add(index as u8, rule, &settings.fields);
        }
        router
    }

    fn add(&mut self, index: u8, rule: &Rule, fields: &Fields) {
        let mut conditions = Vec::new();
        for condition in &rule.when.conditions {
            conditions.push(match condition {
                Condition::Tag(key, value) => {
                    match value.matches(self.caller.tags.get(key).map(String::as_bytes)) {
                        true => continue,
                        false => return,
                    }
                }
                Condition::Metadata(key, value) => Seen::Metadata(key[..].into(), value.clone()),
                Condition::Field(name, value) => Seen::Field(fields.readers(name), value.clone()),
                Condition::Number(name, range) => Seen::Number(fields.readers(name), range.clone()),
                Condition::Custom(test) => Seen::Custom(test.clone()),
            });
        }
        let salt = hash(&rule.name);
        let share = match &rule.when.share {
            Some(Share { per_10_000: 0, .. }) => return,
            Some(Share { per_10_000: 10_000, .. }) | None => None,
            Some(share) => Some((share.per_10_000, Draw::new(salt, &share.by, fields))),
        };
        let then = self.then(index, &rule.then, salt, fields);
        let (method, conditions) = (rule.when.method.clone(), conditions.into());
        self.compiled.push(Compiled { rule: index, method, conditions, share, then });
    }

    fn then(&mut self, index: u8, action: &Action, salt: u64, fields: &Fields) -> Then {
        match action {
            Action::Exclude(_) => Then::Exclude,
            Action::Mirror(_) => Then::Mirror,
            Action::Deny(status) => Then::Deny(*status),
            Action::Delay(time) => Then::Delay(*time),
            Action::Split(routes, by) => {
                let (first, mut of) = (self.routes.len() as u16, 0);
                let mut up_to = Vec::new();
                for (weight, route) in routes {
                    self.routes.push((index, route.lanes.clone()));
                    of += weight;
                    up_to.push(of);
                }
                // Another number than that of the rule's own share: or the calls of a share would all go one way.
                let draw = Draw::new(mix(salt), by, fields);
                Then::Route { first, up_to: up_to.into(), of, draw }
            }
        }
    }

    /// Which of the rules can be about calls of a method.
    pub(crate) fn relevant(&self, asked: &Asked<'_>) -> Box<[u16]> {
        let rules = self.compiled.iter().enumerate();
        rules.filter(|(_, it)| it.is_about(asked)).map(|(index, _)| index as u16).collect()
    }

    /// What becomes of a call, for which these rules are relevant; `met` is told which of them it has met.
    #[inline]
    pub(crate) fn decide(
        &self,
        relevant: &[u16],
        asked: &Asked<'_>,
        rng: &mut SplitMix64,
        mut met: impl FnMut(u8),
    ) -> Verdict {
        let mut verdict = Verdict::default();
        for &index in relevant {
            let rule = &self.compiled[usize::from(index)];
            if rule.holds(asked, rng) {
                met(rule.rule);
                if rule.apply(asked, rng, &mut verdict).is_break() {
                    break;
                }
            }
        }
        verdict
    }

    /// The lanes of a route; without one there is one lane, of all instances.
    pub(crate) fn lanes(&self, route: Option<u16>) -> &[Subset] {
        const ALL: &[Subset] = &[Subset::ALL];
        route.map_or(ALL, |route| &self.routes[usize::from(route)].1)
    }

    /// How many routes there are.
    pub(crate) fn routes(&self) -> usize {
        self.routes.len()
    }

    pub(crate) fn is_in(&self, subset: &Subset, instance: &Instance) -> bool {
        subset.contains(instance, &self.caller)
    }

    /// What each rule that excludes instances excludes.
    pub(crate) fn excluded(&self) -> impl Iterator<Item = (u8, &Subset)> {
        self.rules.list().iter().zip(0..).filter_map(|(rule, index)| match &rule.then {
            Action::Exclude(subset) => Some((index, subset)),
            _ => None,
        })
    }

    /// Where copies go by each rule that asks for some.
    pub(crate) fn mirrored(&self) -> impl Iterator<Item = (u8, &Subset)> {
        self.rules.list().iter().zip(0..).filter_map(|(rule, index)| match &rule.then {
            Action::Mirror(subset) => Some((index, subset)),
            _ => None,
        })
    }

    pub(crate) fn zone(&self) -> &str {
        &self.caller.zone
    }

    pub(crate) fn groups(&self) -> Option<&Groups> {
        self.groups.as_ref()
    }

    pub(crate) fn rule_name(&self, index: u8) -> &str {
        &self.rules.list()[usize::from(index)].name
    }
}

impl Compiled {
    fn is_about(&self, asked: &Asked<'_>) -> bool {
        match &self.method {
            None => true,
            Some(Methods::Service(service)) => {
                asked.name.rsplit_once('/').is_some_and(|(name, _)| name == service)
            }
            Some(Methods::Is(name)) => name == asked.name,
            Some(Methods::Begin(begin)) => asked.name.starts_with(&begin[..]),
        }
    }

    #[inline(always)]
    fn holds(&self, asked: &Asked<'_>, rng: &mut SplitMix64) -> bool {
        for condition in &self.conditions {
            if !condition.holds(asked) {
                return false;
            }
        }
        let share = self.share.as_ref();
        share.is_none_or(|(share, draw)| draw.below(10_000, asked, rng) < *share)
    }

    #[inline(always)]
    fn apply(
        &self,
        asked: &Asked<'_>,
        rng: &mut SplitMix64,
        verdict: &mut Verdict,
    ) -> ControlFlow<()> {
        match &self.then {
            Then::Exclude => verdict.excludes |= 1 << self.rule,
            Then::Delay(time) => verdict.delay = verdict.delay.or(Some(*time)),
            Then::Mirror => verdict.mirror = verdict.mirror.or(Some(self.rule)),
            Then::Deny(status) => {
                verdict.denied = Some((self.rule, *status));
                return ControlFlow::Break(());
            }
            Then::Route { first, up_to, of, draw } => {
                let which = match up_to.len() {
                    1 => 0,
                    _ => {
                        let drawn = draw.below(*of, asked, rng);
                        up_to.partition_point(|up_to| *up_to <= drawn)
                    }
                };
                verdict.route = Some(first + which as u16);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }
}

impl Seen {
    #[inline(always)]
    fn holds(&self, asked: &Asked<'_>) -> bool {
        match self {
            Seen::Metadata(key, value) => value.matches(asked.metadata(key)),
            Seen::Field(readers, value) => match read(readers, asked) {
                None => value.matches(None),
                Some(Field::Text(text)) => value.matches(Some(text.as_bytes())),
                Some(Field::Number(number)) => {
                    let mut digits = [0; 20];
                    value.matches(Some(decimal(number, &mut digits)))
                }
            },
            Seen::Number(readers, range) => {
                matches!(read(readers, asked), Some(Field::Number(it)) if range.contains(&it))
            }
            Seen::Custom(test) => test.holds(asked),
        }
    }
}

fn read<'a>(readers: &[Reader], asked: &Asked<'a>) -> Option<Field<'a>> {
    let argument = asked.argument?;
    readers.iter().find_map(|reader| reader.read(argument))
}

/// The digits of a number, without an allocation.
fn decimal(mut number: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &digits[at..];
        }
    }
}

impl Draw {
    fn new(salt: u64, by: &By, fields: &Fields) -> Draw {
        let by = match by {
            By::Chance => DrawBy::Chance,
            By::Key => DrawBy::Key,
            By::Metadata(key) => DrawBy::Metadata(key[..].into()),
            By::Field(name) => DrawBy::Field(fields.readers(name)),
        };
        Draw { salt, by }
    }

    /// A number below `of`.
    #[inline]
    fn below(&self, of: u32, asked: &Asked<'_>, rng: &mut SplitMix64) -> u32 {
        let value = match &self.by {
            DrawBy::Chance => None,
            _ => self.value(asked),
        };
        let drawn = match value {
            Some(value) => mix(self.salt ^ mix(value)),
            None => rng.next_u64(),
        };
        (((drawn >> 32) * u64::from(of)) >> 32) as u32
    }

    /// What decides instead of chance, if the call has it.
    fn value(&self, asked: &Asked<'_>) -> Option<u64> {
        match &self.by {
            DrawBy::Chance => None,
            DrawBy::Key => asked.key,
            DrawBy::Metadata(key) => asked.metadata(key).map(hash_bytes),
            DrawBy::Field(readers) => read(readers, asked).map(|field| match field {
                Field::Text(text) => hash_bytes(text.as_bytes()),
                Field::Number(number) => number,
            }),
        }
    }
}

/// FNV-1a.
fn hash_bytes(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
