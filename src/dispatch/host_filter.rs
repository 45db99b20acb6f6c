//! Hosts that may not connect.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

use super::panics::{Panic, caught};

/// Addresses that are turned away when they connect: Pomelo's blacklist.
///
/// The original tests regular expressions against the address as text, unanchored, so that
/// `10.0.0.1` also hits `210.0.0.15`. Here an entry is an address or a CIDR block, and an IPv4
/// address that arrives as `::ffff:a.b.c.d` is taken for what it is
/// (docs/protocol/sessions.md, "Host filter").
///
/// ```
/// use shaddock::HostFilter;
///
/// let filter = HostFilter::deny(["203.0.113.0/24", "2001:db8::1"])?;
/// assert!(filter.denies("203.0.113.77".parse().unwrap()));
/// assert!(filter.denies("::ffff:203.0.113.77".parse().unwrap()));
/// assert!(!filter.denies("203.0.114.1".parse().unwrap()));
/// # Ok::<(), shaddock::HostFilterError>(())
/// ```
#[derive(Clone, Default)]
pub struct HostFilter {
    rules: Vec<HostRule>,
    callback: Option<Callback>,
}

type Callback = Arc<dyn Fn(IpAddr) -> bool + Send + Sync>;

/// Rules of one filter; what is added above that is refused with [`HostFilterError::TooMany`].
pub(super) const RULES_MAX: usize = 65_536;

/// One address, or a block of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HostRule {
    network: u128,
    mask: u128,
    family: Family,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Family {
    V4,
    V6,
}

/// A host filter that can't be (made by the embedder or the operator).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HostFilterError {
    /// The text is neither an address nor a CIDR block.
    BadRule(String),
    /// More than 65,536 rules.
    TooMany,
}

impl std::fmt::Display for HostFilterError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::BadRule(text) => {
                write!(f, "`{text}` is neither an IP address nor a block like 203.0.113.0/24")
            }
            Self::TooMany => write!(f, "a host filter holds at most {RULES_MAX} rules"),
        }
    }
}

impl std::error::Error for HostFilterError {}

impl HostFilter {
    /// Turns away the given addresses and blocks.
    ///
    /// # Errors
    /// The first text that is neither.
    pub fn deny<T: AsRef<str>>(
        rules: impl IntoIterator<Item = T>,
    ) -> Result<Self, HostFilterError> {
        let mut filter = Self::default();
        let rules: Result<Vec<_>, _> = rules.into_iter().map(|r| r.as_ref().parse()).collect();
        filter.add(&rules?)?;
        Ok(filter)
    }

    /// Also asks `denies` about each address that no rule denies. It runs on the shard's thread
    /// for each new connection, so it must not block.
    ///
    /// ```
    /// use shaddock::HostFilter;
    ///
    /// let filter = HostFilter::default().or(|address| address.is_multicast());
    /// assert!(filter.denies("224.0.0.1".parse().unwrap()));
    /// ```
    #[must_use]
    pub fn or(self, denies: impl Fn(IpAddr) -> bool + Send + Sync + 'static) -> Self {
        Self { callback: Some(Arc::new(denies)), ..self }
    }

    /// Adds rules to the list.
    ///
    /// ```
    /// use shaddock::HostFilter;
    ///
    /// let mut filter = HostFilter::deny(["203.0.113.7"])?;
    /// filter.add(&["198.51.100.0/24".parse()?])?;
    /// filter.remove(&["203.0.113.7".parse()?]);
    /// assert!(filter.denies("198.51.100.9".parse().unwrap()));
    /// assert!(!filter.denies("203.0.113.7".parse().unwrap()));
    /// # Ok::<(), shaddock::HostFilterError>(())
    /// ```
    ///
    /// # Errors
    /// [`HostFilterError::TooMany`]; none of them is added then.
    pub fn add(&mut self, rules: &[HostRule]) -> Result<(), HostFilterError> {
        if self.rules.len() + rules.len() > RULES_MAX {
            return Err(HostFilterError::TooMany);
        }
        self.rules.extend_from_slice(rules);
        Ok(())
    }

    /// Puts other rules into the place of those on the list.
    ///
    /// ```
    /// use shaddock::HostFilter;
    ///
    /// let mut filter = HostFilter::deny(["203.0.113.7"])?;
    /// filter.replace(vec!["198.51.100.0/24".parse()?])?;
    /// assert!(!filter.denies("203.0.113.7".parse().unwrap()));
    /// # Ok::<(), shaddock::HostFilterError>(())
    /// ```
    ///
    /// # Errors
    /// [`HostFilterError::TooMany`]; the list stays as it is then.
    pub fn replace(&mut self, rules: Vec<HostRule>) -> Result<(), HostFilterError> {
        if rules.len() > RULES_MAX {
            return Err(HostFilterError::TooMany);
        }
        self.rules = rules;
        Ok(())
    }

    /// Takes rules off the list.
    pub fn remove(&mut self, rules: &[HostRule]) {
        self.rules.retain(|rule| !rules.contains(rule));
    }

    pub(super) fn rules(&self) -> &[HostRule] {
        &self.rules
    }

    /// True if an address is turned away. A callback that panics lets it in.
    #[must_use]
    pub fn denies(&self, address: IpAddr) -> bool {
        self.asked(address).unwrap_or_default()
    }

    /// The same, or the panic of the callback.
    pub(super) fn asked(&self, address: IpAddr) -> Result<bool, Panic> {
        let address = address.to_canonical();
        if self.rules.iter().any(|rule| rule.matches_canonical(address)) {
            return Ok(true);
        }
        self.callback.as_ref().map_or(Ok(false), |denies| caught(|| denies(address)))
    }
}

