//! Bytes over a socket, for requests that no proper client would send.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::DEADLINE;

/// Sends the bytes and reads until the other side closes: the status and body of each final answer.
///
/// The last request must ask for `Connection: close`.
pub(crate) async fn exchange(address: SocketAddr, bytes: &[u8]) -> Result<Answers, String> {
    let mut received = Vec::new();
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        // Who refuses a request may close before it has read all of it: what counts is its answer.
        drop(stream.write_all(bytes).await);
        drop(stream.read_to_end(&mut received).await);
    };
    let ended = tokio::time::timeout(DEADLINE, exchange).await;
    let answers = answers(&received);
    match ended {
        Ok(()) => Ok(answers),
        Err(_) => Err(format!("the connection is still open, after {answers:?}")),
    }
}

/// The status and the body of each answer.
pub(crate) type Answers = Vec<(u16, String)>;

fn answers(mut received: &[u8]) -> Answers {
    let mut answers = Vec::new();
    while let Some(end) = memchr::memmem::find(received, b"\r\n\r\n") {
        let (head, rest) = received.split_at(end + 4);
        let head = String::from_utf8_lossy(head).to_lowercase();
        let status: u16 = head.split(' ').nth(1).unwrap().parse().unwrap();
        let header = |name: &str| {
            head.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
                .map(str::trim)
        };
        let (body, rest) = if header("transfer-encoding") == Some("chunked") {
            dechunk(rest)
        } else {
            let length = header("content-length").map_or(0, |length| length.parse().unwrap());
            rest.split_at_checked(length)
                .map(|(body, rest)| (body.to_vec(), rest))
                .unwrap_or_default()
        };
        if status >= 200 {
            answers.push((status, String::from_utf8_lossy(&body).into_owned()));
        }
        received = rest;
    }
    answers
}

/// The content of the chunks, and what follows the last one.
fn dechunk(mut rest: &[u8]) -> (Vec<u8>, &[u8]) {
    let mut content = Vec::new();
    loop {
        let end = memchr::memmem::find(rest, b"\r\n").expect("a chunk size");
        let size = usize::from_str_radix(str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
        let chunk = &rest[end + 2..];
        content.extend_from_slice(&chunk[..size]);
        rest = &chunk[size + 2..];
        if size == 0 {
            return (content, rest);
        }
    }
}

/// One request as bytes, with a Content-Length and `Connection: close`.
pub(crate) fn request(start_line: &str, headers: &[&str], body: &[u8]) -> Vec<u8> {
    let length = format!("Content-Length: {}", body.len());
    request_framed(
        start_line,
        &[headers, &[&length, "Connection: close"]].concat(),
        body,
    )
}

/// One request as bytes, framed by its own headers or not at all.
pub(crate) fn request_framed(start_line: &str, headers: &[&str], body: &[u8]) -> Vec<u8> {
    let mut request = format!("{start_line}\r\nHost: engine.example\r\n");
    for header in headers {
        request += header;
        request += "\r\n";
    }
    request += "\r\n";
    [request.as_bytes(), body].concat()
}

/// The body as chunks of at most seven bytes.
pub(crate) fn chunked(body: &[u8]) -> Vec<u8> {
    let mut chunks = Vec::new();
    for chunk in body.chunks(7) {
        chunks.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        chunks.extend_from_slice(chunk);
        chunks.extend_from_slice(b"\r\n");
    }
    chunks.extend_from_slice(b"0\r\n\r\n");
    chunks
}
