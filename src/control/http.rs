//! As much of HTTP/1.1 (RFC 9112) as the interface needs: one request without
//! a body to a connection, within bounds of size and of reads.

use std::io::{self, Read, Write};

use crate::base::limits::{CONTROL_HEADERS_MAX, CONTROL_READS_MAX, CONTROL_REQUEST_BYTES_MAX};

/// What a request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its method.
    pub method: String,
    /// Its target up to the `?`.
    pub path: String,
    /// What comes after the `?`, or nothing.
    pub query: String,
}

/// Why there is no request to answer.
#[derive(Debug)]
pub enum RequestError {
    /// The connection ended or was too slow: there is nobody to tell.
    Gone(io::Error),
    /// It is not HTTP.
    Malformed,
    /// It is larger, or came in more pieces, than is allowed.
    TooLarge,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// RFC 9110 section 15.
    pub status: u16,
    /// Its media type.
    pub content_type: &'static str,
    /// What it says.
    pub body: Vec<u8>,
}

/// Reads one request. Each read's time is bounded by the stream's own time-out,
/// and their number here, so the whole is bounded without looking at a clock.
pub fn read_request(stream: &mut impl Read) -> Result<Request, RequestError> {
    let mut bytes = [0; CONTROL_REQUEST_BYTES_MAX];
    let mut len = 0;
    for _ in 0..CONTROL_READS_MAX {
        if len == bytes.len() {
            return Err(RequestError::TooLarge);
        }
        let got = stream.read(&mut bytes[len..]).map_err(RequestError::Gone)?;
        if got == 0 {
            return Err(RequestError::Gone(io::ErrorKind::UnexpectedEof.into()));
        }
        len += got;
        if let Some(request) = parse_request(&bytes[..len])? {
            return Ok(request);
        }
    }
    Err(RequestError::TooLarge)
}

/// `None`: there is more to come.
fn parse_request(bytes: &[u8]) -> Result<Option<Request>, RequestError> {
    let mut headers = [httparse::EMPTY_HEADER; CONTROL_HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Partial) => return Ok(None),
        Ok(httparse::Status::Complete(_)) => {}
        Err(httparse::Error::TooManyHeaders) => return Err(RequestError::TooLarge),
        Err(_) => return Err(RequestError::Malformed),
    }
    let (Some(method), Some(target)) = (request.method, request.path) else {
        return Err(RequestError::Malformed);
    };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Ok(Some(Request { method: method.to_owned(), path: path.to_owned(), query: query.to_owned() }))
}

/// Writes an answer and nothing after it: the connection is closed then. A
/// reader that takes it in too many small pieces is given up.
pub fn write_response(stream: &mut impl Write, response: &Response) -> io::Result<()> {
    let reason = match response.status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        413 => "Content Too Large",
        _ => "Internal Server Error",
    };
    let mut bytes = format!(
        "HTTP/1.1 {} {reason}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        response.status,
        response.content_type,
        response.body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(&response.body);
    let mut rest = &bytes[..];
    for _ in 0..CONTROL_READS_MAX + bytes.len() / 1024 {
        if rest.is_empty() {
            return stream.flush();
        }
        match stream.write(rest)? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            len => rest = &rest[len..],
        }
    }
    if rest.is_empty() { stream.flush() } else { Err(io::ErrorKind::TimedOut.into()) }
}

/// Takes an answer apart: its status and its body. `None`: it is not HTTP.
pub fn parse_response(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let mut headers = [httparse::EMPTY_HEADER; CONTROL_HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(bytes).ok()? {
        httparse::Status::Complete(body) => Some((response.code?, &bytes[body..])),
        httparse::Status::Partial => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives its bytes one by one.
    struct Trickle<'b>(&'b [u8]);

    impl Read for Trickle<'_> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let len = self.0.len().min(into.len()).min(1);
            into[..len].copy_from_slice(&self.0[..len]);
            self.0 = &self.0[len..];
            Ok(len)
        }
    }

    #[test]
    fn a_request_is_taken_apart() {
        let request = read_request(&mut &b"GET /v1/flows?limit=3 HTTP/1.1\r\nHost: baton\r\n\r\n"[..]);
        let expected = Request { method: "GET".into(), path: "/v1/flows".into(), query: "limit=3".into() };
        assert_eq!(request.ok(), Some(expected));
    }

    #[test]
    fn a_request_that_never_ends_is_given_up() {
        let endless = [b'a'; 10 * CONTROL_REQUEST_BYTES_MAX];
        let long = [&b"GET /"[..], &endless].concat();
        assert!(matches!(read_request(&mut &long[..]), Err(RequestError::TooLarge)));
        let slow = b"GET /v1/status HTTP/1.1\r\nHost: baton\r\n\r\n";
        assert!(matches!(read_request(&mut Trickle(slow)), Err(RequestError::TooLarge)));
        assert!(matches!(read_request(&mut &b"\x16\x03\x01\x02"[..]), Err(RequestError::Malformed)));
        assert!(matches!(read_request(&mut &b"GET / HT"[..]), Err(RequestError::Gone(_))));
    }

    #[test]
    fn an_answer_survives_the_way() {
        let mut bytes = Vec::new();
        let body = b"{}".to_vec();
        let response = Response { status: 404, content_type: "application/json", body };
        write_response(&mut bytes, &response).expect("memory takes it");
        assert_eq!(parse_response(&bytes), Some((404, &b"{}"[..])));
        assert_eq!(parse_response(b"HTTP/1.1 200 OK\r\nConte"), None);
    }
}
