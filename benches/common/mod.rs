//! Parts shared by the benches of whole servers.

#![allow(dead_code)] // Each bench uses a part of it.

pub(crate) mod ceiling;
pub(crate) mod child;
pub(crate) mod cpu;
pub(crate) mod pomelo;
pub(crate) mod report;

use std::net::{SocketAddr, TcpListener};

use rustix::process::setpriority_process;
use rustix::thread::{CpuSet, gettid, sched_setaffinity};
use socket2::{Domain, Protocol, Socket, Type};

/// The core of the servers; the next constant is that of the load.
pub(crate) const SERVER_CORE: usize = 0;
pub(crate) const OTHER_CORE: usize = 1;

/// The length of the accept queue, the same as the engine's.
pub(crate) const BACKLOG: i32 = 4096;

/// Listens for a bare server with the engine's options: the port may be shared.
pub(crate) fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = bind(address)?;
    socket.set_tcp_nodelay(true)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A socket that keeps its address for others that share it; it refuses whoever connects.
pub(crate) fn bind(address: SocketAddr) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Pins the calling thread, and those it starts, to the cores of the list that exist.
pub(crate) fn pin(cores: &[usize]) {
    let mut set = CpuSet::new();
    cores.iter().for_each(|core| set.set(*core));
    if let Err(error) = sched_setaffinity(None, &set) {
        eprintln!("cores {cores:?} can't be had ({error}): the figures mean less");
    }
}

/// Gives the calling thread, and those it starts, a nice value: -20 goes first, 19 last.
pub(crate) fn set_nice(value: i32) {
    if let Err(error) = setpriority_process(Some(gettid()), value) {
        eprintln!("a thread can't have the nice value {value} ({error}): the figures mean less");
    }
}
