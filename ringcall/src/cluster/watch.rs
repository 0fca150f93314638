//! A thread that asks a source, and tells a balanced channel.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{fmt, io, iter, thread};

use ringcall_cluster::discovery::{
    Alarm, Discovery, DiscoveryConfig, DiskCache, Instance, Listing, Source, Update, Wanted,
    wall_clock_ms,
};
use ringcall_cluster::fleet::{CallReport, FleetEvent};
use ringcall_cluster::{BadSetting, Balanced, Connector};
use ringcall_core::Instant;

/// How often the source is asked.
const EVERY: Duration = Duration::from_millis(50);
/// So many changes are taken in a round at most, and no more once it has lasted as long as there is between two: settings,
/// and whoever is told of things, are not to wait for a source that never ends.
const CHANGES_A_ROUND: usize = 1024;
/// For so many rounds no connection could be opened to an instance until that counts against it: a second.
const DEAD_ROUNDS: u32 = 20;
/// So many events, and reports of calls, are told in a round at most.
const TOLD_A_ROUND: usize = 64;

/// Who is told what happens to the channel.
type OnEvent = Arc<dyn Fn(&FleetEvent) + Send + Sync>;
/// Who is told what became of calls.
type OnReport = Arc<dyn Fn(&CallReport) + Send + Sync>;
/// Who is told what is wrong with the source.
type OnAlarm = Arc<dyn Fn(&Alarm) + Send + Sync>;

/// How the list of a balanced channel is kept.
#[derive(Clone)]
#[must_use = "nothing is watched before it is started"]
pub struct Watch {
    wanted: Wanted,
    config: DiscoveryConfig,
    cache: Option<DiskCache>,
    on_event: Option<OnEvent>,
    on_report: Option<OnReport>,
    on_alarm: Option<OnAlarm>,
}

impl Watch {
    /// Of these instances.
    pub fn new(wanted: Wanted) -> Watch {
        let config = DiscoveryConfig::default();
        Watch { wanted, config, cache: None, on_event: None, on_report: None, on_alarm: None }
    }

    /// What is believed of the source, and how fast. [Replaceable](Watching::configure) while it is watched.
    pub fn config(self, config: DiscoveryConfig) -> Watch {
        Watch { config, ..self }
    }

    /// Keeps the last good list on disk, and begins with it.
    pub fn cache(self, cache: DiskCache) -> Watch {
        Watch { cache: Some(cache), ..self }
    }

    /// Tells what happens to the channel: another instance at an address, one that is ejected, all of them gone. On the
    /// thread that watches, which a panic of it ends, and the first time on that of [`start`](Watch::start), which looks once
    /// before it returns. The source is not asked meanwhile, so it should be quick. The log has it in any case.
    pub fn on_event(self, hook: impl Fn(&FleetEvent) + Send + Sync + 'static) -> Watch {
        Watch { on_event: Some(Arc::new(hook)), ..self }
    }

    /// Tells what became of calls that are [reported](ringcall_cluster::Settings::report_one_in); otherwise as
    /// [`on_event`](Watch::on_event), but that the log has them at its level *info*. Those that are more than can be told
    /// are dropped, the oldest first.
    pub fn on_report(self, hook: impl Fn(&CallReport) + Send + Sync + 'static) -> Watch {
        Watch { on_report: Some(Arc::new(hook)), ..self }
    }

    /// Tells what the source says that is not believed, and that it says nothing; otherwise as
    /// [`on_event`](Watch::on_event).
    pub fn on_alarm(self, hook: impl Fn(&Alarm) + Send + Sync + 'static) -> Watch {
        Watch { on_alarm: Some(Arc::new(hook)), ..self }
    }

    /// Watches on a thread of its own, until what this gives is dropped. The first list, if the source or the
    /// cache has one at once, is there when this returns. Of two that watch for one channel the one that was heard last
    /// counts.
    ///
    /// # Errors
    /// When the thread cannot be started, or a setting makes no sense.
    pub fn start<N>(
        self,
        source: impl Source + 'static,
        balanced: Balanced<N>,
    ) -> io::Result<Watching>
    where
        N: Connector + 'static,
        Balanced<N>: Send,
    {
        let bad = |setting| io::Error::new(io::ErrorKind::InvalidInput, setting);
        let service = self.wanted.service.clone();
        let mut discovery = Discovery::new(self.wanted, self.config).map_err(bad)?;
        balanced.set_service(&service);
        let cached = self.cache.as_ref().map(DiskCache::load);
        match cached {
            Some(Ok(cached)) => discovery.restore(balanced.connector().now(), cached.instances),
            Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => {
                log::warn!("the cached list of instances is not used: {error}");
            }
            _ => {}
        }
        let (configs, configured) = channel();
        let mut watcher = Watcher {
            discovery,
            source: Box::new(source),
            cache: self.cache,
            on_event: self.on_event,
            on_report: self.on_report,
            on_alarm: self.on_alarm,
            balanced,
            broken: BTreeMap::new(),
        };
        let mut wait = watcher.look();
        let thread = thread::Builder::new().name("ringcall-watch".into()).spawn(move || {
            loop {
                match configured.recv_timeout(wait) {
                    Ok(config) => watcher.configure(config),
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => break,
                }
                wait = watcher.look();
            }
        })?;
        Ok(Watching { configs: Some(configs), thread: Some(thread) })
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").field("wanted", &self.wanted).finish_non_exhaustive()
    }
}

