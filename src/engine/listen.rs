//! Listening sockets: one for each shard, all on the same address.

use std::net::{SocketAddr, ToSocketAddrs};

use socket2::{Domain, Protocol, Socket, Type};

use crate::error::StartError;

/// Turns text into the address to listen on.
pub(super) fn resolve(text: &str) -> Result<SocketAddr, StartError> {
    let bad = |why: String| StartError::BadAddress { address: text.to_owned(), why };
    let mut addresses = text.to_socket_addrs().map_err(|error| bad(error.to_string()))?;
    addresses.next().ok_or_else(|| bad("the name has no address".to_owned()))
}

/// Listens `count` times on an address; the kernel spreads connections over the sockets.
///
/// A port of 0 stands for a free one, the same for all.
pub(super) fn listen(
    address: SocketAddr,
    count: usize,
    backlog: u32,
) -> Result<(Vec<Socket>, SocketAddr), StartError> {
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::AddrInUse => StartError::AddressInUse(address),
        _ => StartError::Listen { address, error },
    };
    // Sockets that share a port would also share it with another process of the same user, which
    // would then get half of the clients. A socket that does not share tells.
    let probe = socket(address).map_err(failed)?;
    probe.bind(&address.into()).map_err(failed)?;
    drop(probe);

    let mut bound = address;
    let mut listeners = Vec::with_capacity(count);
    for _ in 0..count {
        let listener = socket(bound).map_err(failed)?;
        listener.set_reuse_port(true).map_err(failed)?;
        listener.bind(&bound.into()).map_err(failed)?;
        listener.listen(i32::try_from(backlog).unwrap_or(i32::MAX)).map_err(failed)?;
        let local = listener.local_addr().map_err(failed)?;
        bound = local.as_socket().unwrap_or(bound);
        listeners.push(listener);
    }
    Ok((listeners, bound))
}

fn socket(address: SocketAddr) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections that have ended do not hold the port.
    socket.set_reuse_address(true)?;
    // Accepted sockets inherit it: answers are batched here, not in the kernel.
    socket.set_tcp_nodelay(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_told_though_ports_are_shared() {
        let (listeners, address) = listen("127.0.0.1:0".parse().unwrap(), 2, 16).unwrap();
        assert_eq!(listeners.len(), 2);
        assert_ne!(address.port(), 0);
        let error = listen(address, 1, 16).unwrap_err();
        assert!(matches!(error, StartError::AddressInUse(other) if other == address), "{error}");
        drop(listeners);
        assert!(listen(address, 1, 16).is_ok());
    }

    #[test]
    fn bad_addresses_are_named() {
        for text in ["", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:99999", "no such host:1"] {
            let error = resolve(text).unwrap_err();
            assert!(error.to_string().contains(&format!("`{text}`")), "{error}");
        }
        let error = listen("192.0.2.1:0".parse().unwrap(), 1, 16).unwrap_err();
        assert!(matches!(error, StartError::Listen { .. }), "{error}");
    }
}
