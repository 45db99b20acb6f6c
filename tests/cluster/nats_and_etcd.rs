//! A Pitaya cluster of real nats-server and etcd, and of backends that are processes of the test.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use shaddock::PitayaCluster;

use support::folder::Folder;
use support::{Client, PATIENCE, eventually, free_port};

use crate::backend;

/// A route of every backend of the type `room`, which answers with the request's body.
pub(crate) const ECHO: &str = "room.room.echo";
/// Tells a process of this program that it is to be a backend, and how.
const BACKEND: &str = "SHADDOCK_TEST_BACKEND";

/// Where Debian puts nats-server is not on everybody's path.
const FOLDERS: [&str; 4] = ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin"];

/// NATS, etcd and a folder for them; all gone when this is dropped.
pub(crate) struct Cluster {
    nats_port: u16,
    etcd_port: u16,
    etcd_peer_port: u16,
    nats: Process,
    /// A second NATS server, and its port, where there is one.
    other_nats: Option<(u16, Process)>,
    etcd: Process,
    folder: Folder,
    /// Where NATS tells of itself.
    monitor_port: u16,
    /// Where etcd wants certificates, if it does.
    secured_etcd_port: Option<u16>,
}

/// The files and the key that secured servers want their clients to have.
pub(crate) struct Secrets {
    pub(crate) ca: PathBuf,
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// The user's public NKey.
    pub(crate) nkey: String,
}

/// A process that ends with its owner.
pub(crate) struct Process(Child);

impl Process {
    /// One that does nothing.
    fn none() -> Self {
        Self(Command::new("true").spawn().unwrap())
    }

