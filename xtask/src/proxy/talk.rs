//! What upstreams speak: HTTP/1, or as much of HTTP/2 as a gRPC client takes for a server that answers until it fails.
//!
//! A gRPC request has its path as its message, because headers come compressed. Must not know: what goes wrong.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::Duration;

/// Room for a request.
const LEN: usize = 16_384;
/// How long the rest of a request may be on its way.
const MOMENT: Duration = Duration::from_millis(1);
const BODY: &[u8] = b"hello\n";
pub(super) const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n";
const HALF_HEADERS: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Len";
const HALF_BODY: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhello\n";

/// What a client of HTTP/2 says first of all.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Of a frame: length, kind, flags, stream.
const FRAME: usize = 9;
/// Of a gRPC message: whether it is compressed, its length.
const MESSAGE: usize = 5;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// `:status: 200` and `content-type: application/grpc`, as HPACK spells them.
const GRPC: &[u8] = b"\x88\x0f\x10\x10application/grpc";
const GRPC_OK: &[u8] = b"\x00\x0bgrpc-status\x010";

/// A language.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Talk {
    Http1,
    Grpc,
}

/// A request.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) path: String,
    talk: Talk,
    /// Of HTTP/2.
    stream: u32,
}

/// One connection.
#[derive(Debug)]
pub(super) struct Talker {
    pub(super) stream: TcpStream,
    talk: Talk,
    /// Read, and behind the last request.
    ahead: Vec<u8>,
}

impl Talk {
    const ALL: [Self; 2] = [Self::Http1, Self::Grpc];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Grpc => "grpc",
        }
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|talk| talk.name() == name)
    }

    /// The first request in these bytes, if all of it is there, and its length.
    fn parse(self, bytes: &[u8]) -> Option<(Request, usize)> {
        let (path, stream, len) = match self {
            Self::Http1 => {
                let text = String::from_utf8_lossy(bytes);
                let path = text.split(' ').nth(1)?.to_owned();
                (path, 0, bytes.len())
            }
            Self::Grpc => message(bytes)?,
        };
        let request = Request {
            path,
            talk: self,
            stream,
        };
        Some((request, len))
    }
}

impl Talker {
    /// Takes a connection, and says what has to be said before anything is asked.
    pub(super) fn new(talk: Talk, mut stream: TcpStream) -> io::Result<Self> {
        if talk == Talk::Grpc {
            stream.write_all(&frame(SETTINGS, 0, 0, &[]))?;
        }
        Ok(Self {
            stream,
            talk,
            ahead: Vec::new(),
        })
    }

    /// Waits for the first whole request, and leaves it unread; `None` where the connection ends instead.
    pub(super) fn peek(&self) -> io::Result<Option<Request>> {
        let mut bytes = [0; LEN];
        loop {
            let len = self.stream.peek(&mut bytes)?;
            let request = self.talk.parse(&bytes[..len]);
            if len == 0 || request.is_some() {
                return Ok(request.map(|(request, _)| request));
            }
            thread::sleep(MOMENT);
        }
    }

    /// Reads the next whole request; `None` where the connection ends instead.
    pub(super) fn read(&mut self) -> io::Result<Option<Request>> {
        let mut some = [0; LEN];
        loop {
            if let Some((request, len)) = self.talk.parse(&self.ahead) {
                self.ahead.drain(..len);
                return Ok(Some(request));
            }
            match self.stream.read(&mut some)? {
                0 => return Ok(None),
                len => self.ahead.extend_from_slice(&some[..len]),
            }
        }
    }

    /// Writes, and closes in order. What a client of HTTP/2 still has to say without being asked is no reason for a reset.
    pub(super) fn close(mut self, last: &[u8]) -> io::Result<()> {
        self.stream.write_all(last)?;
        if self.talk == Talk::Grpc {
            self.stream.shutdown(Shutdown::Write)?;
            while self.stream.read(&mut [0; LEN])? > 0 {}
        }
        Ok(())
    }
}

