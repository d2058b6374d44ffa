//! An issuer's keys, kept fresh in the background.
//!
//! One task per issuer fetches at the start, then every [`RefreshSettings::refresh`], and when a token
//! names a key that is not known. It alone fetches, so:
//!
//! 1. Never two fetches at once, and never two starts within [`RefreshSettings::cooldown`], however many
//!    unknown keys are named: a caller cannot make the gateway flood the issuer.
//! 2. Requests never wait for a refresh; only those that no known key helps wait for the one shared fetch.
//! 3. A failed fetch keeps the old keys, until they are older than [`RefreshSettings::stale`]; it is tried
//!    again after the cool-down, then after longer and longer pauses.
//!
//! The task ends when the last [`Keys`] is dropped.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::Uri;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout, timeout_at};

use super::{Issuer, KeySet};

mod fetch;

#[cfg(feature = "server")]
pub(crate) use fetch::https_connector;
pub use fetch::{FetchError, Fetched, fetch};

/// Where the keys of an issuer are.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeySource {
    /// A JWK set at this URL.
    JwksUrl(Uri),
    /// The `jwks_uri` of the issuer's `/.well-known/openid-configuration` (`OpenID` Connect Discovery 1.0 §4),
    /// whose `issuer` must be exactly ours.
    Discovery,
    /// A file with a JWK set, or with public keys in PEM; read again at each refresh.
    File(PathBuf),
}

impl KeySource {
    /// What the preset of the issuer says: a URL, or discovery.
    ///
    /// # Errors
    /// [`http::uri::InvalidUri`] if the issuer is no URL, so none can be made of it.
    pub fn of_preset(issuer: &Issuer) -> Result<Self, http::uri::InvalidUri> {
        match issuer.rules().preset.jwks_url(issuer.as_str()) {
            Some(url) => url.parse().map(Self::JwksUrl),
            None => Ok(Self::Discovery),
        }
    }
}

/// When keys are fetched, and how long they hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct RefreshSettings {
    /// From one successful fetch to the next; default 10 min.
    pub refresh: Duration,
    /// At most one fetch starts per this; default 10 s.
    pub cooldown: Duration,
    /// For one fetch with all its redirects; default 5 s.
    pub timeout: Duration,
    /// How long keys serve after the last successful fetch; default 24 h.
    pub stale: Duration,
}

impl Default for RefreshSettings {
    fn default() -> Self {
        Self {
            refresh: Duration::from_mins(10),
            cooldown: Duration::from_secs(10),
            timeout: Duration::from_secs(5),
            stale: Duration::from_hours(24),
        }
    }
}

/// The keys of one issuer, fetched and kept fresh by a task of its own. Cheap to clone.
#[derive(Clone)]
pub struct Keys {
    shared: Arc<Shared>,
    _task: Arc<AbortOnDrop>,
}

struct Shared {
    issuer: Issuer,
    source: KeySource,
    settings: RefreshSettings,
    loaded: ArcSwapOption<Loaded>,
    progress: watch::Sender<Progress>,
    wanted: Notify,
}

struct Loaded {
    keys: Arc<KeySet>,
    at: Instant,
}

/// How far the task is. `started > ended` while a fetch runs.
#[derive(Debug, Clone, Default)]
struct Progress {
    started: u64,
    ended: u64,
    failed: u64,
    last_start: Option<Instant>,
    last_error: Option<Arc<FetchError>>,
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What is known of an issuer's keys, for people.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct KeysStatus {
    /// The issuer.
    pub issuer: String,
    /// The `kid`s known; empty if no keys were fetched yet, or they are too old.
    pub key_ids: Vec<String>,
    /// How many keys are known, those without a `kid` counted.
    pub keys: usize,
    /// Since the last successful fetch; `None` if there was none.
    pub age: Option<Duration>,
    /// How many fetches have ended.
    pub fetches: u64,
    /// How many of them failed.
    pub failures: u64,
    /// Why the last fetch failed, if it did.
    pub last_error: Option<String>,
}

