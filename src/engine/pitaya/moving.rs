//! Away from a NATS server that is about to stop ("lame duck"), as Pitaya's servers go: another
//! connection is made, all is listened to on that, and then the old one is left.
//!
//! For as long as both listen, everything comes twice. Until all is listened to on the new
//! connection its answers wait, to be taken once, and its pushes, kicks and calls are dropped. What
//! comes in the moment before the old one is left may come twice, and nothing is lost.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::time::Sleep;

use super::nats::{Nats, Settling};
use crate::pitaya::Member;

/// The steps of moving, by the last that was taken.
pub(super) enum Moving {
    /// The other connection is being made.
    Connecting(BoxFuture<'static, Nats>),
    /// It is told of all users; then it has to have heard of that.
    Listening { old: Nats, settling: Option<Settling> },
    /// Both are heard.
    Leaving { old: Nats, until: Pin<Box<Sleep>> },
}

/// The time for which both connections are heard at last, for what one of them gets a little later.
const LEAVE_AFTER: Duration = Duration::from_millis(50);

impl Moving {
    /// Goes on as far as it can; `None` when all is done. Also tells whether anything has come.
    pub(super) fn poll(
        self,
        cx: &mut Context<'_>,
        nats: &mut Nats,
        member: &mut Member,
    ) -> (Option<Self>, bool) {
        match self {
            Self::Connecting(mut connecting) => match connecting.poll_unpin(cx) {
                Poll::Pending => (Some(Self::Connecting(connecting)), false),
                Poll::Ready(mut next) => {
                    next.mute(nats);
                    let old = std::mem::replace(nats, next);
                    member.handle_moved();
                    (Some(Self::Listening { old, settling: None }), true)
                }
            },
            Self::Listening { mut old, mut settling } => {
                let has_come = poll_old(&mut old, cx, member);
                let is_settled = settling.and_then(|settling| nats.is_settled(settling));
                if is_settled.is_none() {
                    settling = if member.is_settled() { nats.settle() } else { None };
                }
                if is_settled == Some(true) {
                    nats.unmute(member);
                    let mut until = Box::pin(tokio::time::sleep(LEAVE_AFTER));
                    // It is to wake this task.
                    let is_over = until.as_mut().poll_unpin(cx).is_ready();
                    debug_assert!(!is_over);
                    return (Some(Self::Leaving { old, until }), true);
                }
                // What is asked now is sent in the next round.
                let has_asked = is_settled.is_none() && settling.is_some();
                (Some(Self::Listening { old, settling }), has_come || has_asked)
            }
            Self::Leaving { mut old, mut until } => {
                let has_come = poll_old(&mut old, cx, member);
                if until.as_mut().poll_unpin(cx).is_pending() {
                    return (Some(Self::Leaving { old, until }), has_come);
                }
                old.leave();
                tracing::info!("connected to another NATS server, and left the one that stops");
                (None, true)
            }
        }
    }
}

/// Takes what an old connection gets, until it ends. `true` if anything has come.
fn poll_old(old: &mut Nats, cx: &mut Context<'_>, member: &mut Member) -> bool {
    // Its server was about to end it.
    old.poll_received(cx, member).unwrap_or_default()
}
