//! The host filter of a running engine: the rules of its description, those that were added to
//! them, and those that hold for a while.

use std::net::IpAddr;
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::host_filter::{HostFilter, HostFilterError, HostRule, RULES_MAX};
use super::panics::count_panic;
use crate::metrics::Counters;

/// A host that is turned away, as [`Handle::denied_hosts`](crate::Handle::denied_hosts) lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeniedHost {
    /// The address or block.
    pub rule: HostRule,
    /// The time that is left of it; none if it has no end.
    pub left: Option<Duration>,
}

/// All that turns addresses away, and until when. Threads share one and replace it as a whole.
#[derive(Debug, Clone, Default)]
pub(crate) struct DeniedHosts {
    pub(crate) filter: HostFilter,
    /// The engine's time until which each holds. The keys come from operators, so a fast hash is
    /// safe.
    for_a_while: FxHashMap<HostRule, u64>,
    /// One rule for each length of block above: an address is looked up once for each.
    shapes: Vec<HostRule>,
}

impl DeniedHosts {
    pub(crate) fn new(filter: HostFilter) -> Self {
        Self { filter, ..Self::default() }
    }

    /// Turns hosts away until the engine's time is `until_us`.
    ///
    /// # Errors
    /// [`HostFilterError::TooMany`]; none of them is added then.
    pub(crate) fn add_until(
        &mut self,
        rules: &[HostRule],
        until_us: u64,
        now_us: u64,
    ) -> Result<(), HostFilterError> {
        self.expire(now_us);
        let new = rules.iter().filter(|rule| !self.for_a_while.contains_key(rule)).count();
        if self.for_a_while.len() + new > RULES_MAX {
            return Err(HostFilterError::TooMany);
        }
        self.for_a_while.extend(rules.iter().map(|rule| (*rule, until_us)));
        self.find_shapes();
        Ok(())
    }

    /// Takes rules off, whether they have an end or not. Gives the number of those that were there.
    pub(crate) fn remove(&mut self, rules: &[HostRule]) -> usize {
        let is_there = |rule: &&HostRule| {
            self.for_a_while.contains_key(rule) || self.filter.rules().contains(rule)
        };
        let count = rules.iter().filter(is_there).count();
        self.for_a_while.retain(|rule, _| !rules.contains(rule));
        self.filter.remove(rules);
        self.find_shapes();
        count
    }

    fn expire(&mut self, now_us: u64) {
        self.for_a_while.retain(|_, until_us| *until_us > now_us);
        self.find_shapes();
    }

    fn find_shapes(&mut self) {
        self.shapes.clear();
        for rule in self.for_a_while.keys() {
            if !self.shapes.iter().any(|shape| shape.has_shape_of(rule)) {
                self.shapes.push(*rule);
            }
        }
    }

    /// True if an address is turned away at that time of the engine's. A callback that panics is
    /// counted, and lets it in.
    pub(crate) fn denies(&self, address: IpAddr, now_us: u64, counters: &Counters) -> bool {
        let of_shape = |shape: &HostRule| shape.around(address);
        let until_us = |rule: HostRule| self.for_a_while.get(&rule).copied();
        let mut untils = self.shapes.iter().filter_map(of_shape).filter_map(until_us);
        if untils.any(|until_us| until_us > now_us) {
            return true;
        }
        self.filter.asked(address).unwrap_or_else(|panic| {
            count_panic("host_filter", counters, &panic);
            false
        })
    }

    /// All rules: those that end, the next one first, and behind them those that do not.
    pub(crate) fn list(&self, now_us: u64) -> Vec<DeniedHost> {
        let left = |until_us: u64| Duration::from_micros(until_us.saturating_sub(now_us));
        let ending = self.for_a_while.iter().filter(|(_, until_us)| **until_us > now_us);
        let mut list: Vec<DeniedHost> = ending
            .map(|(rule, until_us)| DeniedHost { rule: *rule, left: Some(left(*until_us)) })
            .collect();
        list.sort_by_key(|denied| denied.left);
        list.extend(self.filter.rules().iter().map(|rule| DeniedHost { rule: *rule, left: None }));
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> HostRule {
        text.parse().unwrap()
    }

    #[test]
    fn a_rule_holds_until_its_end() {
        let mut hosts = DeniedHosts::new(HostFilter::deny(["198.51.100.7"]).unwrap());
        hosts.add_until(&[rule("203.0.113.0/24"), rule("2001:db8::1")], 1_000, 0).unwrap();
        let denies = |hosts: &DeniedHosts, address: &str, now_us| {
            hosts.denies(address.parse().unwrap(), now_us, &Counters::default())
        };
        for address in ["203.0.113.9", "::ffff:203.0.113.9", "2001:db8::1"] {
            assert!(denies(&hosts, address, 999) && !denies(&hosts, address, 1_000), "{address}");
        }
        assert!(!denies(&hosts, "203.0.114.9", 0) && !denies(&hosts, "2001:db8::2", 0));
        assert!(denies(&hosts, "198.51.100.7", u64::MAX));
        // A later end replaces the earlier one, and others have ended by then.
        hosts.add_until(&[rule("203.0.113.0/24")], 5_000, 2_000).unwrap();
        let shown: Vec<_> =
            hosts.list(3_000).iter().map(|it| (it.rule.to_string(), it.left)).collect();
        let expected = [
            ("203.0.113.0/24".to_owned(), Some(Duration::from_millis(2))),
            ("198.51.100.7".to_owned(), None),
        ];
        assert_eq!(shown, expected);
        assert_eq!(hosts.remove(&[rule("203.0.113.0/24"), rule("10.0.0.1")]), 1);
        assert!(!denies(&hosts, "203.0.113.9", 3_000));
        assert_eq!(hosts.remove(&[rule("198.51.100.7")]), 1);
        assert!(hosts.list(3_000).is_empty());
    }

    #[test]
    fn rules_for_a_while_are_bounded() {
        let mut hosts = DeniedHosts::default();
        let rules: Vec<HostRule> = (0..RULES_MAX as u32)
            .map(|number| rule(&std::net::Ipv4Addr::from_bits(number).to_string()))
            .collect();
        hosts.add_until(&rules, 1_000, 0).unwrap();
        let more = [rule("2001:db8::1")];
        assert_eq!(hosts.add_until(&more, 1_000, 0), Err(HostFilterError::TooMany));
        hosts.add_until(&rules[..1], 9_000, 0).unwrap();
        // Those that have ended make room.
        hosts.add_until(&more, 2_000, 1_000).unwrap();
        assert_eq!(hosts.list(1_000).len(), 2);
    }
}
