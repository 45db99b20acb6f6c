//! The way of a handshake through the embedder's future, and to a session that works.

use std::rc::Rc;
use std::sync::Arc;

use super::Dispatcher;
use super::admissions::{BYTES_MIN, Waiting};
use crate::dispatch::Context;
use crate::dispatch::at_end::AtEnd;
use crate::dispatch::chain::guarded;
use crate::dispatch::context::Op;
use crate::dispatch::handshake::{Admission, Handshake, HandshakeCheck};
use crate::dispatch::tasks::tell_no_room;
use crate::dispatch::verdict::Admitted;
use crate::session::{SessionId, SessionView};
use crate::wire::handshake::HandshakeRequest;
use crate::wire::http::Headers;

impl Dispatcher {
    /// Keeps the headers of a client until its handshake.
    pub(in crate::shard) fn keep_headers(&mut self, session: SessionId, headers: Headers) {
        self.admissions.headers.insert(session, headers);
    }

    pub(in crate::shard) fn take_headers(&mut self, session: SessionId) -> Option<Headers> {
        self.admissions.headers.remove(&session)
    }

    /// The shard, as code on it sees it.
    pub(in crate::shard) fn context(&self) -> Context {
        Context { thread: Rc::clone(&self.thread) }
    }

    /// Asks the embedder's future about a handshake of so many bytes. False where too many wait.
    pub(in crate::shard) fn begin_admission(
        &mut self,
        check: &HandshakeCheck,
        handshake: Handshake,
        bytes: usize,
    ) -> bool {
        let HandshakeCheck::Later(check) = check else { return false };
        let headers = handshake.headers.as_ref().map_or(0, Headers::len);
        let bytes = (bytes + headers).max(BYTES_MIN);
        if self.admissions.bytes + bytes > self.config.limits.handshakes_waiting_bytes_max {
            self.counters.handshake_rejects.one();
            crate::log::seldom!(
                warn,
                "too many handshakes wait for the game's future; some are refused"
            );
            return false;
        }
        if self.tasks.is_full() {
            tell_no_room(&self.counters, "the future of a handshake");
            return false;
        }
        let (session, request) = (handshake.session, Rc::clone(&handshake.request));
        let check = Arc::clone(check);
        // Code of the embedder's makes the future, so that is guarded as its polls are.
        let future = Box::pin(async move { check(handshake).await });
        let (admission, task) = Admission::new(future, Arc::clone(&self.counters));
        let thread = Rc::clone(&self.thread);
        let task = async move {
            if let Some(admitted) = task.await {
                thread.ask(Op::Welcome { session, admitted });
            }
        };
        let is_spawned = self.tasks.spawn(Box::pin(task), AtEnd::Drop).is_ok();
        debug_assert!(is_spawned, "the tasks are not full");
        self.admissions.bytes += bytes;
        self.admissions.waiting.insert(session, Waiting { _admission: admission, request, bytes });
        true
    }

    /// Takes the verdict on a handshake whose client is still there.
    pub(in crate::shard) fn take_admitted(
        &mut self,
    ) -> Option<(SessionId, Rc<HandshakeRequest>, Admitted)> {
        loop {
            let (session, admitted) = self.admissions.done.pop_front()?;
            if let Some(waiting) = self.admissions.waiting.remove(&session) {
                self.admissions.bytes -= waiting.bytes;
                return Some((session, waiting.request, admitted));
            }
        }
    }

    /// Handshakes that wait.
    #[cfg(test)]
    pub(in crate::shard) fn admissions_len(&self) -> usize {
        self.admissions.waiting.len() + self.admissions.headers.len()
    }

    /// Calls code of the embedder's that looks at a handshake; `None` where it has panicked.
    pub(in crate::shard) fn call_back<T>(
        &self,
        name: &'static str,
        code: impl FnOnce() -> T,
    ) -> Option<T> {
        self.thread.last_call.note_callback(name);
        let answer = guarded(name, &self.counters, code);
        self.thread.last_call.end();
        answer
    }

    /// Tells the embedder's code of a session that works from now on.
    pub(in crate::shard) fn open_session(&mut self, session: SessionId) {
        let registry = Rc::clone(&self.registry);
        if registry.on_opened.is_empty() {
            return;
        }
        let Some((_, connection)) = self.connections().find(session) else { return };
        let data = connection.data().clone();
        let (context, view) = (self.context(), SessionView { id: session, data: &data });
        for told in &registry.on_opened {
            self.thread.last_call.note_callback("on_session_opened");
            guarded("on_session_opened", &self.counters, || told(&view, &context));
            self.thread.last_call.end();
        }
    }
}
