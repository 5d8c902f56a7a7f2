//! The listeners: the control socket and the metrics address, a thread each.

use std::fmt;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::sys::stat::{Mode, umask};
use serde::Serialize;

use crate::control::choosing::Wish;
use crate::control::http::{Request, RequestError, Response, read_request, write_response};
use crate::control::maintenance::Maintenance;
use crate::control::rebalance::Wanted;
use crate::control::reload::NotReloaded;
use crate::control::report::{Done, FlowFilter, Refusal};
use crate::control::{Backend, metrics, paths};

/// How long one read or one write of a connection may take.
const STREAM_TIMEOUT: Duration = Duration::from_millis(250);

/// Why a listener could not be started.
#[derive(Debug)]
pub enum ServeError {
    /// Another process answers on the socket.
    InUse(PathBuf),
    /// Something that is not a socket stands at its path.
    NotASocket(PathBuf),
    /// The operating system refused.
    Io(String, io::Error),
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServeError::InUse(path) => write!(f, "{}: another process is listening there", path.display()),
            ServeError::NotASocket(path) => write!(f, "{}: is there, and is not a socket", path.display()),
            ServeError::Io(what, error) => write!(f, "{what}: {error}"),
        }
    }
}

impl core::error::Error for ServeError {}

/// A running listener; dropping it ends its thread.
#[derive(Debug)]
pub struct Server {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    at: Listening,
}

#[derive(Debug)]
enum Listening {
    Unix(PathBuf),
    Tcp(SocketAddr),
}

impl Server {
    /// Serves the whole interface on a unix socket that only its owner may open.
    pub fn control(path: &Path, backend: Arc<dyn Backend>) -> Result<Server, ServeError> {
        let listener = bind_unix(path)?;
        let accept = move || listener.accept().and_then(|(stream, _)| bounded_unix(stream));
        let answer = move |request: &Request| answer(request, &*backend);
        Server::start("control", Listening::Unix(path.to_owned()), accept, answer)
    }

    /// Serves metrics alone on a TCP address.
    pub fn metrics(address: SocketAddr, backend: Arc<dyn Backend>) -> Result<Server, ServeError> {
        let failed = |error| ServeError::Io(address.to_string(), error);
        let listener = TcpListener::bind(address).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let accept = move || listener.accept().and_then(|(stream, _)| bounded_tcp(stream));
        let answer = move |request: &Request| match request.path.as_str() {
            paths::METRICS => answer(request, &*backend),
            _ => refusal(404, format!("there is only {} here", paths::METRICS)),
        };
        Server::start("metrics", Listening::Tcp(address), accept, answer)
    }

    /// The TCP address that it listens on: with port 0, the system chose one.
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.at {
            Listening::Unix(_) => None,
            Listening::Tcp(address) => Some(*address),
        }
    }

    fn start<S: Read + Write>(
        name: &str,
        at: Listening,
        accept: impl Fn() -> io::Result<S> + Send + 'static,
        answer: impl Fn(&Request) -> Response + Send + 'static,
    ) -> Result<Server, ServeError> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let run = move || {
            while !stopped.load(Ordering::Acquire) {
                match accept() {
                    Ok(mut stream) => serve_one(&mut stream, &answer),
                    Err(error) => {
                        // Out of descriptors, say: it may pass, and must not spin.
                        log::warn!("a control connection could not be accepted: {error}");
                        thread::park_timeout(STREAM_TIMEOUT);
                    }
                }
            }
        };
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(run)
            .map_err(|error| ServeError::Io(format!("thread {name}"), error))?;
        Ok(Server { stop, thread: Some(thread), at })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // A connection wakes it from its wait for one.
        let woken = match &self.at {
            Listening::Unix(path) => UnixStream::connect(path).map(drop),
            Listening::Tcp(address) => TcpStream::connect_timeout(address, STREAM_TIMEOUT).map(drop),
        };
        match (woken, self.thread.take()) {
            (Ok(()), Some(thread)) => drop(thread.join()),
            // It cannot be woken, so it is left to the end of the process.
            (Err(error), _) => log::warn!("a control listener could not be woken: {error}"),
            (Ok(()), None) => {}
        }
        if let Listening::Unix(path) = &self.at {
            drop(fs::remove_file(path));
        }
    }
}

