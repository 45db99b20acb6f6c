//! The part of a handle that decides who may connect.

use std::sync::Arc;
use std::time::Duration;

use super::handle::Handle;
use crate::dispatch::denied_hosts::DeniedHosts;
use crate::dispatch::{ClientRules, DeniedHost, HostFilterError, HostRule, Maintenance};
use crate::error::HandleError;
use crate::forward::mail::Mail;

impl Handle {
    /// Turns away further addresses, as Pomelo's admin signal `blacklist` does. Connections that
    /// are open stay so.
    ///
    /// ```
    /// use shaddock::{Engine, testing};
    ///
    /// let t = testing::Engine::new(Engine::builder());
    /// t.handle().deny_hosts(&["10.0.0.1".parse()?])?;
    /// assert!(t.client().peer("10.0.0.1:4000".parse()?).try_connect().is_err());
    /// assert!(t.client().peer("10.0.0.2:4000".parse()?).try_connect().is_ok());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// See [`HandleError`].
    pub fn deny_hosts(&self, rules: &[HostRule]) -> Result<(), HandleError> {
        self.change_hosts(|hosts, _| hosts.filter.add(rules))
    }

    /// Turns away addresses for a while. A rule that is there already with an end gets this one.
    /// At most 65,536 rules hold so at a time. They are of this engine's: another start, or another
    /// connector, knows nothing of them.
    ///
    /// # Errors
    /// See [`HandleError`].
    ///
    /// # Examples
    /// ```no_run
    /// use std::time::Duration;
    ///
    /// # fn ban(handle: &shaddock::Handle) -> Result<(), Box<dyn std::error::Error>> {
    /// handle.deny_hosts_for(&["203.0.113.7".parse()?], Duration::from_secs(3600))?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn deny_hosts_for(&self, rules: &[HostRule], time: Duration) -> Result<(), HandleError> {
        let time_us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.change_hosts(|hosts, now_us| {
            hosts.add_until(rules, now_us.saturating_add(time_us), now_us)
        })
    }

    /// Takes rules off the host filter again, whether they have an end or not. Gives the number of
    /// those that were there: a rule is found only as it was given, not by an address in its block.
    ///
    /// ```
    /// use shaddock::{Engine, testing};
    ///
    /// let t = testing::Engine::new(Engine::builder());
    /// t.handle().deny_hosts(&["10.0.0.0/8".parse()?])?;
    /// assert_eq!(t.handle().allow_hosts(&["10.0.0.1".parse()?])?, 0); // It is no rule.
    /// assert_eq!(t.handle().allow_hosts(&["10.0.0.0/8".parse()?])?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// See [`HandleError`].
    pub fn allow_hosts(&self, rules: &[HostRule]) -> Result<usize, HandleError> {
        let mut found = 0;
        self.change_hosts(|hosts, _| {
            found = hosts.remove(rules);
            Ok(())
        })?;
        Ok(found)
    }

    /// Replaces all rules of the host filter that have no end.
    ///
    /// ```
    /// use shaddock::{Engine, testing};
    ///
    /// let t = testing::Engine::new(Engine::builder());
    /// t.handle().deny_hosts(&["203.0.113.7".parse()?])?;
    /// t.handle().set_hosts(&["10.0.0.0/8".parse()?])?;
    /// let denied = t.handle().denied_hosts();
    /// assert_eq!((denied.len(), denied[0].rule.to_string()), (1, "10.0.0.0/8".to_owned()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// See [`HandleError`].
    pub fn set_hosts(&self, rules: &[HostRule]) -> Result<(), HandleError> {
        self.change_hosts(|hosts, _| hosts.filter.replace(rules.to_vec()))
    }

    /// The rules of the host filter: those that hold for a while, the next one to end first, and
    /// behind them those without an end.
    ///
    /// ```
    /// # fn print(handle: &shaddock::Handle) {
    /// for host in handle.denied_hosts() {
    ///     match host.left {
    ///         Some(left) => println!("{} for {left:?}", host.rule),
    ///         None => println!("{}", host.rule),
    ///     }
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn denied_hosts(&self) -> Vec<DeniedHost> {
        let hosts = Arc::clone(&self.config.changing().denied_hosts);
        hosts.list(self.threads.now_us())
    }

    /// Changes the host filter, and gives it to all shards. To ask again is safe where a shard is
    /// busy: each gets all rules.
    fn change_hosts(
        &self,
        change: impl FnOnce(&mut DeniedHosts, u64) -> Result<(), HostFilterError>,
    ) -> Result<(), HandleError> {
        // Held until all have got it, so that shards get them in the order of the changes.
        let mut changing = self.config.changing();
        let mut hosts = DeniedHosts::clone(&changing.denied_hosts);
        change(&mut hosts, self.threads.now_us()).map_err(|_| HandleError::TooManyHosts)?;
        changing.denied_hosts = Arc::new(hosts);
        self.tell_all(|| Mail::Hosts(Arc::clone(&changing.denied_hosts)))
    }

    /// Serves other clients from now on, by what they say of themselves; see
    /// [`Builder::client_rules`](crate::Builder::client_rules). Sessions that are there stay.
    ///
    /// ```
    /// use shaddock::{ClientRules, Engine, Refusal, testing};
    ///
    /// let t = testing::Engine::new(Engine::builder());
    /// let rules = ClientRules::new().version_min("2".parse()?, Refusal::new());
    /// t.handle().set_client_rules(rules)?;
    /// let refused = t.client().version("unity", "1.9").try_connect().unwrap_err();
    /// assert_eq!(refused.answer.unwrap()["code"], 501);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// See [`HandleError`]. If a shard is [`Busy`](HandleError::Busy), those before it have got
    /// them; to ask again is safe.
    pub fn set_client_rules(&self, rules: ClientRules) -> Result<(), HandleError> {
        let mut changing = self.config.changing();
        changing.client_rules = Arc::new(rules);
        self.tell_all(|| Mail::ClientRules(Arc::clone(&changing.client_rules)))
    }

    /// Lets nobody new in from now on but those that a [`Maintenance`] names, or everybody again
    /// with none. Sessions that are there stay: see [`Self::broadcast`] and [`Self::kick`]. It is
    /// ready all the same ([`Self::unready`]), as balancers have to send clients here for their
    /// answer.
    ///
    /// ```
    /// use shaddock::{Engine, Maintenance, Refusal, testing};
    ///
    /// let t = testing::Engine::new(Engine::builder());
    /// t.handle().set_maintenance(Maintenance::new(Refusal::code(503)))?;
    /// assert!(t.client().try_connect().is_err());
    /// t.handle().set_maintenance(None)?;
    /// assert!(t.client().try_connect().is_ok());
    /// # Ok::<(), shaddock::HandleError>(())
    /// ```
    ///
    /// # Errors
    /// As [`Self::set_client_rules`].
    pub fn set_maintenance(
        &self,
        maintenance: impl Into<Option<Maintenance>>,
    ) -> Result<(), HandleError> {
        let mut changing = self.config.changing();
        changing.maintenance = maintenance.into().map(Arc::new);
        self.tell_all(|| Mail::Maintenance(changing.maintenance.clone()))
    }
}
