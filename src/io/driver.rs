//! The choice between the two ways to do I/O.

/// The way in which an engine's threads, or those of the load client, do their I/O. Clients and
/// handlers see no difference, but for this: with [`Poll`](Self::Poll) there is no glommio executor
/// round a shard, so that an async handler waits by [`Context::sleep`](crate::Context::sleep), and
/// not by glommio's timers and files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Driver {
    /// The ring where the system has all that it needs; else it polls, and a line of the log says
    /// what would allow the ring.
    ///
    /// The environment variable `SHADDOCK_DRIVER` decides instead where it is `ring` or `poll`, so
    /// that an operator can, and so can a run of tests.
    #[default]
    Auto,
    /// io_uring, of Linux 6.1 or newer. Where it is refused, the engine does not start. The rings
    /// of shards and workers take the requests that they need, and no other: none opens a file.
    Ring,
    /// epoll, of any Linux from 5.4 on. Each client takes a descriptor of the process then.
    Poll,
}

/// A choice that has been made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Chosen {
    Ring,
    Poll,
}

/// The variable that decides for [`Driver::Auto`].
const VARIABLE: &str = "SHADDOCK_DRIVER";

impl Driver {
    /// The names, as options have them.
    pub const NAMES: [&str; 3] = ["auto", "ring", "poll"];

    /// True if it is all the same who does it, in view of the environment: where the ring can't be
    /// had after all, epoll takes its place.
    pub(crate) fn gives_way(self) -> bool {
        let is_open = |text: &str| text.is_empty() || text.parse() == Ok(Self::Auto);
        self == Self::Auto && std::env::var(VARIABLE).map_or(true, |text| is_open(&text))
    }

    /// The choice, in view of the environment; `check` tells why there can be no ring.
    ///
    /// # Errors
    /// The ring is asked for and can't be had, or the environment names something else: then
    /// `misnamed` makes the error of what it should have said.
    pub(crate) fn choose<E: std::fmt::Display>(
        self,
        check: impl FnOnce() -> Result<(), E>,
        misnamed: impl FnOnce(String) -> E,
    ) -> Result<Chosen, E> {
        let driver = match (self, std::env::var(VARIABLE)) {
            (Self::Auto, Ok(text)) if !text.is_empty() => text.parse().map_err(|expected| {
                misnamed(format!("{expected}, in the environment variable {VARIABLE}"))
            })?,
            _ => self,
        };
        match driver {
            Self::Poll => Ok(Chosen::Poll),
            Self::Ring => check().map(|()| Chosen::Ring),
            Self::Auto => Ok(check().map_or_else(|why| give_way(&why), |()| Chosen::Ring)),
        }
    }
}

/// Says why epoll takes the place of the ring.
#[cold]
pub(crate) fn give_way(why: &impl std::fmt::Display) -> Chosen {
    tracing::warn!("{why}; epoll takes the place of io_uring");
    Chosen::Poll
}

impl std::fmt::Display for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Ring => "ring",
            Self::Poll => "poll",
        })
    }
}

impl std::str::FromStr for Driver {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "ring" => Ok(Self::Ring),
            "poll" => Ok(Self::Poll),
            other => Err(format!("auto, ring or poll, not `{other}`")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_auto_gives_way() {
        let refused = || Err("refused".to_owned());
        let choose = |driver: Driver| driver.choose(refused, |expected| expected);
        assert_eq!(choose(Driver::Ring), refused().map(|()| Chosen::Ring));
        assert_eq!(choose(Driver::Poll), Ok(Chosen::Poll));
        let unneeded = || panic!("nobody asks for the ring");
        let polled = Driver::Poll.choose::<String>(unneeded, |expected| expected);
        assert_eq!(polled, Ok(Chosen::Poll));
        assert!(!Driver::Ring.gives_way() && !Driver::Poll.gives_way());
        if std::env::var_os(VARIABLE).is_none() {
            assert!(Driver::Auto.gives_way());
            assert_eq!(choose(Driver::Auto), Ok(Chosen::Poll));
            assert_eq!(Driver::Auto.choose(|| Ok::<_, String>(()), |it| it), Ok(Chosen::Ring));
        }
    }

    #[test]
    fn names_come_back() {
        for name in Driver::NAMES {
            assert_eq!(name.parse::<Driver>().unwrap().to_string(), name);
        }
        assert!("epoll".parse::<Driver>().unwrap_err().contains("auto, ring or poll"));
    }
}