/// Binds a socket file with mode 0600. One that nobody listens on any more is replaced.
fn bind_unix(path: &Path) -> Result<UnixListener, ServeError> {
    let failed = |error| ServeError::Io(path.display().to_string(), error);
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(failed)?;
    }
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(ServeError::NotASocket(path.to_owned()));
        }
        Ok(_) => match UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path).map_err(failed)?;
            }
            Ok(_) => return Err(ServeError::InUse(path.to_owned())),
            Err(error) => return Err(failed(error)),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    // Before the file exists, so that there is no moment in which others may open it.
    let before = umask(Mode::from_bits_truncate(0o177));
    let listener = UnixListener::bind(path);
    umask(before);
    listener.map_err(failed)
}

fn bounded_unix(stream: UnixStream) -> io::Result<UnixStream> {
    stream.set_read_timeout(Some(STREAM_TIMEOUT))?;
    stream.set_write_timeout(Some(STREAM_TIMEOUT))?;
    Ok(stream)
}

fn bounded_tcp(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_read_timeout(Some(STREAM_TIMEOUT))?;
    stream.set_write_timeout(Some(STREAM_TIMEOUT))?;
    Ok(stream)
}

fn serve_one<S: Read + Write>(stream: &mut S, answer: &impl Fn(&Request) -> Response) {
    let response = match read_request(stream) {
        Ok(request) => answer(&request),
        Err(RequestError::Malformed) => refusal(400, "this is not HTTP".to_owned()),
        Err(RequestError::TooLarge) => refusal(413, "the request is too large or too slow".to_owned()),
        Err(RequestError::Gone(error)) => {
            log::debug!("a control connection ended without a request: {error}");
            return;
        }
    };
    if let Err(error) = write_response(stream, &response) {
        log::debug!("a control connection ended before its answer: {error}");
    }
}

fn answer(request: &Request, backend: &dyn Backend) -> Response {
    let known = match request.path.as_str() {
        paths::SWITCHOVER
        | paths::MAINTENANCE
        | paths::PROMOTE
        | paths::REBALANCE
        | paths::RELOAD
        | paths::FLOW_MIRROR => "POST",
        paths::STATUS
        | paths::FLOWS
        | paths::COUNTERS
        | paths::MIRROR
        | paths::EVENTS
        | paths::PORTS
        | paths::POOLS
        | paths::METRICS => "GET",
        path => return refusal(404, format!("there is nothing at {path}")),
    };
    if request.method != known {
        return refusal(405, format!("{} takes {known}, not {}", request.path, request.method));
    }
    match request.path.as_str() {
        paths::STATUS => json(200, &backend.status()),
        paths::FLOWS => match FlowFilter::from_query(&request.query) {
            Ok(filter) => json(200, &backend.flows(&filter)),
            Err(why) => refusal(400, why),
        },
        paths::FLOW_MIRROR => match Wish::from_query(&request.query) {
            Ok(wanted) => done(backend.choose(&wanted)),
            Err(why) => refusal(400, why),
        },
        paths::COUNTERS => json(200, &backend.counters()),
        paths::MIRROR => json(200, &backend.mirror()),
        paths::EVENTS => json(200, &backend.events()),
        paths::PORTS => json(200, &backend.ports()),
        paths::POOLS => json(200, &backend.pools()),
        paths::REBALANCE => match Wanted::from_query(&request.query) {
            Ok(wanted) => match backend.rebalance(&wanted) {
                Ok(report) => json(200, &report),
                Err(why) => refusal(409, why),
            },
            Err(why) => refusal(400, why),
        },
        paths::RELOAD => match backend.reload() {
            Ok(report) => json(200, &report),
            Err(NotReloaded::Wrong(why)) => refusal(400, why),
            Err(NotReloaded::Failed(why)) => refusal(409, why),
        },
        paths::SWITCHOVER => done(backend.switchover()),
        paths::MAINTENANCE => match Maintenance::from_query(&request.query) {
            Ok(wanted) => done(backend.maintenance(wanted)),
            Err(why) => refusal(400, why),
        },
        paths::PROMOTE => done(backend.promote()),
        _ => Response {
            status: 200,
            content_type: metrics::CONTENT_TYPE,
            body: metrics::text(&backend.status(), &backend.counters(), &backend.mirror(), &backend.ports())
                .into_bytes(),
        },
    }
}

fn done(result: Result<String, String>) -> Response {
    match result {
        Ok(message) => json(200, &Done { message }),
        Err(why) => refusal(409, why),
    }
}

fn json(status: u16, value: &impl Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => Response { status, content_type: "application/json", body },
        Err(error) => refusal(500, format!("the answer could not be written: {error}")),
    }
}

fn refusal(status: u16, error: String) -> Response {
    let body = serde_json::to_vec(&Refusal { error }).unwrap_or_default();
    Response { status, content_type: "application/json", body }
}
