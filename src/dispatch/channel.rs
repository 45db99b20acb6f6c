//! Groups of players that are pushed to together.

use super::context::{Context, Members};
use super::pending::Pending;
use crate::route::PushError;
use crate::session::Uid;

/// A list of uids on one worker (or shard), as in Pomelo: the frontends know nothing of it, a uid
/// added twice gets each message twice, and a member that disconnects stays until it is taken
/// out (docs/protocol/sessions.md, "Push, broadcast, channels").
///
/// ```
/// use serde_json::json;
/// use shaddock::{Fault, Handlers, Session, Workers, testing};
///
/// fn join((): (), session: &mut Session) -> Result<usize, Fault> {
///     let uid = session.uid().cloned().ok_or(Fault::new(401, "log in first"))?;
///     let lobby = session.context().channel("lobby");
///     lobby.leave(&uid); // Or a second join would double what comes.
///     lobby.add(uid);
///     let _ = lobby.push("onJoin", br#"{"somebody":"is here"}"#)?;
///     Ok(lobby.len())
/// }
///
/// let workers = Workers::new(1, |handlers: &mut Handlers| {
///     handlers.call("chat.lobby.join", join).on_session_closed(|session, context| {
///         let Some(lobby) = context.find_channel("lobby") else { return };
///         session.uid().is_some_and(|uid| lobby.leave(uid));
///     });
/// });
/// let t = testing::Engine::workers("chat", workers);
/// let [amy, bob] = ["amy", "bob"].map(|name| t.client().uid(name).connect());
/// assert_eq!(amy.request("chat.lobby.join", json!({})), 1);
/// assert_eq!(bob.request("chat.lobby.join", json!({})), 2);
/// assert_eq!(amy.pushes().len(), 2);
/// ```
#[derive(Debug, Clone)]
pub struct Channel {
    context: Context,
    name: Box<str>,
    members: Members,
}

/// The channels of a thread.
impl Context {
    /// The channel of that name on this thread, made if there is none.
    ///
    /// ```
    /// # use shaddock::{Context, Uid};
    /// fn enter(context: &Context, uid: Uid) {
    ///     context.channel("lobby").add(uid);
    /// }
    ///
    /// fn players(context: &Context) -> usize {
    ///     context.find_channel("lobby").map_or(0, |lobby| lobby.len())
    /// }
    /// ```
    #[must_use]
    pub fn channel(&self, name: &str) -> Channel {
        Channel::new(self.clone(), name, self.thread.channel_or_new(name))
    }

    /// The channel of that name on this thread, if there is one.
    #[must_use]
    pub fn find_channel(&self, name: &str) -> Option<Channel> {
        let members = self.thread.channel(name)?;
        Some(Channel::new(self.clone(), name, members))
    }
}

impl Channel {
    fn new(context: Context, name: &str, members: Members) -> Self {
        Self { context, name: name.into(), members }
    }

    /// The channel's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Adds a member at the end.
    pub fn add(&self, uid: Uid) {
        self.members.borrow_mut().push(uid);
    }

    /// Takes a member out, once if it was added twice; whether it was in.
    pub fn leave(&self, uid: &Uid) -> bool {
        let mut members = self.members.borrow_mut();
        let place = members.iter().position(|member| member == uid);
        if let Some(place) = place {
            members.remove(place);
        }
        place.is_some()
    }

    /// The members, in the order they were added.
    ///
    /// ```
    /// # use shaddock::{Fault, Session, Uid};
    /// fn who((): (), session: &mut Session) -> Result<Vec<Uid>, Fault> {
    ///     let lobby = session.context().find_channel("lobby");
    ///     Ok(lobby.map(|lobby| lobby.members()).unwrap_or_default())
    /// }
    /// # let _ = shaddock::Engine::builder().call("connector.lobby.who", who);
    /// ```
    #[must_use]
    pub fn members(&self) -> Vec<Uid> {
        self.members.borrow().clone()
    }

    /// The number of members.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.borrow().len()
    }

    /// True if there is no member.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.members.borrow().is_empty()
    }

    /// Pushes a message to all members; yields those that have no session.
    ///
    /// # Errors
    /// A message that can't be pushed; nobody has got anything then.
    pub fn push(
        &self,
        route: &str,
        body: impl AsRef<[u8]>,
    ) -> Result<Pending<Vec<Uid>>, PushError> {
        self.context.push(self.members(), route, body)
    }

    /// Removes the channel from its thread. Others who hold it keep its list.
    ///
    /// ```
    /// # use shaddock::{Channel, Uid};
    /// fn leave(room: Channel, uid: &Uid) {
    ///     room.leave(uid);
    ///     if room.is_empty() {
    ///         println!("{} is over", room.name());
    ///         room.destroy();
    ///     }
    /// }
    /// ```
    pub fn destroy(self) {
        self.context.thread.destroy_channel(&self.name);
    }
}
