//! Ways to smuggle an initiator past a gateway that rewrites bodies.
//!
//! Each is first shown to work on the engine itself, else it would prove nothing, and then sent to
//! the gateway, the same bytes but for the credentials. There it may be refused, and then the
//! engine has no instance of it; or it may pass, and then the instance is its caller's.

use std::fmt::Write as _;

use crate::starts::{initiator, of};
use crate::support::gateway::Options;
use crate::support::issuer::ADA;
use crate::support::raw::{chunked, exchange, request, request_framed};
use crate::support::{Engine, Gateway, Issuer, model};

/// One way, and what becomes of it.
struct Trick {
    name: &'static str,
    bytes: Box<Bytes>,
    /// What it achieves on the engine itself.
    direct: Direct,
    /// The gateway's answers that are right.
    gateway: &'static [u16],
}

/// The whole request, aimed.
type Bytes = dyn Fn(&Target) -> Vec<u8>;

/// What a trick is aimed at.
struct Target {
    key: String,
    id: String,
    /// The header, whole.
    authorization: String,
}

enum Direct {
    /// The initiator is who the request says.
    Forged,
    /// There is a variable of the name, of this type.
    Typed(&'static str),
    /// There is no such variable.
    Absent,
}

const JSON: &str = "Content-Type: application/json";
const FORGED: &str = r#"{"variables":{"initiator":{"value":"mallory","type":"String"}}}"#;
const PASSES: &[u16] = &[200];
const BAD: &[u16] = &[400];
const UNSUPPORTED: &[u16] = &[415];
/// For what RFC 9112 leaves to the server, and where a stricter reader is as good.
const PASSES_OR_BAD: &[u16] = &[200, 400];

#[tokio::test]
async fn no_trick_that_works_on_the_engine_forges_an_initiator_through_the_gateway() {
    let engine = Engine::shared().await;
    let issuer = Issuer::start().await;
    // The most permissive profile: it streams what the catalogue does not know.
    let transparent = Options {
        profile: "transparent",
        ..Options::default()
    };
    let gateway = Gateway::start(engine, &issuer, transparent).await;

    let tricks = tricks();
    let keys = |number| {
        [
            format!("trick-{number}-direct"),
            format!("trick-{number}-gateway"),
        ]
    };
    engine
        .deploy(&model::waiting((0..tricks.len()).flat_map(keys)), None)
        .await;

    let mut wrong = String::new();
    for (number, trick) in tricks.iter().enumerate() {
        let [direct, through] = keys(number);
        let direct = Target::new(engine, direct, &Engine::authorization()).await;
        let through = Target::new(engine, through, &issuer.bearer(ADA)).await;
        for outcome in [
            shown(engine, trick, &direct).await,
            foiled(engine, &gateway, trick, &through).await,
        ] {
            if let Err(what) = outcome {
                writeln!(wrong, "{}: {what}", trick.name).unwrap();
            }
        }
    }
    assert!(wrong.is_empty(), "\n{wrong}");
}

/// Whether the trick works on the engine itself.
async fn shown(engine: &Engine, trick: &Trick, target: &Target) -> Result<(), String> {
    let answers = exchange(engine.address(), &(trick.bytes)(target)).await?;
    let mut held = Vec::new();
    let instances = engine.instances(&target.key).await;
    for instance in &instances {
        held.extend(engine.variables(instance).await);
    }
    held.retain(|(name, ..)| name == "initiator");
    let works = match trick.direct {
        Direct::Forged => held.iter().any(|(.., value)| value == "mallory"),
        Direct::Typed(expected) => held.iter().any(|(_, r#type, _)| r#type == expected),
        Direct::Absent => held.is_empty() && !instances.is_empty(),
    };
    if works {
        Ok(())
    } else {
        Err(format!("does nothing on the engine: {answers:?}, {held:?}"))
    }
}

/// Whether the gateway refuses the trick or makes it harmless.
async fn foiled(
    engine: &Engine,
    gateway: &Gateway,
    trick: &Trick,
    target: &Target,
) -> Result<(), String> {
    let answers = exchange(gateway.address(), &(trick.bytes)(target)).await?;
    let Some((status, _)) = answers.first() else {
        return Err("the gateway answers nothing".to_owned());
    };
    if !trick.gateway.contains(status) {
        return Err(format!(
            "the gateway answers {answers:?}, expected {:?}",
            trick.gateway
        ));
    }
    let instances = engine.instances(&target.key).await;
    let started = answers.iter().filter(|(status, _)| *status == 200).count();
    if instances.len() != started {
        return Err(format!("{} instances after {answers:?}", instances.len()));
    }
    for instance in instances {
        let mut held = initiator(engine, &instance).await;
        // The same values in an inner scope shadow nothing.
        held.dedup();
        if held != of(ADA) {
            return Err(format!("the engine holds {held:?} after {answers:?}"));
        }
    }
    Ok(())
}

fn tricks() -> Vec<Trick> {
    let mut tricks = vec![
        post(
            "none",
            "key/{key}/start",
            &[JSON],
            FORGED,
            Direct::Forged,
            PASSES,
        ),
        // Another way to the same operation.
        post(
            "by id",
            "{id}/start",
            &[JSON],
            FORGED,
            Direct::Forged,
            PASSES,
        ),
        post(
            "form",
            "key/{key}/submit-form",
            &[JSON],
            FORGED,
            Direct::Forged,
            PASSES,
        ),
        post(
            "form by id",
            "{id}/submit-form",
            &[JSON],
            FORGED,
            Direct::Forged,
            PASSES,
        ),
        post(
            "trailing slash",
            "key/{key}/start/",
            &[JSON],
            FORGED,
            Direct::Forged,
            PASSES,
        ),
        post(
            "query",
            "key/{key}/start?_method=GET",
            &[JSON],
            FORGED,
            Direct::Forged,
            PASSES,
        ),
        post(
            "parameter",
            "key/{key}/start;jsessionid=1",
            &[JSON],
            FORGED,
            Direct::Forged,
            BAD,
        ),
        post(
            "parameters",
            "key;c/{key};d/start",
            &[JSON],
            FORGED,
            Direct::Forged,
            BAD,
        ),
        post(
            "encoded slash",
            "key/{key}/start;x=%2F",
            &[JSON],
            FORGED,
            Direct::Forged,
            BAD,
        ),
        post(
            "encoded key",
            "key/%74{ey}/start",
            &[JSON],
            FORGED,
            Direct::Forged,
            PASSES,
        ),
        post(
            "encoded id",
            "%74{d}/start",
            &[JSON],
            FORGED,
            Direct::Forged,
            PASSES,
        ),
        trick("engine name", Direct::Forged, PASSES, |target| {
            let path = format!("engine/default/process-definition/key/{}/start", target.key);
            let line = format!("POST /engine-rest/{path} HTTP/1.1");
            request(&line, &[&target.authorization, JSON], FORGED.as_bytes())
        }),
        trick("absolute form", Direct::Forged, PASSES_OR_BAD, |target| {
            let path = format!("process-definition/key/{}/start", target.key);
            let line = format!("POST http://engine.example/engine-rest/{path} HTTP/1.1");
            request(&line, &[&target.authorization, JSON], FORGED.as_bytes())
        }),
    ];
    tricks.extend(in_the_document());
    tricks.extend(in_the_encoding());
    tricks.extend(in_the_headers());
    tricks.extend(in_the_framing());
    tricks
}

/// A second place, a second reading, or no place for the initiator.
fn in_the_document() -> Vec<Trick> {
    let body = |name, body: &str, direct, gateway| {
        post(name, "key/{key}/start", &[JSON], body, direct, gateway)
    };
    let typed = |name, value: &str, direct| {
        body(
            name,
            &format!(r#"{{"variables":{{"initiator":{value}}}}}"#),
            direct,
            PASSES,
        )
    };
    let mut many = String::from(r#"{"variables":{"#);
    for number in 0..2000 {
        write!(many, r#""v{number}":{{"value":{number}}},"#).unwrap();
    }
    many += r#""initiator":{"value":"mallory"}}}"#;
    let beside = |value: &str| {
        format!(r#"{{"beside":{value},"variables":{{"initiator":{{"value":"mallory"}}}}}}"#)
    };
    vec![
        body(
            "instructions",
            r#"{"variables":{"initiator":{"value":"x"}},"startInstructions":[{"type":"startBeforeActivity",
                "activityId":"{key}-task","variables":{"initiator":{"value":"mallory"}}}]}"#,
            Direct::Forged,
            PASSES,
        ),
        body(
            "local in instructions",
            r#"{"startInstructions":[{"type":"startBeforeActivity","activityId":"{key}-task",
                "variables":{"initiator":{"value":"mallory","local":true}}}]}"#,
            Direct::Forged,
            PASSES,
        ),
        body(
            "two maps",
            r#"{"variables":{"initiator":{"value":"x"}},"variables":{"initiator":{"value":"mallory"}}}"#,
            Direct::Forged,
            BAD,
        ),
        body(
            "two maps, one escaped",
            r#"{"variables":{"initiator":{"value":"x"}},"v\u0061riables":{"initiator":{"value":"mallory"}}}"#,
            Direct::Forged,
            BAD,
        ),
        body(
            "two initiators",
            r#"{"variables":{"initiator":{"value":"x"},"initiator":{"value":"mallory"}}}"#,
            Direct::Forged,
            BAD,
        ),
        body(
            "two initiators, one escaped",
            r#"{"variables":{"initiator":{"value":"x"},"\u0069nitiator":{"value":"mallory"}}}"#,
            Direct::Forged,
            BAD,
        ),
        body(
            "two values",
            r#"{"variables":{"initiator":{"value":"x","value":"mallory"}}}"#,
            Direct::Forged,
            PASSES_OR_BAD,
        ),
        body(
            "two lists of instructions",
            r#"{"startInstructions":[],"startInstructions":[{"type":"startBeforeActivity",
                "activityId":"{key}-task","variables":{"initiator":{"value":"mallory"}}}]}"#,
            Direct::Forged,
            BAD,
        ),
        body(
            "escaped names",
            r#"{"\u0076ariables":{"\u0069nit\u0069\u0061tor":{"v\u0061lue":"mallory"}}}"#,
            Direct::Forged,
            PASSES,
        ),
        body(
            "blanks",
            "\r\n\t { \"variables\"\n:\t{ \"initiator\" : { \"value\" : \"mallory\" } } } \n",
            Direct::Forged,
            PASSES,
        ),
        body("no map", r#"{"variables":null}"#, Direct::Absent, PASSES),
        body("nothing", "{}", Direct::Absent, PASSES),
        body("no body", "", Direct::Absent, PASSES),
        typed("null", "{}", Direct::Typed("Null")),
        typed(
            "bytes",
            r#"{"value":"bWFsbG9yeQ==","type":"Bytes"}"#,
            Direct::Typed("Bytes"),
        ),
        typed(
            "file",
            r#"{"value":"bWFsbG9yeQ==","type":"File","valueInfo":{"filename":"mallory"}}"#,
            Direct::Typed("File"),
        ),
        typed(
            "integer",
            r#"{"value":1,"type":"integer"}"#,
            Direct::Typed("Integer"),
        ),
        typed(
            "object",
            r#"{"value":{"id":"mallory"}}"#,
            Direct::Typed("Object"),
        ),
        typed(
            "never stored",
            r#"{"value":"mallory","type":"String","valueInfo":{"transient":true}}"#,
            Direct::Absent,
        ),
        body(
            "deep",
            &beside(&("[".repeat(900) + &"]".repeat(900))),
            Direct::Forged,
            PASSES_OR_BAD,
        ),
        body(
            "long",
            &beside(&format!("\"{}\"", "x".repeat(2_000_000))),
            Direct::Forged,
            PASSES,
        ),
        body(
            "lone surrogate",
            &beside(r#""\ud800""#),
            Direct::Forged,
            PASSES_OR_BAD,
        ),
        body("many", &many, Direct::Forged, PASSES),
    ]
}