    /// Sends a signal. After `STOP` it waits until every thread has stopped: on a busy machine the
    /// one that gets the signal may stop the others late.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.0.id().to_string();
        let status = Command::new("kill").args([&format!("-{name}"), &pid]).status();
        assert!(status.unwrap().success(), "no signal {name}");
        if name == "STOP" {
            eventually("every thread has stopped", || self.has_stopped());
        }
    }

    /// True if every thread is in the state `T` (proc_pid_stat(5)).
    fn has_stopped(&self) -> bool {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.0.id())).unwrap();
        threads.into_iter().all(|thread| {
            let stat = std::fs::read_to_string(thread.unwrap().path().join("stat"));
            // One that ends meanwhile is not there the next time.
            stat.is_ok_and(|stat| {
                stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T'))
            })
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(FOLDERS.map(PathBuf::from));
    folders.map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// A command whose process ends with the test, also where that is killed: by setpriv(1), if that is
/// here.
fn bound(path: &Path) -> Command {
    let Some(setpriv) = program("setpriv") else { return Command::new(path) };
    let mut command = Command::new(setpriv);
    command.args(["--pdeathsig", "KILL"]).arg(path);
    command
}

/// Waits until somebody listens.
fn wait_for(port: u16) {
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < deadline, "nobody listens on port {port}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

impl Cluster {
    /// Starts both, unless they are not here.
    pub(crate) fn start() -> Option<Self> {
        Self::start_with(false)
    }

    /// With TLS and certificates of clients. NATS lets in whom it knows by an NKey, and, for the
    /// backends, whoever has no login and no TLS; etcd has a second port for these.
    pub(crate) fn start_secured(secrets: &Secrets) -> Option<Self> {
        let mut cluster = Self::start_with(false)?;
        let secured_port = free_port();
        let Secrets { ca, certificate, key, nkey } = secrets;
        let (ca, certificate, key) = (ca.display(), certificate.display(), key.display());
        let config = format!(
            "listen: \"127.0.0.1:{}\"\nhttp: \"127.0.0.1:{}\"\nallow_non_tls: true\n\
             tls {{ cert_file: \"{certificate}\", key_file: \"{key}\", ca_file: \"{ca}\", verify: true }}\n\
             authorization {{ users = [ {{ nkey: \"{nkey}\" }}, {{ user: backend, password: x }} ] }}\n\
             no_auth_user: backend\n",
            cluster.nats_port, cluster.monitor_port,
        );
        let file = cluster.folder.write("nats.conf", &config);
        let mut command = bound(&program("nats-server").unwrap());
        command.arg("-c").arg(file);
        // The port is free once the former has gone.
        cluster.nats = Process::none();
        cluster.nats = quiet(command);
        let etcd_port = cluster.etcd_port;
        let urls = format!("https://127.0.0.1:{secured_port},http://127.0.0.1:{etcd_port}");
        let mut command = etcd_command(cluster.etcd_peer_port, cluster.folder.path(), &urls);
        command.args(["--client-cert-auth", &format!("--trusted-ca-file={ca}")]);
        command.args([format!("--cert-file={certificate}"), format!("--key-file={key}")]);
        cluster.etcd = Process::none();
        cluster.etcd = quiet(command);
        cluster.secured_etcd_port = Some(secured_port);
        wait_for(cluster.nats_port);
        wait_for(cluster.monitor_port);
        cluster.wait_for_etcd();
        Some(cluster)
    }

    /// Starts NATS anew, with these lines of its configuration.
    pub(crate) fn restart_nats_with(&mut self, lines: &str) {
        let (port, monitor_port) = (self.nats_port, self.monitor_port);
        let config =
            format!("listen: \"127.0.0.1:{port}\"\nhttp: \"127.0.0.1:{monitor_port}\"\n{lines}\n");
        let file = self.folder.write("nats.conf", &config);
        // The port is free once the former has gone.
        self.nats = Process::none();
        let mut command = bound(&program("nats-server").unwrap());
        command.arg("-c").arg(file);
        self.nats = quiet(command);
        wait_for(port);
        wait_for(monitor_port);
    }

    /// The connections to NATS of engines, as it tells itself.
    pub(crate) fn nats_connections(&self) -> Vec<Value> {
        let told = self.nats_tells("/connz?auth=1");
        let all = told["connections"].as_array().cloned().unwrap_or_default();
        all.into_iter().filter(|it| it["name"] == "shaddock").collect()
    }

    /// Has etcd want a login from now on.
    pub(crate) fn lock_etcd(&self, user: &str, password: &str) {
        for (path, question) in [
            ("role/add", json!({"name": "root"})),
            ("user/add", json!({"name": "root", "password": "of-the-test"})),
            ("user/grant", json!({"user": "root", "role": "root"})),
            ("user/add", json!({"name": user, "password": password})),
            ("user/grant", json!({"user": user, "role": "root"})),
            ("enable", json!({})),
        ] {
            backend::post(&self.etcd(), &format!("/v3/auth/{path}"), &question).unwrap();
        }
        let question = json!({"key": "YQ=="});
        let answer = backend::post(&self.etcd(), "/v3/kv/range", &question);
        assert!(answer.is_err(), "etcd answers without a login");
    }

    /// An object by which NATS tells of itself.
    pub(crate) fn nats_tells(&self, path: &str) -> Value {
        let mut stream = TcpStream::connect(("127.0.0.1", self.monitor_port)).unwrap();
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        serde_json::from_str(text.split_once("\r\n\r\n").unwrap().1).unwrap()
    }

    /// The number of subscriptions at NATS.
    pub(crate) fn nats_subscriptions(&self) -> usize {
        self.nats_tells("/subsz")["num_subscriptions"].as_u64().unwrap() as usize
    }

    /// What an engine is told of a secured cluster, but for the secrets.
    pub(crate) fn secured_description(&self) -> PitayaCluster {
        let nats = format!("tls://localhost:{}", self.nats_port);
        let etcd = format!("https://localhost:{}", self.secured_etcd_port.unwrap());
        PitayaCluster::new([nats], [etcd]).server_type("room")
    }

    /// With two NATS servers, which know each other. Engines are told of the
    /// first, and backends of the second.
    pub(crate) fn start_with_two_nats() -> Option<Self> {
        Self::start_with(true)
    }

    fn start_with(has_two: bool) -> Option<Self> {
        for name in ["nats-server", "etcd"] {
            if program(name).is_none() {
                println!("skipped: {name} is not here");
                return None;
            }
        }
        let folder = Folder::create();
        let (nats_port, etcd_port, etcd_peer_port) = (free_port(), free_port(), free_port());
        let monitor_port = free_port();
        let (nats, other_nats) = match has_two {
            false => (start_nats(nats_port, Some(monitor_port), None), None),
            true => {
                let (port, routes) = (free_port(), [free_port(), free_port()]);
                let nats = start_nats(nats_port, Some(monitor_port), Some(routes));
                let other = start_nats(port, None, Some([routes[1], routes[0]]));
                wait_for(port);
                (nats, Some((port, other)))
            }
        };
        let etcd = start_etcd(etcd_port, etcd_peer_port, folder.path());
        let cluster = Self {
            nats_port,
            etcd_port,
            etcd_peer_port,
            nats,
            other_nats,
            etcd,
            folder,
            monitor_port,
            secured_etcd_port: None,
        };
        wait_for(nats_port);
        cluster.wait_for_etcd();
        Some(cluster)
    }

    /// Listening is not enough: it answers once it has elected itself.
    fn wait_for_etcd(&self) {
        wait_for(self.etcd_port);
        let deadline = Instant::now() + PATIENCE;
        let question = json!({"key": "YQ=="});
        while backend::post(&self.etcd(), "/v3/kv/range", &question).is_err() {
            assert!(Instant::now() < deadline, "etcd does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn nats(&self) -> String {
        format!("nats://127.0.0.1:{}", self.nats_port)
    }

    pub(crate) fn etcd(&self) -> String {
        format!("127.0.0.1:{}", self.etcd_port)
    }

    pub(crate) fn stop_nats(&mut self) {
        self.nats.signal("KILL");
    }

    pub(crate) fn signal_nats(&self, name: &str) {
        self.nats.signal(name);
    }

    pub(crate) fn restart_nats(&mut self) {
        self.nats = start_nats(self.nats_port, Some(self.monitor_port), None);
        wait_for(self.nats_port);
        wait_for(self.monitor_port);
    }

    pub(crate) fn stop_etcd(&mut self) {
        self.etcd.signal("KILL");
    }

    /// It has nothing of what it knew before.
    pub(crate) fn restart_etcd_empty(&mut self) {
        self.stop_etcd();
        // Until it has ended it may write still.
        drop(std::mem::replace(&mut self.etcd, Process::none()));
        std::fs::remove_dir_all(self.folder.join("etcd")).unwrap();
        self.restart_etcd();
    }

    /// With what it knew before.
    pub(crate) fn restart_etcd(&mut self) {
        self.etcd = start_etcd(self.etcd_port, self.etcd_peer_port, self.folder.path());
        self.wait_for_etcd();
    }

    /// What an engine is told of the cluster.
    pub(crate) fn description(&self) -> PitayaCluster {
        PitayaCluster::new([self.nats()], [self.etcd()]).server_type("room")
    }

    /// Starts a backend; when this returns, etcd knows it.
    pub(crate) fn backend(&self, server_type: &str, id: &str) -> Process {
        let nats = match &self.other_nats {
            Some((port, _)) => format!("nats://127.0.0.1:{port}"),
            None => self.nats(),
        };
        let words = [&nats, &self.etcd(), server_type, id].join(" ");
        let mut child = bound(&std::env::current_exe().unwrap())
            .args([
                "--exact",
                "nats_and_etcd::the_backends_process",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(BACKEND, words)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let process = Process(child);
        assert!(lines.any(|line| line.unwrap().ends_with("is ready")), "the backend has ended");
        process
    }

    /// The ids of the servers of a type that etcd knows.
    pub(crate) fn servers(&self, server_type: &str) -> Vec<Value> {
        use base64::Engine as _;
        use base64::engine::general_purpose::STANDARD;
        let prefix = format!("pitaya/servers/{server_type}/");
        let (key, end) = (STANDARD.encode(&prefix), STANDARD.encode(prefix.replace("r/", "r0")));
        let end = if end == key { STANDARD.encode(format!("{prefix}~")) } else { end };
        let question = json!({"key": key, "range_end": end});
        let answer = backend::post(&self.etcd(), "/v3/kv/range", &question).unwrap();
        let entries = answer["kvs"].as_array().cloned().unwrap_or_default();
        let value = |entry: &Value| {
            let value = STANDARD.decode(entry["value"].as_str().unwrap_or_default()).unwrap();
            serde_json::from_slice(&value).unwrap()
        };
        entries.iter().map(value).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.etcd.signal("KILL");
    }
}

/// Starts a NATS server, with its own port for another one, and that one's.
fn start_nats(port: u16, monitor_port: Option<u16>, routes: Option<[u16; 2]>) -> Process {
    let mut command = bound(&program("nats-server").unwrap());
    command.args(["-a", "127.0.0.1", "-p", &port.to_string()]);
    if let Some(port) = monitor_port {
        command.args(["-m", &port.to_string()]);
    }
    if let Some(routes) = routes {
        let [own, other] = routes.map(|port| format!("nats://127.0.0.1:{port}"));
        command.args(["--cluster_name", "test", "--cluster", &own, "--routes", &other]);
    }
    quiet(command)
}

fn start_etcd(port: u16, peer_port: u16, folder: &Path) -> Process {
    quiet(etcd_command(peer_port, folder, &format!("http://127.0.0.1:{port}")))
}

fn etcd_command(peer_port: u16, folder: &Path, clients: &str) -> Command {
    let peers = format!("http://127.0.0.1:{peer_port}");
    let cluster = format!("test={peers}");
    let mut command = bound(&program("etcd").unwrap());
    command.args(["--name", "test", "--data-dir"]).arg(folder.join("etcd"));
    command.args(["--listen-client-urls", clients, "--advertise-client-urls", clients]);
    command.args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers]);
    command.args(["--initial-cluster", &cluster]);
    command.args(["--heartbeat-interval", "20", "--election-timeout", "200"]);
    command
}

fn quiet(mut command: Command) -> Process {
    let nothing = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Process(nothing.spawn().unwrap())
}

/// Where nobody listens.
pub(crate) fn nowhere() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], free_port()))
}

/// Waits until requests are answered by a backend.
pub(crate) fn wait_until_forwarded(client: &mut Client) {
    eventually("requests are answered", || client.ask(1, ECHO, "\"ready\"") == "\"ready\"");
}

/// The backend, when this is its process.
#[test]
fn the_backends_process() {
    if let Ok(words) = std::env::var(BACKEND) {
        let words = words.split(' ').map(str::to_owned);
        backend::run(backend::Options::parse(words).unwrap());
    }
}
