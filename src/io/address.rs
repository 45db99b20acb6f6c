//! The address of a peer, as the kernel writes it.

#![allow(unsafe_code)] // What the kernel has written is read as an address.

use std::net::{Ipv4Addr, SocketAddr};

use socket2::{SockAddr, SockAddrStorage, socklen_t};

/// Room for the address of an accept's peer.
///
/// INVARIANT: zeros, or an address of `len` bytes that the kernel has written.
pub(crate) struct PeerAddress {
    pub(super) storage: SockAddrStorage,
    pub(super) len: socklen_t,
}

impl PeerAddress {
    pub(crate) fn empty() -> Self {
        let storage = SockAddrStorage::zeroed();
        Self { len: storage.size_of(), storage }
    }

    /// Takes the address; 0.0.0.0:0 if there is none.
    pub(crate) fn take(&mut self) -> SocketAddr {
        let Self { storage, len } = std::mem::replace(self, Self::empty());
        // SAFETY: by the invariant it is an address of that length, or zeros, which are one of no
        // family.
        let address = unsafe { SockAddr::new(storage, len) };
        address.as_socket().unwrap_or_else(|| SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_the_kernel_writes_them() {
        for text in ["127.0.0.1:3010", "[::1]:3010", "[fe80::1%7]:3010"] {
            let address: SocketAddr = text.parse().unwrap();
            let written = SockAddr::from(address);
            let mut peer = PeerAddress { len: written.len(), storage: written.as_storage() };
            assert_eq!(peer.take(), address);
            assert_eq!(peer.take(), "0.0.0.0:0".parse().unwrap(), "it was taken");
        }
    }
}