/// Texts that the engine reads as JSON and RFC 8259 does not allow between systems.
fn in_the_encoding() -> Vec<Trick> {
    let bytes =
        |name, bytes: Vec<u8>, direct| post(name, "key/{key}/start", &[JSON], bytes, direct, BAD);
    let utf16 = |unit: fn(u16) -> [u8; 2]| FORGED.encode_utf16().flat_map(unit).collect::<Vec<_>>();
    let utf32 = |unit: fn(u32) -> [u8; 4]| {
        FORGED
            .chars()
            .map(u32::from)
            .flat_map(unit)
            .collect::<Vec<_>>()
    };
    let marked = |mark: &[u8], text: Vec<u8>| [mark, &text].concat();
    let overlong = |plain: &str, long: &[u8]| {
        let at = FORGED.find(plain).unwrap();
        [&FORGED.as_bytes()[..at], long, &FORGED.as_bytes()[at + 1..]].concat()
    };
    vec![
        bytes(
            "UTF-8 mark",
            marked(b"\xef\xbb\xbf", FORGED.into()),
            Direct::Forged,
        ),
        bytes("UTF-16LE", utf16(u16::to_le_bytes), Direct::Forged),
        bytes("UTF-16BE", utf16(u16::to_be_bytes), Direct::Forged),
        bytes(
            "UTF-16LE mark",
            marked(b"\xff\xfe", utf16(u16::to_le_bytes)),
            Direct::Forged,
        ),
        bytes(
            "UTF-16BE mark",
            marked(b"\xfe\xff", utf16(u16::to_be_bytes)),
            Direct::Forged,
        ),
        bytes("UTF-32LE", utf32(u32::to_le_bytes), Direct::Forged),
        bytes("UTF-32BE", utf32(u32::to_be_bytes), Direct::Forged),
        bytes(
            "overlong initiator",
            overlong("initiator", b"\xc1\xa9"),
            Direct::Forged,
        ),
        bytes(
            "overlong variables",
            overlong("variables", b"\xc1\xb6"),
            Direct::Forged,
        ),
        bytes(
            "raw surrogate",
            marked(b"{\"x\":\"\xed\xa0\x80\",", FORGED.as_bytes()[1..].to_vec()),
            Direct::Forged,
        ),
    ]
}