impl Keys {
    /// Starts the task, which fetches at once; returns without waiting for it.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    #[must_use]
    pub fn spawn(issuer: Issuer, source: KeySource, settings: RefreshSettings) -> Self {
        Self::spawn_with(issuer, source, settings, None)
    }

    /// These keys for an issuer of changed rules or settings, where they are the same keys at all; `None` where they may be others.
    ///
    /// What has been fetched stays, so nobody waits for an issuer that is down. The task goes on where nothing changed that it
    /// works with, and fetches anew where the cool-down is over; a file is read again at once.
    ///
    /// # Panics
    /// Outside of a Tokio runtime.
    #[must_use]
    pub fn following(
        &self,
        issuer: &Issuer,
        source: &KeySource,
        settings: RefreshSettings,
    ) -> Option<Self> {
        let before = &self.shared;
        if before.issuer.as_str() != issuer.as_str() || before.source != *source {
            return None;
        }
        let is_fetched = !matches!(source, KeySource::File(_));
        if is_fetched && before.settings == settings {
            // Who reloads may do so because keys were taken back.
            drop(self.fetch_if_due());
            return Some(self.clone());
        }
        let loaded = before.loaded.load_full();
        Some(Self::spawn_with(
            issuer.clone(),
            source.clone(),
            settings,
            loaded,
        ))
    }

    fn spawn_with(
        issuer: Issuer,
        source: KeySource,
        settings: RefreshSettings,
        loaded: Option<Arc<Loaded>>,
    ) -> Self {
        let shared = Arc::new(Shared {
            issuer,
            source,
            settings,
            loaded: ArcSwapOption::new(loaded),
            progress: watch::Sender::default(),
            wanted: Notify::new(),
        });
        let task = tokio::spawn(run(Arc::clone(&shared))).abort_handle();
        Self {
            shared,
            _task: Arc::new(AbortOnDrop(task)),
        }
    }

    /// The keys, if there are any that are not too old.
    #[must_use]
    pub fn current(&self) -> Option<Arc<KeySet>> {
        let loaded = self.shared.loaded.load();
        let loaded = loaded.as_ref()?;
        (loaded.at.elapsed() < self.shared.settings.stale).then(|| Arc::clone(&loaded.keys))
    }

    /// Waits until keys are there, for as long as one fetch may take; `false` if there are none then.
    pub async fn ready(&self) -> bool {
        if self.current().is_none()
            && let Some(fetch) = self.fetch_if_due()
        {
            fetch.await;
        }
        self.current().is_some()
    }

    /// What is known, for people.
    #[must_use]
    pub fn status(&self) -> KeysStatus {
        let current = self.current();
        let progress = self.shared.progress.borrow();
        KeysStatus {
            issuer: self.shared.issuer.as_str().to_owned(),
            key_ids: current
                .iter()
                .flat_map(|keys| keys.key_ids())
                .map(str::to_owned)
                .collect(),
            keys: current.map_or(0, |keys| keys.len()),
            age: self
                .shared
                .loaded
                .load()
                .as_ref()
                .map(|loaded| loaded.at.elapsed()),
            fetches: progress.ended,
            failures: progress.failed,
            last_error: progress.last_error.as_deref().map(with_causes),
        }
    }

    /// The running fetch, or a new one if the cool-down is over; `None` within it.
    ///
    /// The future ends with the fetch, or when that has taken as long as it may. It need not be polled
    /// for the fetch to happen.
    pub(crate) fn fetch_if_due(&self) -> Option<impl Future<Output = ()> + Send + 'static> {
        let settings = self.shared.settings;
        let mut progress = self.shared.progress.subscribe();
        let ended = {
            let progress = progress.borrow();
            let running = progress.started > progress.ended;
            if !running {
                if progress.is_cooling(settings.cooldown) {
                    return None;
                }
                self.shared.wanted.notify_one();
            }
            progress.ended
        };
        Some(async move {
            // An error of either kind means that nothing more will come in time.
            let news = progress.wait_for(|progress| progress.ended > ended);
            let _ = timeout(settings.timeout, news).await;
        })
    }
}

