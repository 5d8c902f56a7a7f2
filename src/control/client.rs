//! Asks a running appliance over its control socket.

use std::fmt;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::base::limits::CONTROL_ANSWER_BYTES_MAX;
use crate::control::http::parse_response;
use crate::control::report::Refusal;

/// How long each read may wait. A planned switchover takes the longest.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Debug)]
pub enum AskError {
    /// Nobody could be asked.
    Unreachable(PathBuf, io::Error),
    /// The connection broke.
    Broken(io::Error),
    /// What came is not an answer of this interface.
    NotUnderstood(String),
    /// The appliance says no, in a sentence. Status 400 to 405: it was asked wrongly.
    Refused(u16, String),
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AskError::Unreachable(path, error) => {
                write!(f, "no baton answers on {}: {error} (is it running? see --socket)", path.display())
            }
            AskError::Broken(error) => write!(f, "the connection broke: {error}"),
            AskError::NotUnderstood(why) => write!(f, "the answer is not understood: {why}"),
            AskError::Refused(_, why) => f.write_str(why),
        }
    }
}

impl core::error::Error for AskError {}

/// Sends one request and reads its answer. `target` is a path of
/// [`super::paths`], with `?` and a query where it takes one.
pub fn ask<T: DeserializeOwned>(socket: &Path, method: &str, target: &str) -> Result<T, AskError> {
    let unreachable = |error| AskError::Unreachable(socket.to_owned(), error);
    let mut stream = UnixStream::connect(socket).map_err(unreachable)?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT)).map_err(AskError::Broken)?;
    stream.set_write_timeout(Some(ANSWER_TIMEOUT)).map_err(AskError::Broken)?;
    let request = format!("{method} {target} HTTP/1.1\r\nHost: baton\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).map_err(AskError::Broken)?;
    let mut bytes = Vec::new();
    let limit = CONTROL_ANSWER_BYTES_MAX as u64 + 1;
    stream.take(limit).read_to_end(&mut bytes).map_err(AskError::Broken)?;
    if bytes.len() > CONTROL_ANSWER_BYTES_MAX {
        return Err(AskError::NotUnderstood(format!("it is longer than {CONTROL_ANSWER_BYTES_MAX} bytes")));
    }
    let (status, body) =
        parse_response(&bytes).ok_or_else(|| AskError::NotUnderstood("it is not HTTP".to_owned()))?;
    let not_json = |error: serde_json::Error| AskError::NotUnderstood(error.to_string());
    if status == 200 {
        serde_json::from_slice(body).map_err(not_json)
    } else {
        let refusal: Refusal = serde_json::from_slice(body).map_err(not_json)?;
        Err(AskError::Refused(status, refusal.error))
    }
}