/// Labels that say one thing of a body that is another.
fn in_the_headers() -> Vec<Trick> {
    let headers = |name, headers: &[&'static str], gateway| {
        post(
            name,
            "key/{key}/start",
            headers,
            FORGED,
            Direct::Forged,
            gateway,
        )
    };
    vec![
        headers("upper case", &["Content-Type: APPLICATION/JSON"], PASSES),
        headers("any type", &["Content-Type: */json"], UNSUPPORTED),
        headers(
            "boundary",
            &["Content-Type: application/json;boundary=x"],
            PASSES,
        ),
        headers(
            "charset",
            &["Content-Type: application/json; charset=utf-16"],
            PASSES,
        ),
        headers("semicolon", &["Content-Type: application/json;"], PASSES),
        headers(
            "blank",
            &["Content-Type: application/json ;x=y"],
            &[200, 415],
        ),
        headers(
            "folded",
            &["Content-Type: application/json\r\n ;x=y"],
            PASSES_OR_BAD,
        ),
        headers("gzip label", &[JSON, "Content-Encoding: gzip"], UNSUPPORTED),
        headers(
            "two labels",
            &[JSON, "Content-Encoding: identity, br"],
            UNSUPPORTED,
        ),
        headers(
            "identity label",
            &[JSON, "Content-Encoding: identity"],
            PASSES,
        ),
        headers(
            "other method",
            &[JSON, "X-HTTP-Method-Override: GET"],
            PASSES,
        ),
        headers("expectation", &[JSON, "Expect: 100-continue"], PASSES),
        headers(
            "hop by hop",
            &[JSON, "Connection: authorization, content-type"],
            PASSES,
        ),
        headers(
            "two credentials",
            &[JSON, "Authorization: Basic ZGVtbzpkZW1v"],
            BAD,
        ),
        headers(
            "old name of it",
            &[JSON, "Proxy-Authorization: Basic ZGVtbzpkZW1v"],
            PASSES,
        ),
    ]
}