/// A source that is being watched. Dropping it ends that; the channel keeps its list.
#[must_use = "dropping it ends the watching: what changes later is not heard"]
pub struct Watching {
    /// It ends with this.
    configs: Option<Sender<DiscoveryConfig>>,
    thread: Option<JoinHandle<()>>,
}

impl Watching {
    /// Replaces what [`Watch::config`] said: on the thread that watches, a moment after this returns. What that means for
    /// what was heard is said at [`Discovery::configure`].
    ///
    /// # Errors
    /// When a setting makes no sense; nothing is changed then.
    pub fn configure(&self, config: DiscoveryConfig) -> Result<(), BadSetting> {
        config.check()?;
        if let Some(configs) = &self.configs {
            // A thread that has panicked in a source of somebody's watches no more.
            let _is_watching = configs.send(config);
        }
        Ok(())
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        drop(self.configs.take());
        if let Some(thread) = self.thread.take() {
            // It has panicked in a source of somebody's, who was told.
            let _panicked = thread.join();
        }
    }
}

impl fmt::Debug for Watching {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watching").finish_non_exhaustive()
    }
}

struct Watcher<N: Connector> {
    discovery: Discovery,
    source: Box<dyn Source>,
    cache: Option<DiskCache>,
    on_event: Option<OnEvent>,
    on_report: Option<OnReport>,
    on_alarm: Option<OnAlarm>,
    balanced: Balanced<N>,
    /// To whom no connection can be opened, and for how many rounds.
    broken: BTreeMap<String, u32>,
}

impl<N: Connector> Watcher<N> {
    /// Says after which time to look again.
    fn look(&mut self) -> Duration {
        let now = self.now();
        let wait = self.hear(now);
        self.discovery.handle_timeout(now);
        self.bury();
        self.apply();
        self.tell();
        wait
    }

    /// What has changed comes one by one, and often many at once. A source that says everything each time that it is asked,
    /// or that it cannot say anything, has nothing to add to that.
    fn hear(&mut self, now: Instant) -> Duration {
        for _ in 0..CHANGES_A_ROUND {
            let Some(update) = self.source.poll_update(now) else { return EVERY };
            let is_change = matches!(update, Update::Delta { .. });
            self.discovery.handle_update(now, update);
            if !is_change {
                return EVERY;
            }
            if self.now().since(now) >= EVERY {
                return Duration::ZERO;
            }
        }
        EVERY
    }

    fn apply(&mut self) {
        if let Some(mut listing) = self.discovery.poll_listing() {
            // Whoever kept the list before, or keeps it as well, has counted for itself.
            listing.version = listing.version.max(self.balanced.version() + 1);
            self.balanced.apply(&listing);
            self.save(&listing);
        }
    }

    /// Not all that there is: calls may be reported, and things happen, faster than somebody's hooks take them in, and the
    /// source is not to be forgotten over that. The channel keeps the last ones.
    fn tell(&mut self) {
        while let Some(alarm) = self.discovery.poll_alarm() {
            log::warn!("{alarm}");
            if let Some(tell) = &self.on_alarm {
                tell(&alarm);
            }
        }
        for event in iter::from_fn(|| self.balanced.poll_event()).take(TOLD_A_ROUND) {
            log::warn!("{event}");
            if let Some(tell) = &self.on_event {
                tell(&event);
            }
        }
        for report in iter::from_fn(|| self.balanced.poll_report()).take(TOLD_A_ROUND) {
            log::info!("{report}");
            if let Some(tell) = &self.on_report {
                tell(&report);
            }
        }
    }

    fn configure(&mut self, config: DiscoveryConfig) {
        let now = self.now();
        if let Err(bad) = self.discovery.configure(now, config) {
            log::error!("the settings of a list were checked, and are refused: {bad}");
        }
    }

    /// The channel's time, in which listings say how old instances are.
    fn now(&self) -> Instant {
        self.balanced.connector().now()
    }

    /// Tells of instances that nobody answers for.
    fn bury(&mut self) {
        let broken: BTreeSet<String> = self.balanced.dead().into_iter().collect();
        self.broken.retain(|name, _| broken.contains(name));
        for name in broken {
            let rounds = self.broken.entry(name.clone()).or_default();
            *rounds = rounds.saturating_add(1);
            if *rounds >= DEAD_ROUNDS {
                let now = self.now();
                self.discovery.handle_dead(now, &name);
            }
        }
    }

    fn save(&self, listing: &Listing) {
        let Some(cache) = &self.cache else { return };
        // While the source is not believed, neither what it says nor what is held instead is a good list.
        if listing.instances.iter().any(|listed| listed.is_held) {
            return;
        }
        let instances = listing.instances.iter().map(|listed| -> &Instance { &listed.instance });
        if let Err(error) = cache.save(wall_clock_ms(), instances) {
            log::warn!("the list of instances is not cached: {error}");
        }
    }
}
