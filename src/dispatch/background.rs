//! Code of a thread that no client's message leads to: ticks and mail.

use std::any::{Any, TypeId, type_name, type_name_of_val};
use std::time::Duration;

use super::context::Context;
use super::handlers::{Handlers, Receiver, Registry};
use super::mail::Mailed;
use super::panics::{Panic, caught};
use super::ticks::Missed;
use crate::route::registration::Mistake;

/// The fate of a message that its receiver has not taken.
pub(crate) enum Undelivered {
    /// Nobody on the thread receives its type.
    Unknown,
    /// The receiver has panicked.
    Panicked(Panic),
}

/// Code that no message of a client leads to.
impl Handlers {
    /// Calls a function of this thread at an interval, of 1 ms at least, first after one; `missed`
    /// tells what becomes of ticks for which the thread was too busy.
    ///
    /// A tick that panics is counted (`tick_panics`) and logged, and the next one comes as if
    /// nothing had happened. No tick comes once the thread has ended.
    ///
    /// ```
    /// use std::time::Duration;
    /// use shaddock::{Audience, Handlers, Missed, Workers};
    ///
    /// let workers = Workers::new(1, |handlers: &mut Handlers| {
    ///     handlers.every(Duration::from_secs(1), Missed::Skip, |context| {
    ///         context.broadcast("onSecond", b"{}", Audience::all()).ok();
    ///     });
    /// });
    /// ```
    pub fn every(
        &mut self,
        period: Duration,
        missed: Missed,
        tick: impl Fn(&Context) + 'static,
    ) -> &mut Self {
        let (name, context) = (type_name_of_val(&tick), self.context().clone());
        self.add_tick(period, missed, name, Box::new(move || tick(&context)))
    }

    pub(super) fn add_tick(
        &mut self,
        period: Duration,
        missed: Missed,
        name: &'static str,
        run: Box<dyn Fn()>,
    ) -> &mut Self {
        let now_us = self.context().now_us();
        self.registry().ticks.add(now_us, period, missed, name, run);
        self
    }

    /// Receives messages of one type that others send to this worker, by
    /// [`Context::mail`](crate::Context::mail) and [`Handle::mail`](crate::Handle::mail). A shard
    /// gets none, so there it keeps the engine from starting
    /// ([`Mistake::MailOnShard`](crate::Mistake)).
    ///
    /// A receiver that panics is counted
    /// ([`callback_panics`](crate::metrics::CounterSnapshot::callback_panics)) and logged.
    ///
    /// ```
    /// use shaddock::{Handlers, Workers};
    ///
    /// struct Close {
    ///     room: u32,
    /// }
    ///
    /// let workers = Workers::new(2, |handlers: &mut Handlers| {
    ///     handlers.mail(|close: Close, context| {
    ///         println!("{} closes room {}", context.server_id(), close.room);
    ///     });
    /// });
    /// ```
    pub fn mail<M: Any>(&mut self, receive: impl Fn(M, &Context) + 'static) -> &mut Self {
        let context = self.context().clone();
        let receive = move |message: Box<dyn Any + Send>| {
            let message = message.downcast::<M>().expect("it is looked up by its type");
            receive(*message, &context);
        };
        let type_name = type_name::<M>();
        let receiver = Receiver { receive: Box::new(receive), type_name };
        if self.registry().mail.insert(TypeId::of::<M>(), receiver).is_some() {
            self.add_mistake(type_name, Mistake::DuplicateMail);
        }
        self
    }
}

impl Registry {
    /// Hands a message to whoever receives its type.
    pub(crate) fn deliver(&self, mailed: Mailed) -> Result<(), Undelivered> {
        let receiver = self.mail.get(&(*mailed.message).type_id()).ok_or(Undelivered::Unknown)?;
        caught(|| (receiver.receive)(mailed.message)).map_err(Undelivered::Panicked)
    }
}