/// Where a body ends, and a second request begins.
fn in_the_framing() -> Vec<Trick> {
    let framed = |name, version: &'static str, headers: &[&'static str], body: Vec<u8>, gateway| {
        let headers = headers.to_vec();
        trick(name, Direct::Forged, gateway, move |target| {
            let line = format!("POST {} HTTP/{version}", start_path(target));
            let all = [
                &[target.authorization.as_str(), JSON, "Connection: close"],
                &*headers,
            ];
            request_framed(&line, &all.concat(), &body)
        })
    };
    let chunks = || chunked(FORGED.as_bytes());
    let coding = "Transfer-Encoding: chunked";
    let extended = [
        format!("{:X};x=\"y\"\r\n", FORGED.len()).as_bytes(),
        FORGED.as_bytes(),
        b"\r\n0;z\r\nInitiator: mallory\r\n\r\n",
    ]
    .concat();
    vec![
        framed("chunked", "1.1", &[coding], chunks(), PASSES),
        framed(
            "upper case chunked",
            "1.1",
            &["Transfer-Encoding: Chunked"],
            chunks(),
            PASSES,
        ),
        framed(
            "chunk extension and trailer",
            "1.1",
            &[coding],
            extended,
            PASSES_OR_BAD,
        ),
        framed(
            "length, then chunked",
            "1.1",
            &["Content-Length: 3", coding],
            chunks(),
            PASSES_OR_BAD,
        ),
        framed(
            "chunked, then length",
            "1.1",
            &[coding, "Content-Length: 3"],
            chunks(),
            PASSES_OR_BAD,
        ),
        framed("chunked in 1.0", "1.0", &[coding], chunks(), PASSES_OR_BAD),
        trick("bare line feeds", Direct::Forged, PASSES_OR_BAD, |target| {
            let line = format!("POST {} HTTP/1.1", start_path(target));
            let request = request(&line, &[&target.authorization, JSON], FORGED.as_bytes());
            String::from_utf8(request)
                .unwrap()
                .replace("\r\n", "\n")
                .into_bytes()
        }),
        trick(
            "a second request behind the first",
            Direct::Forged,
            PASSES,
            |target| {
                let line = format!("POST {} HTTP/1.1", start_path(target));
                let headers = [&target.authorization, JSON, "Content-Length: 2"];
                let first = request_framed(&line, &headers, b"{}");
                let second = request(&line, &[&target.authorization, JSON], FORGED.as_bytes());
                [first, second].concat()
            },
        ),
    ]
}

