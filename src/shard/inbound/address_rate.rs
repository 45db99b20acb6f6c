//! A bound on the connections of each address.

use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;

use crate::shard::rate::{Bucket, Rate};

/// The addresses that have connected lately. The table never grows: where a new address finds its
/// set full, the one goes that may connect most freely again. Nobody outside knows which addresses
/// share a set.
#[derive(Debug)]
pub(super) struct AddressRate {
    rate: Rate,
    sets: Box<[Set]>,
    hasher: RandomState,
}

type Set = [Entry; WAYS];

#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    /// 0 where there is none.
    key: u64,
    bucket: Bucket,
}

const SETS: usize = 1024;
const WAYS: usize = 8;
const _: () = assert!(SETS.is_power_of_two());
const _: () = assert!(SETS * size_of::<Set>() == 128 * 1024);

impl AddressRate {
    pub(super) fn new(rate: Rate) -> Self {
        let sets = vec![Set::default(); SETS].into();
        Self { rate, sets, hasher: RandomState::new() }
    }

    /// Counts a connection; whether the address may have it.
    pub(super) fn take(&mut self, address: IpAddr, now_us: u64) -> bool {
        let key = key(address);
        let set = &mut self.sets[self.hasher.hash_one(key) as usize & (SETS - 1)];
        let place = set.iter().position(|entry| entry.key == key).unwrap_or_else(|| {
            let fullest = (0..WAYS).min_by_key(|way| set[*way].bucket.full_at_ns());
            let fullest = fullest.expect("a set has several ways");
            set[fullest] = Entry { key, bucket: Bucket::default() };
            fullest
        });
        self.rate.take(&mut set[place].bucket, now_us)
    }
}

/// An IPv4 address by itself; of an IPv6 address what a network is given, as its owner has all of
/// the rest.
fn key(address: IpAddr) -> u64 {
    /// No IPv6 address starts with 32 ones, nor is one's network 0.
    const V4: u64 = 0xffff_ffff << 32;
    match address.to_canonical() {
        IpAddr::V4(address) => V4 | u64::from(address.to_bits()),
        IpAddr::V6(address) => ((address.to_bits() >> 64) as u64).max(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(burst: u32) -> AddressRate {
        AddressRate::new(Rate::new(1, burst).unwrap())
    }

    fn taken(table: &mut AddressRate, address: &str) -> usize {
        let address = address.parse().unwrap();
        (0..10).filter(|_| table.take(address, 1)).count()
    }

    #[test]
    fn each_address_counts_by_itself_and_ipv6_by_its_network() {
        let mut table = table(2);
        for (address, expected) in [
            ("192.0.2.1", 2),
            ("192.0.2.2", 2),
            ("::ffff:192.0.2.2", 0),
            ("2001:db8::1", 2),
            ("2001:db8::2", 0),
            ("2001:db8:0:1::1", 2),
            ("::1", 2),
        ] {
            assert_eq!(taken(&mut table, address), expected, "{address}");
        }
    }

    /// However many addresses come, one that goes on connecting stays known.
    #[test]
    fn many_addresses_take_no_more_room_and_hide_nobody() {
        let mut table = table(5);
        let mut busy = 0;
        for number in 0..crate::test_cases::repetitions(100_000) {
            table.take(IpAddr::V4(number.to_be().into()), 1);
            if number % 100 == 0 {
                busy += usize::from(table.take("203.0.113.9".parse().unwrap(), 1));
            }
        }
        assert_eq!(busy, 5);
        assert_eq!(table.sets.len(), SETS);
    }
}
