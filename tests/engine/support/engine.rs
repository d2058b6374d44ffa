//! Real engines, built by Maven: an Operaton and a Camunda 7 shared by all tests of this binary.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Instant;

use bytes::Bytes;
use http::Method;
use serde_json::Value;
use tokio::sync::OnceCell;

use super::http::{Answer, basic, json_request, request, send};
use super::jar::Sources;
use super::{DEADLINE, jar};

/// The engine's process, and what a test asks of it behind the gateway's back.
pub(crate) struct Engine {
    address: SocketAddr,
    /// Its standard input closes when this process ends, however it ends, and then it ends too.
    process: Mutex<Child>,
}

impl Engine {
    /// The Operaton of this test binary, started by whoever asks first.
    pub(crate) async fn shared() -> &'static Self {
        static ENGINE: OnceCell<Engine> = OnceCell::const_new();
        ENGINE.get_or_init(|| Self::start(&jar::OPERATON)).await
    }

    /// The Camunda 7 of this test binary: its JSON data format is complete.
    pub(crate) async fn camunda() -> &'static Self {
        static ENGINE: OnceCell<Engine> = OnceCell::const_new();
        ENGINE.get_or_init(|| Self::start(&CAMUNDA)).await
    }

    /// An Operaton of the test's own, which may be paused and stopped.
    pub(crate) async fn own() -> Self {
        Self::start(&jar::OPERATON).await
    }

    async fn start(sources: &'static Sources) -> Self {
        let started = tokio::task::spawn_blocking(|| launch(&jar::build(sources)));
        let (process, address) = started.await.expect("an engine that starts");
        let engine = Self {
            address,
            process: Mutex::new(process),
        };
        let deadline = Instant::now() + DEADLINE;
        while engine.get("/version").await.status != 200 {
            assert!(
                Instant::now() < deadline,
                "the engine is not ready after {DEADLINE:?}"
            );
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        engine
    }

    /// Lets it do nothing until what is returned is dropped: its system still takes connections.
    ///
    /// A shell lets it go on at the end of its input, so that no engine is left behind that cannot see
    /// the end of its own.
    pub(crate) fn pause(&self) -> Paused {
        let id = self.process.lock().unwrap().id().to_string();
        let mut shell = Command::new("sh")
            .args([
                "-c",
                "kill -STOP $0 && echo paused; cat; kill -CONT $0",
                &id,
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        let mut output = BufReader::new(shell.stdout.take().unwrap());
        output.read_line(&mut said).unwrap();
        assert_eq!(said, "paused\n");
        Paused { shell }
    }

    /// Ends it: nobody listens at its address any more.
    pub(crate) fn stop(&self) {
        let mut process = self.process.lock().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the gateway's `engine.url` is.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/engine-rest", self.address)
    }

    /// The service account's credentials, as a header value.
    pub(crate) fn authorization() -> String {
        basic("demo", "demo")
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        send(request(
            Method::GET,
            &format!("{}{path}", self.url()),
            &Self::authorization(),
        ))
        .await
    }

    pub(crate) async fn post(&self, path: &str, body: impl Into<Bytes>) -> Answer {
        let url = format!("{}{path}", self.url());
        send(json_request(
            Method::POST,
            &url,
            &Self::authorization(),
            body,
        ))
        .await
    }

    /// Deploys one BPMN document, for a tenant or for none.
    pub(crate) async fn deploy(&self, bpmn: &str, tenant: Option<&str>) {
        self.deploy_file("model.bpmn", bpmn, tenant).await;
    }

    /// Deploys one document of the kind that its file name says.
    pub(crate) async fn deploy_file(&self, file: &str, document: &str, tenant: Option<&str>) {
        const BOUNDARY: &str = "a-boundary-that-no-model-contains";
        let resource = format!("name=\"resource\"; filename=\"{file}\"");
        let mut parts = vec![
            ("name=\"deployment-name\"", "acceptance"),
            (resource.as_str(), document),
        ];
        parts.extend(tenant.map(|tenant| ("name=\"tenant-id\"", tenant)));
        let mut body = String::new();
        for (disposition, content) in parts {
            let head = [
                "--",
                BOUNDARY,
                "\r\nContent-Disposition: form-data; ",
                disposition,
            ];
            body += &[&head.concat(), "\r\n\r\n", content, "\r\n"].concat();
        }
        body = body + "--" + BOUNDARY + "--\r\n";

        let url = format!("{}/deployment/create", self.url());
        let mut request = json_request(Method::POST, &url, &Self::authorization(), body);
        let multipart = format!("multipart/form-data; boundary={BOUNDARY}");
        request
            .headers_mut()
            .insert("content-type", multipart.parse().unwrap());
        send(request).await.expect(200);
    }

    /// The id of the newest definition of a key.
    pub(crate) async fn definition(&self, key: &str) -> String {
        let found = self
            .get(&format!("/process-definition/key/{key}"))
            .await
            .expect(200)
            .json();
        found["id"].as_str().unwrap().to_owned()
    }

    /// The ids of all instances that this key ever had, of any tenant, ended ones too.
    pub(crate) async fn instances(&self, key: &str) -> Vec<String> {
        let path = format!("/history/process-instance?processDefinitionKey={key}");
        let found = self.get(&path).await.expect(200).json();
        let ids = found.as_array().unwrap().iter();
        ids.map(|instance| instance["id"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Every variable that an instance ever had, in whichever scope: name, type, value.
    pub(crate) async fn variables(&self, instance: &str) -> Vec<(String, String, Value)> {
        self.variables_of("processInstanceId", instance).await
    }

    /// Every variable that an instance of a process or of a case (`caseInstanceId`) ever had.
    pub(crate) async fn variables_of(
        &self,
        kind: &str,
        instance: &str,
    ) -> Vec<(String, String, Value)> {
        let path = format!(
            "/history/variable-instance?{kind}={instance}&deserializeValues=false\
             &sortBy=variableName&sortOrder=asc"
        );
        let found = self.get(&path).await.expect(200).json();
        let all = found.as_array().unwrap().iter();
        all.map(|variable| {
            let text = |member: &str| variable[member].as_str().unwrap().to_owned();
            (text("name"), text("type"), variable["value"].clone())
        })
        .collect()
    }
}

/// An engine that does nothing, until this is dropped.
pub(crate) struct Paused {
    shell: Child,
}

impl Drop for Paused {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        drop(self.shell.wait());
    }
}

/// Camunda 7, with the plugin and the data formats for JSON.
const CAMUNDA: Sources = [
    ("pom.xml", include_str!("../camunda/pom.xml")),
    (
        "src/main/resources/application.yaml",
        include_str!("../camunda/src/main/resources/application.yaml"),
    ),
    (
        "src/main/java/engine/Engine.java",
        include_str!("../camunda/src/main/java/engine/Engine.java"),
    ),
];

/// Starts the jar and waits for the line in which it says where it listens.
fn launch(jar: &Path) -> (Child, SocketAddr) {
    let mut process = Command::new("java")
        .args([
            "-Xmx512m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-jar",
        ])
        .arg(jar)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a Java runtime (`java`) to run the engine with");
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    let mut said = String::new();
    let address = lines
        .by_ref()
        .map(|line| line.expect("text from the engine"))
        .find_map(|line| {
            said += &line;
            said.push('\n');
            line.strip_prefix("engine listening on ")
                .map(|address| address.parse().unwrap())
        });
    let address =
        address.unwrap_or_else(|| panic!("the engine ended before it was ready:\n{said}"));
    // Its pipe must not fill up; what it says later (each 500 with its stack) is of no use to a test.
    std::thread::spawn(move || lines.for_each(drop));
    (process, address)
}
