//! Errors of the kernel's that a test puts in the place of a submission.

#[cfg(test)]
pub(crate) use self::planned::fail;
#[cfg(test)]
pub(super) use self::planned::next;

#[cfg(test)]
mod planned {
    use std::cell::RefCell;
    use std::io;

    use rustix::io::Errno;

    /// Errors, and how many times more each is to come.
    type Faults = Vec<(Errno, usize)>;

    thread_local! {
        static FAULTS: RefCell<Faults> = const { RefCell::new(Vec::new()) };
    }

    /// Has the next submissions of the calling thread fail so.
    pub(crate) fn fail(faults: &[(Errno, usize)]) {
        FAULTS.with_borrow_mut(|all| all.extend(faults.iter().rev()));
    }

    pub(in super::super) fn next() -> Option<io::Error> {
        FAULTS.with_borrow_mut(|faults| {
            let (errno, times) = faults.last_mut()?;
            let error = io::Error::from(*errno);
            *times -= 1;
            if *times == 0 {
                faults.pop();
            }
            Some(error)
        })
    }
}

#[cfg(not(test))]
#[inline]
pub(super) fn next() -> Option<std::io::Error> {
    None
}
