//! A gateway in a process of its own, for tests that look at what it tells and holds.

use std::time::Duration;

use bpmgate::body::Body;
use bpmgate::demo::engine::Engine;
use bpmgate::demo::issuer::Issuer;
use http::Request;
use http::header::AUTHORIZATION;

use crate::support::{AUDIENCE, Client, Process, Protocol, bearer, eventually, soon, whole};

/// A gateway in a process of its own, with its admin listener, so that its peers' work is not its own.
pub(crate) struct Apart<E = Engine> {
    pub(crate) engine: E,
    pub(crate) issuer: Issuer,
    pub(crate) gateway: Process,
    /// Of a good caller.
    pub(crate) token: String,
}

impl Apart {
    /// `more` are environment variables, those with `__` without `BPMGATE__`.
    pub(crate) async fn start(more: &[(&str, &str)]) -> Self {
        let engine = Engine::start().await.unwrap();
        let url = engine.url();
        Self::over(engine, &url, more).await
    }
}

impl<E> Apart<E> {
    /// Over an engine of one's own, which answers well at first.
    pub(crate) async fn over(engine: E, url: &str, more: &[(&str, &str)]) -> Self {
        let issuer = Issuer::start().await.unwrap();
        let usual = [
            ("SERVER__LISTEN", "127.0.0.1:0"),
            ("ADMIN__LISTEN", "127.0.0.1:0"),
            ("ENGINE__URL", url),
            // So that it sees the clients' requests alone.
            ("ENGINE__HEALTH__INTERVAL", "0s"),
            ("ACCESS__DEFAULT", "transparent"),
            ("INITIATOR__MODEL_INITIATOR", "false"),
            ("ISSUERS__0__ISSUER", &issuer.url()),
            ("ISSUERS__0__JWKS_URL", &issuer.jwks_url()),
            ("ISSUERS__0__AUDIENCE", AUDIENCE),
        ];
        let names = usual.iter().chain(more);
        let environment: Vec<_> = names
            .map(|(name, value)| {
                let prefix = if name.contains("__") { "BPMGATE__" } else { "" };
                (format!("{prefix}{name}"), *value)
            })
            .collect();
        let environment: Vec<_> = environment
            .iter()
            .map(|(name, value)| (name.as_str(), *value))
            .collect();
        let apart = Self {
            gateway: Process::with_environment(&environment).await,
            token: bearer(&issuer, "good", "good@example.org", "Good"),
            engine,
            issuer,
        };
        // The keys come in the background.
        soon("the first answer", async {
            while apart.status(&apart.token).await != 200 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
        apart
    }

    pub(crate) async fn status(&self, token: &str) -> u16 {
        let client = Client::connect(self.gateway.address, Protocol::Http1).await;
        let request = Request::get("/api/engine").header(AUTHORIZATION, token);
        let answer = client.send(request.body(Body::empty()).unwrap()).await;
        whole(answer.unwrap()).await.unwrap().status().as_u16()
    }

    /// The operator's word, as text.
    pub(crate) async fn admin(&self, path: &str) -> String {
        let client = Client::connect(self.gateway.admin.unwrap(), Protocol::Http1).await;
        let request = Request::get(path).body(Body::empty()).unwrap();
        let answer = whole(client.send(request).await.unwrap()).await.unwrap();
        String::from_utf8(answer.body().to_vec()).unwrap()
    }

    pub(crate) async fn metric(&self, series: &str) -> u64 {
        let text = self.admin("/metrics").await;
        let line = text.lines().find_map(|line| line.strip_prefix(series));
        line.map_or(0, |value| value.trim().parse().unwrap())
    }

    /// Waits until a metric is so high.
    pub(crate) async fn until(&self, series: &str, least: u64) {
        soon(series, async {
            while self.metric(series).await < least {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }

    /// The sum of a metric's series whose labels have this in them.
    pub(crate) async fn sum(&self, name: &str, label: &str) -> u64 {
        let text = self.admin("/metrics").await;
        let series = text.lines().filter_map(|line| line.strip_prefix(name));
        let labelled = series.filter(|rest| rest.starts_with('{') && rest.contains(label));
        let values = labelled.filter_map(|rest| rest.rsplit_once(' '));
        values.map(|(_, value)| value.parse::<u64>().unwrap()).sum()
    }

    /// Waits until no request is in flight and no more files are open than that.
    pub(crate) async fn calms_down_to(&self, files: usize) {
        self.is_exactly("bpmgate_requests_in_flight", 0).await;
        eventually("the end of its connections", || {
            self.gateway.open_files() <= files
        })
        .await;
    }

    /// Waits until a metric is that.
    pub(crate) async fn is_exactly(&self, series: &str, value: u64) {
        soon(series, async {
            while self.metric(series).await != value {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }
}
