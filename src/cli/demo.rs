//! `bpmgate demo`: a development issuer, an engine and the gateway on this machine, to try things out.
//!
//! Everything listens on loopback only. The engine is a small one in memory, or the one at the given
//! URL, on which the sample processes are deployed if they are not there yet.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Request, StatusCode};
use tower::{Layer, ServiceExt};

use super::{Failure, print, serve, tell};
use crate::body::{Body, BoxError};
use crate::config::{self, Config, CredentialsMode, HttpUrl, Preset};
use crate::demo::banner;
use crate::demo::engine::{Engine, SAMPLE, Settings, VACATION};
use crate::demo::issuer::Issuer;
use crate::demo::{page, people};
use crate::engine::{EngineClient, Nodes};
use crate::layer::CredentialsLayer;
use crate::telemetry;

/// Runs the demo, with the engine at `engine` or a small one in memory.
pub(super) fn run(engine: Option<&HttpUrl>) -> Result<(), Failure> {
    let mut config = Config::default();
    config.admin.listen = None;
    config.telemetry.log_level = config::LogLevel::Info;
    let _logging = telemetry::start(&config.telemetry);
    serve::runtime()?.block_on(async {
        let issuer = Issuer::start().await?;
        // Recording requests is for tests.
        let settings = Settings {
            keep_requests: 0,
            ..Settings::default()
        };
        let in_memory = if engine.is_some() {
            None
        } else {
            let engine = Engine::start_with(settings).await?;
            engine.deploy(VACATION, None).map_err(io::Error::other)?;
            Some(engine)
        };
        let url = match (&engine, &in_memory) {
            (Some(url), _) => (*url).clone(),
            (None, Some(engine)) => parse(&engine.url())?,
            (None, None) => return Err(Failure::Running("no engine".into())),
        };
        config.engine.url = url.clone();
        config.engine.credentials.mode = CredentialsMode::Basic;
        config.issuers = vec![config::Issuer {
            preset: Preset::Oidc,
            issuer: parse(&issuer.url())?,
            jwks_url: Some(parse(&issuer.jwks_url())?),
            audience: vec![people::AUDIENCE.to_owned()],
            ..config::Issuer::default()
        }];
        config.access.rules = vec![config::Rule {
            when: config::When {
                role: Some(people::OPERATOR.to_owned()),
                ..config::When::default()
            },
            profile: "operator".to_owned(),
        }];
        if engine.is_some() {
            for (key, model) in [("approval", SAMPLE), ("vacation", VACATION)] {
                if deploy(&config, key, model)
                    .await
                    .map_err(Failure::Running)?
                {
                    tell(&format!(
                        "the engine did not know the process `{key}`: it was deployed there"
                    ));
                }
            }
        }
        // The usual port, or any where that is taken.
        let server = match serve::bind((Ipv4Addr::LOCALHOST, USUAL_PORT).into()).await {
            Ok(server) => server,
            Err(_) => serve::bind((Ipv4Addr::LOCALHOST, 0).into()).await?,
        };
        let address = server.address();
        let client = page::client(address.port());
        let mut resources = serve::resources(&config)?;
        resources.pages = page::pages(&issuer.url(), &client);
        let has_page = resources.pages.is_some();
        issuer.offer_sign_in(client);
        let client =
            EngineClient::from_config(&config, &resources.nodes).map_err(Failure::Running)?;
        let serving = serve::gateway(&config, &resources, client, server)?;
        let [alice, bob] = [people::ALICE, people::BOB].map(|person| person.token(&issuer));
        print(&banner::text(address, has_page, url.as_str(), &alice, &bob))?;
        serving.await?;
        Ok(())
    })
}

fn parse(url: &str) -> Result<HttpUrl, Failure> {
    url.parse()
        .map_err(|error: config::Expected| Failure::Running(error.to_string().into()))
}

/// Deploys a model where the engine does not have its process; says whether it did.
async fn deploy(config: &Config, key: &str, model: &str) -> Result<bool, BoxError> {
    let credentials = &config.engine.credentials;
    let basic = CredentialsLayer::basic(&credentials.username, credentials.password.expose());
    let engine = basic.layer(EngineClient::from_config(
        config,
        &Nodes::from_config(config),
    )?);
    let root = config.engine.url.base_path();
    let ask = Request::get(format!("{root}/process-definition/key/{key}")).body(Body::empty())?;
    let answer = tokio::time::timeout(PATIENCE, engine.clone().oneshot(ask)).await??;
    match answer.status() {
        StatusCode::OK => return Ok(false),
        StatusCode::NOT_FOUND => {}
        status => {
            return Err(format!("the engine answers {status}; the demo uses demo/demo").into());
        }
    }
    let form = format!(
        "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"deployment-name\"\r\n\r\nbpmgate demo\r\n\
         --{BOUNDARY}\r\nContent-Disposition: form-data; name=\"data\"; filename=\"{key}.bpmn\"\r\n\r\n\
         {model}\r\n--{BOUNDARY}--\r\n"
    );
    let deploy = Request::post(format!("{root}/deployment/create"))
        .header(
            CONTENT_TYPE,
            format!("multipart/form-data; boundary={BOUNDARY}"),
        )
        .body(Body::from(Bytes::from(form)))?;
    let answer = tokio::time::timeout(PATIENCE, engine.oneshot(deploy)).await??;
    if answer.status() == StatusCode::OK {
        Ok(true)
    } else {
        Err(format!(
            "the engine refused to deploy the sample process {key}: {}",
            answer.status()
        )
        .into())
    }
}

const USUAL_PORT: u16 = 8000;
const BOUNDARY: &str = "bpmgate-demo-5f1d";
const PATIENCE: Duration = Duration::from_secs(30);