/// A trick that is a POST below `/process-definition`, `{key}`, `{ey}`, `{id}`, `{d}` filled in.
fn post(
    name: &'static str,
    path: &str,
    headers: &[&'static str],
    body: impl Into<Vec<u8>>,
    direct: Direct,
    gateway: &'static [u16],
) -> Trick {
    let (path, headers, body) = (path.to_owned(), headers.to_vec(), body.into());
    trick(name, direct, gateway, move |target| {
        let path = path
            .replace("{key}", &target.key)
            .replace("{id}", &target.id)
            .replace("{ey}", target.key.split_at(1).1)
            .replace("{d}", &target.id.split_at(1).1.replace(':', "%3A"));
        let line = format!("POST /engine-rest/process-definition/{path} HTTP/1.1");
        let headers = [&[target.authorization.as_str()], &*headers].concat();
        let body = match str::from_utf8(&body) {
            Ok(text) => text.replace("{key}", &target.key).into_bytes(),
            Err(_) => body.clone(),
        };
        request(&line, &headers, &body)
    })
}

fn trick(
    name: &'static str,
    direct: Direct,
    gateway: &'static [u16],
    bytes: impl Fn(&Target) -> Vec<u8> + 'static,
) -> Trick {
    Trick {
        name,
        bytes: Box::new(bytes),
        direct,
        gateway,
    }
}

fn start_path(target: &Target) -> String {
    format!("/engine-rest/process-definition/key/{}/start", target.key)
}

impl Target {
    async fn new(engine: &Engine, key: String, authorization: &str) -> Self {
        let id = engine.definition(&key).await;
        Self {
            key,
            id,
            authorization: format!("Authorization: {authorization}"),
        }
    }
}