fn with_causes(error: &FetchError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

impl Progress {
    fn is_cooling(&self, cooldown: Duration) -> bool {
        self.last_start
            .is_some_and(|start| start.elapsed() < cooldown)
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.status().fmt(f)
    }
}

/// Fetches for ever.
async fn run(shared: Arc<Shared>) {
    let settings = shared.settings;
    let mut failures = Failures::default();
    loop {
        let start = Instant::now();
        shared.progress.send_modify(|progress| {
            progress.started = progress.started.saturating_add(1);
            progress.last_start = Some(start);
        });
        let fetched = timeout(settings.timeout, fetch(&shared.issuer, &shared.source))
            .await
            .unwrap_or(Err(FetchError::Timeout(settings.timeout)));
        let error = match fetched {
            Ok(fetched) => {
                failures = Failures::default();
                shared.store(fetched.keys);
                None
            }
            Err(error) => {
                failures.report(&shared.issuer, &error);
                Some(Arc::new(error))
            }
        };
        shared.progress.send_modify(|progress| {
            progress.ended = progress.started;
            progress.failed = progress.failed.saturating_add(u64::from(error.is_some()));
            progress.last_error = error;
        });

        let pause = failures.pause(settings).max(settings.cooldown);
        let next = start.checked_add(pause).unwrap_or(start);
        // A wish that came during the fetch, or within the cool-down, is not for a new one.
        while timeout_at(next, shared.wanted.notified()).await.is_ok()
            && start.elapsed() < settings.cooldown
        {}
    }
}

impl Shared {
    fn store(&self, keys: KeySet) {
        let before = self.loaded.load();
        let changed = before
            .as_ref()
            .is_none_or(|before| !before.keys.is_same_as(&keys));
        if changed {
            let key_ids: Vec<_> = keys.key_ids().collect();
            let (keys, ignored) = (keys.len(), keys.ignored().len());
            let issuer = self.issuer.as_str();
            tracing::info!(issuer, keys, ?key_ids, ignored, "issuer keys changed");
        }
        // An unchanged set stays the same one, so that what it has verified need not be verified again.
        let keys = match before.as_ref() {
            Some(before) if !changed => Arc::clone(&before.keys),
            Some(_) | None => Arc::new(keys),
        };
        self.loaded.store(Some(Arc::new(Loaded {
            keys,
            at: Instant::now(),
        })));
    }
}

/// How often in a row a fetch failed.
#[derive(Default)]
struct Failures {
    count: u32,
    reported: Option<Instant>,
}

impl Failures {
    /// A warning at the first failure and then at most once a minute.
    fn report(&mut self, issuer: &Issuer, error: &FetchError) {
        const PAUSE: Duration = Duration::from_mins(1);
        self.count = self.count.saturating_add(1);
        let issuer = issuer.as_str();
        let error = error as &dyn std::error::Error;
        if self.reported.is_some_and(|last| last.elapsed() < PAUSE) {
            tracing::debug!(issuer, error, "key refresh failed");
        } else {
            tracing::warn!(issuer, error, failures = self.count, "key refresh failed");
            self.reported = Some(Instant::now());
        }
    }

    /// Until the next try: the refresh interval, after failures less: the cool-down, doubled each time,
    /// plus up to a half so that not all gateways come back to an issuer at once.
    fn pause(&self, settings: RefreshSettings) -> Duration {
        let Some(doublings) = self.count.checked_sub(1) else {
            return settings.refresh;
        };
        let pause = settings
            .cooldown
            .saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX))
            .min(settings.refresh);
        let mut random = [0_u8];
        // Without randomness there is no jitter, which is no harm.
        let _ = aws_lc_rs::rand::fill(&mut random);
        pause.saturating_add(pause.saturating_mul(u32::from(random[0])) / 512)
    }
}

#[cfg(test)]
pub(crate) mod tests;
