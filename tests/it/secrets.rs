//! Secrets of a configuration: they reach whom they are for, and nobody who reads a log, the answer
//! of `check` or the admin server.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;
use support::PATIENCE;
use support::folder::Folder;

use crate::serve::{BINARY, Served, announced, config, ctl};

/// A NATS server that greets whoever comes as nats-server 2.10 does, and answers pings. Gives the
/// first `CONNECT` it is sent.
fn greeting_nats() -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, connects) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut stream = BufReader::new(stream);
            let info = json!({
                "server_id": "NATS", "server_name": "NATS", "version": "2.10.0", "proto": 1,
                "go": "go1.22", "host": "127.0.0.1", "port": address.port(), "headers": true,
                "max_payload": 1_048_576, "client_id": 1, "auth_required": true, "nonce": "bm9uY2U",
            });
            stream.get_mut().write_all(format!("INFO {info}\r\n").as_bytes()).unwrap();
            let mut line = String::new();
            while stream.read_line(&mut line).is_ok_and(|len| len > 0) {
                if line.starts_with("PING") && stream.get_mut().write_all(b"PONG\r\n").is_err() {
                    break;
                }
                if line.starts_with("CONNECT") {
                    tell.send(line.clone()).ok();
                }
                line.clear();
            }
        }
    });
    (address, connects)
}

/// A file of credentials as `nsc` writes it.
fn credentials(jwt: &str, seed: &str) -> String {
    format!(
        "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )
}

/// Each login at NATS, with etcd's beside it: neither is in the finest log, in what `check` tells,
/// nor in what the admin server does.
#[test]
fn no_log_check_or_status_tells_a_secret() {
    const JWT: &str = "hush-hush.hush-hush.hush-hush";
    let folder = Folder::create();
    let seed = nkeys::KeyPair::new_user().seed().unwrap();
    folder.write("user.creds", &credentials(JWT, &seed));
    folder.write("token", "hush-hush\n");
    for (url, key, shown) in [
        ("amy:hush%2Dhush@", String::new(), "hush-hush"),
        ("", "nats_token = \"hush-hush\"".into(), "hush-hush"),
        ("", "nats_token = { file = \"token\" }".into(), "hush-hush"),
        ("", format!("nats_nkey = \"{seed}\""), "\"nkey\""),
        ("", "nats_credentials = \"user.creds\"".into(), JWT),
    ] {
        let (nats, connects) = greeting_nats();
        let cluster = format!(
            "[pitaya]\nnats = [\"nats://{url}{nats}\"]\n{key}\netcd = [\"127.0.0.1:1\"]\n\
             etcd_user = \"amy\"\netcd_password = \"hush-hush\"\ntype = [{{ name = \"room\" }}]\n"
        );
        let (log, told) = told_of(&folder, &cluster, &connects, shown);
        let is_traced = ["TRACE", "DEBUG", "INFO"].iter().any(|level| log.contains(level));
        assert!(is_traced, "{log}");
        for text in [&log, &told] {
            assert!(!text.contains("hush") && !text.contains(&seed), "{key}: {text}");
        }
    }
}

/// Serves until NATS has been shown a login. Gives the log, and what `check` and the admin server
/// tell.
fn told_of(
    folder: &Folder,
    cluster: &str,
    connects: &Receiver<String>,
    shown: &str,
) -> (String, String) {
    let socket = folder.path().join("admin.sock");
    let admin = format!("[admin]\nsocket = \"{}\"\n", socket.display());
    let path = folder.write("shaddock.toml", &(config("", "", 64) + cluster + &admin));
    let checked = Command::new(BINARY).args(["check", "--config"]).arg(&path).output().unwrap();
    let mut told = String::from_utf8(checked.stdout).unwrap();
    told += &String::from_utf8(checked.stderr).unwrap();
    assert!(told.contains("no problems"), "{told}");
    let mut child = Command::new(BINARY)
        .args(["serve", "--log", "trace", "--config"])
        .arg(path)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = child.stderr.take().unwrap();
    let log = std::thread::spawn(move || {
        let mut log = String::new();
        stderr.read_to_string(&mut log).unwrap();
        log
    });
    let addresses = announced(child.stdout.take().unwrap());
    let served = Served { child, log: BufReader::new(Box::new(std::io::empty())), addresses };
    let connect = connects.recv_timeout(PATIENCE).unwrap();
    assert!(connect.contains(shown), "{connect}");
    for words in [["status", "--json"], ["closed", "--json"], ["sessions", "--json"]] {
        let output = ctl(&socket, &words);
        assert!(output.status.success(), "{words:?}");
        told += &String::from_utf8(output.stdout).unwrap();
    }
    std::thread::sleep(Duration::from_millis(100));
    served.signal(Signal::TERM);
    assert_eq!(served.until_end(), Some(0));
    (log.join().unwrap(), told)
}
