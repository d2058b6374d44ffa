//! The engine before which all are measured: answers at once, and only to the account that it knows.

use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use bpmgate::demo::engine::SAMPLE;
use serde_json::json;

use super::wire::Wire;

/// Answers for ever.
pub fn serve(listener: &TcpListener) -> io::Result<()> {
    let answers = &*Box::leak(Box::new(Answers::new()));
    loop {
        let (stream, _) = listener.accept()?;
        // A client that goes away is not worth a word.
        thread::spawn(move || answers.serve(stream));
    }
}

/// Whole answers, head and body.
struct Answers {
    refused: Vec<u8>,
    tasks: Vec<u8>,
    instance: Vec<u8>,
    definition: Vec<u8>,
    model: Vec<u8>,
    deployment: Vec<u8>,
    file: Vec<u8>,
}

impl Answers {
    fn new() -> Self {
        let model = json!({"id": "order:1:7", "bpmn20Xml": SAMPLE}).to_string();
        Self {
            refused: answer("401 Unauthorized", JSON, b"{}"),
            tasks: answer("200 OK", JSON, &[b' '; 1024]),
            instance: answer("200 OK", JSON, INSTANCE),
            definition: answer("200 OK", JSON, br#"{"id":"order:1:7"}"#),
            // The gateway asks which variable the process model names for its initiator.
            model: answer("200 OK", JSON, model.as_bytes()),
            deployment: answer("200 OK", JSON, DEPLOYMENT),
            file: answer("200 OK", "application/octet-stream", &vec![b'f'; FILE]),
        }
    }

    fn serve(&self, stream: TcpStream) -> io::Result<()> {
        let mut wire = Wire::new(stream)?;
        while let Some(asked) = wire.asked()? {
            let echoes = asked.path.contains("/echo/");
            let mut echo = Vec::new();
            wire.asked_body(&asked, |bytes| {
                if echoes {
                    echo.extend_from_slice(bytes);
                }
            })?;
            if echoes {
                echo = answer("200 OK", JSON, &echo);
            }
            wire.write(match asked.path.as_str() {
                _ if asked.authorization.as_deref() != Some(ACCOUNT) => &self.refused,
                _ if echoes => &echo,
                path if path.ends_with("/deployment/create") => &self.deployment,
                _ if asked.method == "POST" => &self.instance,
                path if path.ends_with("/xml") => &self.model,
                path if path.ends_with("/data") => &self.file,
                path if path.contains("/process-definition/key/") => &self.definition,
                _ => &self.tasks,
            })?;
        }
        Ok(())
    }
}

fn answer(status: &str, content_type: &str, body: &[u8]) -> Vec<u8> {
    let mut answer = Vec::with_capacity(body.len() + 128);
    let length = body.len();
    let _ = write!(
        answer,
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n"
    );
    answer.extend_from_slice(body);
    answer
}

const JSON: &str = "application/json";
const ACCOUNT: &[u8] = b"Basic ZGVtbzpkZW1v";
const INSTANCE: &[u8] = br#"{"links":[],"id":"1f2e","definitionId":"order:1:7","businessKey":null,"caseInstanceId":null,"ended":false,"suspended":false,"tenantId":null}"#;
const DEPLOYMENT: &[u8] = br#"{"links":[],"id":"1f2e","name":"bench","source":null,"tenantId":null,"deployedProcessDefinitions":null}"#;

/// The bytes of the file that is streamed.
pub const FILE: usize = 10 * 1000 * 1000;
