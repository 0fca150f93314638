//! A setting of the centre, put in force as it changes.

use std::cell::RefCell;
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use ringcall::{LocalClient, Shard, ShardConfig};

use crate::addresses::{ANSWER, Addresses, check, follow};
use crate::directory::{read_file, write_file};
use crate::shelf::is_key;
use crate::thread::{Follows, OwnThread, Stop, StopOnDrop, together};
use crate::{
    ConfigurationClient, RegistryError, Setting, SettingNews, SettingRecord, Stamp, WatchedKey,
};

/// Watches a setting of a [`Centre`](crate::Centre) and hands each new text to the program, which puts it in force or refuses it.
///
/// ```
/// use std::time::Duration;
/// use ringcall::cluster::{Balanced, Clients, Settings};
/// use ringcall_registry::ConfigWatch;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = std::env::temp_dir();
/// let balanced = Balanced::new(Clients::new()?, Settings::new())?;
/// let apply = move |text: &str| -> Result<(), Box<dyn std::error::Error>> {
///     // Whatever a text means; with the feature `serde` of ringcall, `toml::from_str::<Settings>(text)?`.
///     let mut settings = Settings::new();
///     settings.retry_percent = text.trim().parse()?;
///     Ok(balanced.configure(settings)?)
/// };
/// let configured = ConfigWatch::new(["10.0.0.1:7400", "10.0.0.2:7400"], "retries")
///     .cache(folder.join("retries.setting"))
///     .start(apply)?;
/// if !configured.wait(Duration::from_millis(1)) {
///     println!("no text is in force yet");
/// }
/// # Ok(()) }
/// ```
///
/// * **A text that is refused** (an error, or a panic) leaves the former in force. It is logged, with key and version, and
///   [counted](Configured::refused). A text that is the one in force is not handed over again, unless
///   one was refused in between: of that a part may have been put in force. Whoever puts the former again goes back to it.
/// * **A setting that is removed** leaves the last text in force, until the program starts again.
/// * **Without any node** what is in force stays. At the start the [cache](ConfigWatch::cache) has the last text.
#[derive(Clone, Debug)]
#[must_use = "`start` starts it"]
pub struct ConfigWatch {
    addresses: Vec<String>,
    key: String,
    cache: Option<PathBuf>,
    patience: Duration,
    config: ShardConfig,
}

impl ConfigWatch {
    /// Watches this key at one of these nodes, and at the next one when that cannot be heard.
    pub fn new(
        addresses: impl IntoIterator<Item = impl Into<String>>,
        key: impl Into<String>,
    ) -> ConfigWatch {
        ConfigWatch {
            addresses: addresses.into_iter().map(Into::into).collect(),
            key: key.into(),
            cache: None,
            patience: Duration::from_secs(2),
            config: ShardConfig::default(),
        }
    }

    /// Keeps the last text that was taken in this file. It is taken at the start when no node has answered
    /// [in time](ConfigWatch::patience), when the first that does has never heard of the key, is behind what is in the file, or has a
    /// text that is refused. One file for each key, in a folder that is there.
    pub fn cache(self, path: impl Into<PathBuf>) -> ConfigWatch {
        ConfigWatch { cache: Some(path.into()), ..self }
    }

    /// How long nodes may take at the start before the cache is used: 2 s.
    pub fn patience(self, patience: Duration) -> ConfigWatch {
        ConfigWatch { patience, ..self }
    }

    /// Settings for the connections to the nodes: TLS, limits.
    pub fn config(self, config: ShardConfig) -> ConfigWatch {
        ConfigWatch { config, ..self }
    }

    /// Watches on a thread of its own, where texts are handed to `apply`, until what is returned is dropped.
    ///
    /// # Errors
    /// Without an address, with one that cannot be understood, with a key that cannot be, or when there is no thread.
    pub fn start<E: Display>(
        self,
        apply: impl FnMut(&str) -> Result<(), E> + Send + 'static,
    ) -> Result<Configured, RegistryError> {
        self.check()?;
        let shared = Arc::new(Shared::default());
        let (config, told) = (self.config.clone(), Arc::clone(&shared));
        let follow = async move |shard: Shard, stop: Stop| {
            stop.unless(self.follow(&shard, told, apply)).await;
        };
        let thread = OwnThread::start("config-watch", config, follow)?;
        Ok(Configured { shared, _follows: Follows::Thread(thread) })
    }

