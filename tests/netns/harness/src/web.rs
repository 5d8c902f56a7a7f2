//! nginx as the real servers, and files whose checksum is known.

use std::collections::HashMap;
use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use crate::command::inside;
use crate::plan;
use crate::process::Process;
use crate::world::World;

/// A checksum of a file's content.
pub type Checksum = [u8; 32];

/// nginx in every server namespace, all serving the same files.
///
/// A request says its own throttle: `/NAME?rate=100k` is sent at 100 KiB a second. `/whoami` answers the
/// server's name.
#[derive(Debug)]
pub struct Web {
    servers: Vec<Process>,
    files: HashMap<String, (u64, Checksum)>,
    root: PathBuf,
}

impl Web {
    /// Writes the files (name, length in bytes) and starts the servers.
    pub fn start(world: &World, files: &[(&str, usize)]) -> Result<Web> {
        let root = world.directory().join("www");
        fs::create_dir_all(&root)?;
        let mut known = HashMap::new();
        for (name, length) in files {
            let mut bytes = vec![0; *length];
            fastrand::Rng::with_seed(*length as u64).fill(&mut bytes);
            fs::write(root.join(name), &bytes)?;
            known.insert((*name).to_owned(), (*length as u64, Sha256::digest(&bytes).into()));
        }
        let mut web = Web { servers: Vec::new(), files: known, root };
        for (name, host) in world.server_names().iter().zip(world.server_hosts()) {
            web.servers.push(start_one(world, name, host)?);
        }
        Ok(web)
    }

    /// A file's length in bytes and its checksum.
    pub fn file(&self, name: &str) -> Result<(u64, Checksum)> {
        self.files.get(name).copied().with_context(|| format!("no file {name} is served"))
    }

    /// A file's bytes.
    pub fn content(&self, name: &str) -> Result<Vec<u8>> {
        let file = self.root.join(name);
        fs::read(&file).with_context(|| format!("cannot read {}", file.display()))
    }

    /// The servers' processes, in order.
    pub fn processes(&mut self) -> &mut [Process] {
        &mut self.servers
    }
}

fn start_one(world: &World, name: &str, host: u8) -> Result<Process> {
    let prefix = world.directory().join(format!("nginx-{name}"));
    fs::create_dir_all(&prefix)?;
    let config = prefix.join("nginx.conf");
    fs::write(
        &config,
        format!(
            "daemon off;\nmaster_process off;\nuser root;\npid nginx.pid;\nerror_log stderr warn;\n\
             worker_rlimit_nofile 16384;\n\
             events {{ worker_connections 8192; }}\n\
             http {{\n  access_log off;\n  default_type application/octet-stream;\n\
             # Small pieces, so that a throttled transfer flows evenly.\n\
             \x20 sendfile on;\n  sendfile_max_chunk 4k;\n  tcp_nodelay on;\n  keepalive_timeout 65;\n\
             \x20 client_body_temp_path body;\n  proxy_temp_path proxy;\n  fastcgi_temp_path fastcgi;\n\
             \x20 uwsgi_temp_path uwsgi;\n  scgi_temp_path scgi;\n\
             \x20 server {{\n    listen 80 backlog=4096;\n    listen [::]:80 backlog=4096 ipv6only=on;\n    root {root};\n\
             \x20   location / {{ limit_rate $arg_rate; }}\n\
             \x20   location = /whoami {{ return 200 \"{name}\\n\"; }}\n  }}\n}}\n",
            root = world.directory().join("www").display()
        ),
    )?;
    let (prefix, config) = (prefix.display().to_string(), config.display().to_string());
    let namespace = world.namespace(name);
    let mut process = Process::spawn(
        world.directory(),
        &namespace,
        &format!("nginx-{name}"),
        "nginx",
        &["-p", &prefix, "-e", "stderr", "-c", &config],
    )?;
    let address = (plan::server4(host), 80).into();
    process.wait_ready(Duration::from_secs(5), |_| {
        inside(&namespace, || Ok(TcpStream::connect_timeout(&address, Duration::from_millis(500)).is_ok()))
    })?;
    ensure!(process.ended()?.is_none(), "nginx ended: {}", process.log());
    Ok(process)
}