impl Request {
    pub(super) fn answer(&self) -> Vec<u8> {
        match self.talk {
            Talk::Http1 => ANSWER.to_vec(),
            Talk::Grpc => {
                let trailers = frame(HEADERS, END_HEADERS | END_STREAM, self.stream, GRPC_OK);
                [self.begun(BODY.len()), trailers].concat()
            }
        }
    }

    pub(super) fn half_headers(&self) -> Vec<u8> {
        match self.talk {
            Talk::Http1 => HALF_HEADERS.to_vec(),
            Talk::Grpc => {
                let mut headers = self.headers();
                headers.truncate(headers.len() / 2);
                headers
            }
        }
    }

    pub(super) fn half_body(&self) -> Vec<u8> {
        match self.talk {
            Talk::Http1 => HALF_BODY.to_vec(),
            Talk::Grpc => self.begun(2 * BODY.len()),
        }
    }

    fn headers(&self) -> Vec<u8> {
        frame(HEADERS, END_HEADERS, self.stream, GRPC)
    }

    /// Headers and the body, in a message that announces `len` bytes.
    fn begun(&self, len: usize) -> Vec<u8> {
        let announced = u8::try_from(len).unwrap_or(u8::MAX);
        let message = [&[0, 0, 0, 0, announced], BODY].concat();
        [self.headers(), frame(DATA, 0, self.stream, &message)].concat()
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let len = u8::try_from(payload.len()).unwrap_or(u8::MAX);
    let head = [0, 0, len, kind, flags];
    [&head, &stream.to_be_bytes()[..], payload].concat()
}

/// The first message that is a whole request, its stream, and where it ends.
fn message(bytes: &[u8]) -> Option<(String, u32, usize)> {
    let mut rest = bytes.strip_prefix(PREFACE).unwrap_or(bytes);
    let mut path = String::new();
    loop {
        let (head, behind) = rest.split_at_checked(FRAME)?;
        let (&[long, longer, len, kind, flags], stream) = head.split_first_chunk()?;
        let len = usize::try_from(u32::from_be_bytes([0, long, longer, len])).ok()?;
        let (payload, behind) = behind.split_at_checked(len)?;
        rest = behind;
        if kind == DATA {
            path += &String::from_utf8_lossy(payload.get(MESSAGE..).unwrap_or_default());
            if flags & END_STREAM != 0 {
                let stream = u32::from_be_bytes(stream.try_into().ok()?);
                return Some((path, stream, bytes.len() - rest.len()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What gRPC's own client sent for the path `/a/b`, but with its headers cut off.
    fn sent() -> Vec<u8> {
        let parts = [
            PREFACE.to_vec(),
            frame(SETTINGS, 0, 0, &[0, 2, 0, 0, 0, 0]),
            frame(HEADERS, END_HEADERS, 1, b"\x83"),
            frame(DATA, 0, 1, b"\0\0\0\0\x04/a/b"),
            frame(DATA, END_STREAM, 1, b""),
        ];
        parts.concat()
    }

    #[test]
    fn a_request_is_its_message() {
        let bytes = sent();
        let more = [&bytes[..], &frame(SETTINGS, 1, 0, &[])].concat();
        let (request, len) = Talk::Grpc.parse(&more).unwrap();
        assert_eq!(
            (request.path.as_str(), request.stream, len),
            ("/a/b", 1, bytes.len())
        );
        for len in 0..bytes.len() {
            assert!(Talk::Grpc.parse(&bytes[..len]).is_none(), "{len}");
        }
    }

    #[test]
    fn an_answer_has_the_length_that_it_announces() {
        let (request, _) = Talk::Grpc.parse(&sent()).unwrap();
        let message = [&[0, 0, 0, 0, 6], BODY].concat();
        let parts = [
            frame(HEADERS, 4, 1, GRPC),
            frame(DATA, 0, 1, &message),
            frame(HEADERS, 5, 1, GRPC_OK),
        ];
        assert_eq!(request.answer(), parts.concat());
    }
}
