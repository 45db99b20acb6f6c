//! The operations that a ring takes: those that [`Ring`](super::Ring) asks for, and no other, from
//! before the first submission until the ring is gone.

use std::io;

use io_uring::register::Restriction;
use io_uring::squeue::Flags;
use io_uring::{IoUring, opcode};

/// The requests of a ring.
const OPERATIONS: &[u8] = &[
    opcode::Accept::CODE,
    opcode::AsyncCancel::CODE,
    opcode::Close::CODE,
    #[cfg(feature = "load")]
    opcode::Connect::CODE,
    opcode::MsgRingData::CODE,
    opcode::PollAdd::CODE,
    opcode::Recv::CODE,
    opcode::Send::CODE,
    opcode::Shutdown::CODE,
    opcode::Timeout::CODE,
];
const FLAGS: Flags = Flags::FIXED_FILE.union(Flags::BUFFER_SELECT).union(Flags::SKIP_SUCCESS);

/// `IORING_REGISTER_FILES_UPDATE`, which takes in the sockets of the load client.
#[cfg(feature = "load")]
const FILES_UPDATE: u8 = 6;
/// `IORING_REGISTER_PROBE`.
const PROBE: u8 = 8;
/// `IORING_REGISTER_FILES2`, which makes the table of direct descriptors.
const FILES: u8 = 13;
/// `IORING_REGISTER_PBUF_RING`.
const BUFFER_RING: u8 = 22;
const REGISTRATIONS: &[u8] = &[
    PROBE,
    #[cfg(feature = "load")]
    FILES_UPDATE,
    FILES,
    BUFFER_RING,
];

/// Restricts a ring that was made disabled, and enables it for the thread that calls this.
///
/// # Errors
/// The kernel's; Linux has both calls from 5.10 on.
pub(super) fn restrict_and_enable(uring: &IoUring) -> io::Result<()> {
    let operations = OPERATIONS.iter().map(|&code| Restriction::sqe_op(code));
    let registrations = REGISTRATIONS.iter().map(|&code| Restriction::register_op(code));
    let flags = Restriction::sqe_flags_allowed(FLAGS.bits());
    let mut all: Vec<_> = operations.chain(registrations).chain([flags]).collect();
    uring.submitter().register_restrictions(&mut all)?;
    uring.submitter().register_enable_rings()
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::super::{Ring, RingSize};
    use super::*;

    #[test]
    #[allow(unsafe_code)] // A submission without memory.
    fn a_ring_opens_no_file_and_takes_no_other_registration() {
        let Some(mut ring) = Ring::or_skip(RingSize { submissions: 4, completions: 8 }) else {
            return;
        };
        let path = c"/dev/null".as_ptr();
        let open = opcode::OpenAt::new(io_uring::types::Fd(libc::AT_FDCWD), path).build();
        let uring = ring.uring_mut();
        // SAFETY: the path is a constant.
        unsafe { uring.submission().push(&open) }.unwrap();
        uring.submit_and_wait(1).unwrap();
        let result = uring.completion().next().unwrap().result();
        assert_eq!(result, -Errno::ACCESS.raw_os_error());
        let refused = uring.submitter().register_eventfd(0).unwrap_err();
        assert_eq!(Errno::from_io_error(&refused), Some(Errno::ACCESS));
    }
}