    /// The same on a shard of yours, for a loop of your own, a simulation, or several settings on one thread.
    ///
    /// # Errors
    /// Without an address, with one that cannot be understood, or with a key that cannot be.
    pub fn start_on<E: Display>(
        self,
        shard: &Shard,
        apply: impl FnMut(&str) -> Result<(), E> + 'static,
    ) -> Result<Configured, RegistryError> {
        self.check()?;
        let shared = Arc::new(Shared::default());
        let (on, told, stop) = (shard.clone(), Arc::clone(&shared), Stop::default());
        let asked = stop.clone();
        shard.spawn(async move {
            let _ = asked.unless(self.follow(&on, told, apply)).await;
        });
        Ok(Configured { shared, _follows: Follows::Task(StopOnDrop(stop)) })
    }

    fn check(&self) -> Result<(), RegistryError> {
        check(&self.addresses)?;
        match is_key(&self.key) {
            true => Ok(()),
            false => Err(RegistryError::Key { key: self.key.clone() }),
        }
    }

    async fn follow<E: Display>(
        self,
        shard: &Shard,
        shared: Arc<Shared>,
        mut apply: impl FnMut(&str) -> Result<(), E> + 'static,
    ) {
        let ConfigWatch { addresses, key, cache, patience, .. } = self;
        let apply = move |text: &str| apply(text).map_err(|error| error.to_string());
        let applying = Applying {
            key,
            cache,
            apply: Box::new(apply),
            heard: None,
            text: None,
            is_unsure: false,
            shared,
        };
        let applying = RefCell::new(applying);
        let outage = |reason| log::warn!("no centre can be watched: {reason}");
        let watch = async |client| watch(&applying, client).await;
        let follow = follow(Addresses::new(addresses), shard, watch, outage);
        let late = async {
            shard.sleep(patience).await;
            let mut applying = applying.borrow_mut();
            if applying.heard.is_none() {
                applying.use_cache("no node has answered");
            }
        };
        together(vec![Box::pin(follow), Box::pin(late)]).await;
    }
}

/// Hears one node for as long as it can be heard.
async fn watch(applying: &RefCell<Applying>, client: LocalClient) -> Result<(), String> {
    let watched = {
        let applying = applying.borrow();
        vec![WatchedKey { key: applying.key.clone(), heard: applying.heard }]
    };
    let centre = ConfigurationClient::new(client);
    let begun = centre.watch(&watched).deadline(ANSWER).await;
    let mut news = begun.map_err(|error| error.to_string())?;
    while let Some(item) = news.next().await {
        let item = item.map_err(|error| error.to_string())?.to_owned();
        applying.borrow_mut().take(item);
    }
    Ok(())
}

/// A setting that is watched; dropping it ends that, and leaves in force what is.
#[derive(Debug)]
#[must_use = "dropping it ends it"]
pub struct Configured {
    shared: Arc<Shared>,
    _follows: Follows,
}

/// What is in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InForce {
    /// The version of the text.
    pub version: Stamp,
    /// Whether it is from the [cache](ConfigWatch::cache), and nothing later was taken since.
    pub is_cached: bool,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    begins: Condvar,
}

#[derive(Debug, Default)]
struct State {
    in_force: Option<InForce>,
    taken: u64,
    refused: u64,
}

impl Configured {
    /// What is in force; `None` if nothing is yet.
    #[must_use]
    pub fn in_force(&self) -> Option<InForce> {
        self.shared.state.lock().in_force
    }

    /// How many texts were put in force.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.shared.state.lock().taken
    }

    /// How many texts were refused.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.shared.state.lock().refused
    }

    /// Waits until a text is in force, for so long at most, and says whether one is. Not on a shard's thread, which others wait for.
    pub fn wait(&self, time: Duration) -> bool {
        let mut state = self.shared.state.lock();
        let is_missing = |state: &mut State| state.in_force.is_none();
        self.shared.begins.wait_while_for(&mut state, is_missing, time);
        state.in_force.is_some()
    }
}

/// Puts a text in force, or says why not.
type Apply = Box<dyn FnMut(&str) -> Result<(), String>>;

