//! HTTP/1.1 over a blocking socket, for who sends the load and for the engine.
//!
//! A request is bytes that were made before, an answer is looked at no more than needed to find its end:
//! whoever measures must cost less than what is measured.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use httparse::{EMPTY_HEADER, Header, Status};

/// One end of a connection.
pub struct Wire {
    stream: TcpStream,
    /// What was read and not yet looked at is `buffer[from..to]`.
    buffer: Vec<u8>,
    from: usize,
    to: usize,
}

/// A request's head, as far as the engine looks at it.
pub struct Asked {
    pub method: String,
    pub path: String,
    pub authorization: Option<Vec<u8>>,
    framing: Framing,
}

/// An answer's head.
pub struct Answered {
    pub status: u16,
    /// The connection may be used again.
    pub kept: bool,
    framing: Framing,
}

#[derive(Clone, Copy)]
enum Framing {
    Length(usize),
    Chunked,
}

impl Wire {
    pub fn connect(address: SocketAddr) -> io::Result<Self> {
        Self::new(dialled(address)?)
    }

    pub fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: vec![0; BUFFER],
            from: 0,
            to: 0,
        })
    }

    /// Closes the connection and opens another.
    pub fn reconnect(&mut self, address: SocketAddr) -> io::Result<()> {
        let buffer = std::mem::take(&mut self.buffer);
        *self = Self {
            stream: dialled(address)?,
            buffer,
            from: 0,
            to: 0,
        };
        Ok(())
    }

    /// The connection without its buffer.
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }

    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends a request and reads its answer to the end.
    pub fn exchange(&mut self, request: &[u8]) -> io::Result<Answered> {
        self.write(request)?;
        let answered = self.answered()?;
        self.body(answered.framing, |_| ())?;
        Ok(answered)
    }

    /// The same with the answer's body.
    pub fn ask(&mut self, request: &[u8]) -> io::Result<(Answered, Vec<u8>)> {
        self.write(request)?;
        let answered = self.answered()?;
        let mut body = Vec::new();
        self.body(answered.framing, |bytes| body.extend_from_slice(bytes))?;
        Ok((answered, body))
    }

    fn answered(&mut self) -> io::Result<Answered> {
        loop {
            let head = self.head(|bytes| {
                let mut headers = [EMPTY_HEADER; HEADERS];
                let mut answer = httparse::Response::new(&mut headers);
                let read = answer.parse(bytes).map_err(io::Error::other)?;
                let Status::Complete(length) = read else {
                    return Ok(None);
                };
                let status = answer.code.unwrap_or_default();
                let bodiless = status < 200 || status == 204 || status == 304;
                let answered = Answered {
                    status,
                    kept: !says(answer.headers, "connection", "close"),
                    framing: match framing(answer.headers)? {
                        _ if bodiless => Framing::Length(0),
                        Some(framing) => framing,
                        None => return Err(io::Error::other("the answer's end is not told")),
                    },
                };
                Ok(Some((length, answered)))
            })?;
            match head {
                // 1xx: the answer comes after.
                Some(answered) if answered.status < 200 => {}
                Some(answered) => return Ok(answered),
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }

    /// The next request's head; none when the client has closed.
    pub fn asked(&mut self) -> io::Result<Option<Asked>> {
        self.head(|bytes| {
            let mut headers = [EMPTY_HEADER; HEADERS];
            let mut request = httparse::Request::new(&mut headers);
            let read = request.parse(bytes).map_err(io::Error::other)?;
            let Status::Complete(length) = read else {
                return Ok(None);
            };
            let asked = Asked {
                method: request.method.unwrap_or_default().to_owned(),
                path: request.path.unwrap_or_default().to_owned(),
                authorization: value(request.headers, "authorization").map(<[u8]>::to_vec),
                framing: framing(request.headers)?.unwrap_or(Framing::Length(0)),
            };
            Ok(Some((length, asked)))
        })
    }

    /// Reads the request's body to its end.
    pub fn asked_body(&mut self, asked: &Asked, taken: impl FnMut(&[u8])) -> io::Result<()> {
        self.body(asked.framing, taken)
    }

    /// Reads until `parse` has found a head and its length; none when the other end closes before it begins.
    fn head<T>(
        &mut self,
        parse: impl Fn(&[u8]) -> io::Result<Option<(usize, T)>>,
    ) -> io::Result<Option<T>> {
        loop {
            let begun = self.from < self.to;
            if begun && let Some((length, head)) = parse(&self.buffer[self.from..self.to])? {
                self.from += length;
                return Ok(Some(head));
            }
            if self.fill()? == 0 {
                return if begun {
                    Err(io::ErrorKind::UnexpectedEof.into())
                } else {
                    Ok(None)
                };
            }
        }
    }

    fn body(&mut self, framing: Framing, mut taken: impl FnMut(&[u8])) -> io::Result<()> {
        match framing {
            Framing::Length(length) => self.take(length, &mut taken),
            Framing::Chunked => loop {
                let size = self.head(|bytes| match httparse::parse_chunk_size(bytes) {
                    Ok(Status::Complete(found)) => Ok(Some(found)),
                    Ok(Status::Partial) => Ok(None),
                    Err(_) => Err(io::ErrorKind::InvalidData.into()),
                })?;
                let size = size.ok_or(io::ErrorKind::UnexpectedEof)?;
                let size = usize::try_from(size).map_err(io::Error::other)?;
                self.take(size, &mut taken)?;
                // Nobody here sends trailers.
                self.take(2, &mut |_| ())?;
                if size == 0 {
                    return Ok(());
                }
            },
        }
    }

    fn take(&mut self, mut length: usize, taken: &mut impl FnMut(&[u8])) -> io::Result<()> {
        while length > 0 {
            if self.from == self.to && self.fill()? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let now = length.min(self.to - self.from);
            taken(&self.buffer[self.from..self.from + now]);
            self.from += now;
            length -= now;
        }
        Ok(())
    }

    fn fill(&mut self) -> io::Result<usize> {
        if self.from == self.to {
            (self.from, self.to) = (0, 0);
        } else if self.to == self.buffer.len() {
            self.buffer.copy_within(self.from..self.to, 0);
            (self.from, self.to) = (0, self.to - self.from);
        }
        let read = self.stream.read(&mut self.buffer[self.to..])?;
        self.to += read;
        Ok(read)
    }
}

fn dialled(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn framing(headers: &[Header<'_>]) -> io::Result<Option<Framing>> {
    if says(headers, "transfer-encoding", "chunked") {
        return Ok(Some(Framing::Chunked));
    }
    let Some(length) = value(headers, "content-length") else {
        return Ok(None);
    };
    let length = str::from_utf8(length).map_err(io::Error::other)?;
    Ok(Some(Framing::Length(
        length.parse().map_err(io::Error::other)?,
    )))
}

fn value<'h>(headers: &[Header<'h>], name: &str) -> Option<&'h [u8]> {
    let mut headers = headers.iter();
    let header = headers.find(|header| header.name.eq_ignore_ascii_case(name))?;
    Some(header.value)
}

fn says(headers: &[Header<'_>], name: &str, word: &str) -> bool {
    value(headers, name).is_some_and(|value| value.eq_ignore_ascii_case(word.as_bytes()))
}

const BUFFER: usize = 64 * 1024;
const HEADERS: usize = 64;
/// A contender that says nothing for so long has failed.
const PATIENCE: Duration = Duration::from_mins(1);