impl std::fmt::Debug for HostFilter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostFilter")
            .field("rules", &self.rules.len())
            .field("callback", &self.callback.is_some())
            .finish()
    }
}

impl HostRule {
    /// True if the address is the rule's, or in its block. An IPv4 address given as
    /// `::ffff:a.b.c.d` is taken for what it is.
    ///
    /// ```
    /// use shaddock::HostRule;
    ///
    /// let rule: HostRule = "10.0.0.0/8".parse()?;
    /// assert!(rule.matches("10.1.2.3".parse().unwrap()));
    /// # Ok::<(), shaddock::HostFilterError>(())
    /// ```
    #[must_use]
    pub fn matches(&self, address: IpAddr) -> bool {
        self.matches_canonical(address.to_canonical())
    }

    fn matches_canonical(&self, address: IpAddr) -> bool {
        let (bits, family) = bits(address);
        family == self.family && bits & self.mask == self.network
    }

    /// True if both are blocks of one length and family.
    pub(super) fn has_shape_of(&self, other: &Self) -> bool {
        (self.family, self.mask) == (other.family, other.mask)
    }

    /// The block of this one's length that an address is in; none if it is of the other family.
    pub(super) fn around(&self, address: IpAddr) -> Option<Self> {
        let (bits, family) = bits(address.to_canonical());
        (family == self.family).then_some(Self { network: bits & self.mask, ..*self })
    }
}

/// Shows the address, or the block as CIDR writes it.
impl std::fmt::Display for HostRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (address, len_max): (IpAddr, u32) = match self.family {
            Family::V4 => (Ipv4Addr::from_bits((self.network >> 96) as u32).into(), 32),
            Family::V6 => (Ipv6Addr::from_bits(self.network).into(), 128),
        };
        match self.mask.count_ones() {
            prefix if prefix == len_max => address.fmt(f),
            prefix => write!(f, "{address}/{prefix}"),
        }
    }
}

/// The address as a number whose first bit is the highest one.
fn bits(address: IpAddr) -> (u128, Family) {
    match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()) << 96, Family::V4),
        IpAddr::V6(address) => (address.to_bits(), Family::V6),
    }
}

impl FromStr for HostRule {
    type Err = HostFilterError;

    fn from_str(text: &str) -> Result<Self, HostFilterError> {
        let bad = || HostFilterError::BadRule(text.to_owned());
        let (address, prefix) = match text.trim().split_once('/') {
            Some((address, prefix)) => (address, Some(prefix.parse::<u32>().map_err(|_| bad())?)),
            None => (text.trim(), None),
        };
        let address: IpAddr = address.parse().map_err(|_| bad())?;
        let canonical = address.to_canonical();
        let len_max = if canonical.is_ipv4() { 32 } else { 128 };
        // A block given as `::ffff:a.b.c.d/120` counts its 96 leading bits too.
        let mapped = if canonical == address { 0 } else { 96 };
        let prefix = match prefix {
            None => len_max,
            Some(prefix) => prefix.checked_sub(mapped).ok_or_else(bad)?,
        };
        if prefix > len_max {
            return Err(bad());
        }
        let mask = if prefix == 0 { 0 } else { u128::MAX << (128 - prefix) };
        let (network, family) = bits(canonical);
        Ok(Self { network: network & mask, mask, family })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denies(rule: &str, address: &str) -> bool {
        HostFilter::deny([rule]).unwrap().denies(address.parse().unwrap())
    }

    #[test]
    fn exact_addresses_are_not_patterns() {
        assert!(denies("10.0.0.1", "10.0.0.1"));
        assert!(!denies("10.0.0.1", "210.0.0.15"));
        assert!(!denies("10.0.0.1", "10.0.0.15"));
    }

    #[test]
    fn blocks_match_by_prefix() {
        assert!(denies("10.0.0.0/8", "10.255.0.1"));
        assert!(!denies("10.0.0.0/8", "11.0.0.1"));
        assert!(denies("0.0.0.0/0", "1.2.3.4"));
        assert!(!denies("0.0.0.0/0", "2001:db8::1"));
        assert!(denies("2001:db8::/32", "2001:db8:ffff::1"));
        assert!(denies("10.1.2.3/24", "10.1.2.200"), "host bits of a block do not count");
    }

    #[test]
    fn mapped_addresses_are_ipv4() {
        assert!(denies("127.0.0.1", "::ffff:127.0.0.1"));
        assert!(denies("::ffff:127.0.0.1", "127.0.0.1"));
        assert!(denies("::ffff:10.0.0.0/104", "10.9.9.9"));
    }

    #[test]
    fn rules_are_shown_as_they_are_written() {
        for text in ["10.0.0.1", "10.0.0.0/8", "0.0.0.0/0", "2001:db8::1", "2001:db8::/32", "::/0"]
        {
            assert_eq!(text.parse::<HostRule>().unwrap().to_string(), text);
        }
        assert_eq!("::ffff:10.0.0.1".parse::<HostRule>().unwrap().to_string(), "10.0.0.1");
    }

    #[test]
    fn bad_rules_are_named() {
        for text in ["", "10.0.0", "10.0.0.0/33", "::1/129", "10.0.0.0/x", "localhost"] {
            let error = text.parse::<HostRule>().unwrap_err();
            assert_eq!(error, HostFilterError::BadRule(text.to_owned()));
        }
    }

    #[test]
    fn the_callback_is_asked_last_and_may_panic() {
        let filter = HostFilter::default().or(|address| address.is_loopback());
        assert!(filter.denies("::ffff:127.0.0.1".parse().unwrap()));
        assert!(!filter.denies("10.0.0.1".parse().unwrap()));
        let filter = HostFilter::default().or(|_| panic!("on purpose"));
        assert!(!filter.denies("10.0.0.1".parse().unwrap()));
    }
}