struct Applying {
    key: String,
    cache: Option<PathBuf>,
    apply: Apply,
    /// The latest version that was heard of, put in force or not.
    heard: Option<Stamp>,
    /// The text that is in force.
    text: Option<String>,
    /// Another one was refused since, of which a part may be in force.
    is_unsure: bool,
    shared: Arc<Shared>,
}

impl Applying {
    fn take(&mut self, news: SettingNews) {
        match news {
            SettingNews::Put { setting } if self.is_later(&setting.key, setting.version) => {
                if self.is_cached_later(setting.version) && self.use_cache("the node is behind") {
                    return;
                }
                match self.apply(&setting, false) {
                    true => self.save(setting),
                    false => {
                        self.use_cache("the first text was refused");
                    }
                }
            }
            SettingNews::Removed { key, version } if self.is_later(&key, version) => {
                if self.is_cached_later(version) && self.use_cache("the node is behind") {
                    return;
                }
                log::warn!("the setting {key:?} was removed as {version}; what is in force stays");
            }
            SettingNews::Unknown { .. } => {
                self.use_cache("the node has never heard of it");
            }
            SettingNews::Put { .. } | SettingNews::Removed { .. } => {}
        }
    }

    /// Nodes hear of something one after another, so one may have less than another has told.
    fn is_later(&mut self, key: &str, version: Stamp) -> bool {
        let is_later = key == self.key && Some(version) > self.heard;
        if is_later {
            self.heard = Some(version);
        }
        is_later
    }

    /// Whether this program has had something later before it was started.
    fn is_cached_later(&self, version: Stamp) -> bool {
        let cached = self.cache.as_ref().filter(|_| self.text.is_none());
        let cached = cached.and_then(|path| cached_setting(path, &self.key).ok());
        cached.is_some_and(|cached| cached.version > version)
    }

    /// Says whether it is in force.
    fn apply(&mut self, setting: &Setting, is_cached: bool) -> bool {
        let Setting { key, text, version } = setting;
        let is_same = !self.is_unsure && self.text.as_ref() == Some(text);
        if !is_same && let Err(reason) = self.try_apply(text) {
            log::error!("version {version} of the setting {key:?} is refused: {reason}");
            self.shared.state.lock().refused += 1;
            self.is_unsure = true;
            return false;
        }
        self.is_unsure = false;
        log::info!("version {version} of the setting {key:?} is in force");
        self.text = Some(text.clone());
        let mut state = self.shared.state.lock();
        state.taken += u64::from(!is_same);
        state.in_force = Some(InForce { version: *version, is_cached });
        self.shared.begins.notify_all();
        true
    }

    fn try_apply(&mut self, text: &str) -> Result<(), String> {
        let applied = catch_unwind(AssertUnwindSafe(|| (self.apply)(text)));
        applied.unwrap_or_else(|_| Err("what is to put it in force has panicked".to_owned()))
    }

    fn save(&self, setting: Setting) {
        let Some(path) = &self.cache else { return };
        let Setting { key, text, version } = setting;
        let record = SettingRecord { key, text: Some(text), version, over: None };
        if let Err(error) = write_file(path, &record) {
            log::warn!("the cache {} cannot be written: {error}", path.display());
        }
    }

    /// Takes what is in the cache, if nothing is in force. Says whether it is then.
    fn use_cache(&mut self, why: &str) -> bool {
        if self.text.is_some() {
            return false;
        }
        let Some(path) = &self.cache else {
            log::warn!("nothing is in force of the setting {:?}: {why}", self.key);
            return false;
        };
        let setting = match cached_setting(path, &self.key) {
            Ok(setting) => setting,
            Err(reason) => {
                log::warn!(
                    "nothing is in force of the setting {:?}: {why}, and there is no cache: {reason}",
                    self.key
                );
                return false;
            }
        };
        log::warn!("the setting {:?} is taken from {}: {why}", self.key, path.display());
        let is_taken = self.apply(&setting, true);
        if is_taken {
            // A node that is behind does not take it back.
            self.heard = self.heard.max(Some(setting.version));
        }
        is_taken
    }
}

fn cached_setting(path: &Path, key: &str) -> Result<Setting, String> {
    let record = read_file(path).map_err(|bad| bad.to_string())?;
    let setting = record.setting().filter(|setting| setting.key == key);
    setting.ok_or_else(|| format!("{} is of another key", path.display()))
}
