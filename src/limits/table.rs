//! The macro that makes [`Limits`](super::Limits) of one table.

use std::fmt;
use std::time::Duration;

use super::Limits;

/// A row of the table: the facts about one field of [`Limits`].
///
/// ```
/// use shaddock::Limits;
///
/// let limit = Limits::table().iter().find(|limit| limit.key == "tasks_max").unwrap();
/// assert_eq!((limit.default, limit.counters), ("65_536", &["task_rejects"][..]));
/// ```
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Limit {
    /// The field, which is the key in a configuration file.
    pub key: &'static str,
    /// The things that are bounded, such as "Connections of one shard."
    pub unit: &'static str,
    /// The default as one would write it, such as `1_024`, `64 KiB` or `10 s`.
    pub default: &'static str,
    /// The counters that count what happens at the bound.
    pub counters: &'static [&'static str],
    /// The place where that is told instead, if nothing counts it.
    pub told: &'static str,
    /// The values that may stand there.
    pub(super) expected: &'static str,
    pub(super) holds: fn(&Limits) -> bool,
}

/// A reader or writer of all fields of [`Limits`]; see [`Limits::visit`].
///
/// ```
/// use std::collections::HashMap;
/// use std::time::Duration;
///
/// use shaddock::{Limit, LimitNumber, LimitVisitor, Limits};
///
/// /// What somebody has set: numbers, bytes and milliseconds.
/// struct Settings(HashMap<&'static str, u64>);
///
/// impl LimitVisitor for Settings {
///     fn count<T: LimitNumber>(&mut self, limit: &'static Limit, field: &mut T) {
///         let number = self.0.get(limit.key).and_then(|&number| T::try_from(number).ok());
///         *field = number.unwrap_or(*field);
///     }
///
///     fn bytes<T: LimitNumber>(&mut self, limit: &'static Limit, field: &mut T) {
///         self.count(limit, field);
///     }
///
///     fn duration(&mut self, limit: &'static Limit, field: &mut Duration) {
///         if let Some(&ms) = self.0.get(limit.key) {
///             *field = Duration::from_millis(ms);
///         }
///     }
/// }
///
/// let mut limits = Limits::default();
/// limits.visit(&mut Settings(HashMap::from([("tasks_max", 100), ("turn_warning", 250)])));
/// assert_eq!((limits.tasks_max, limits.turn_warning), (100, Duration::from_millis(250)));
/// ```
pub trait LimitVisitor {
    /// Takes a number of things.
    fn count<T: LimitNumber>(&mut self, limit: &'static Limit, field: &mut T);

    /// Takes a number of bytes.
    fn bytes<T: LimitNumber>(&mut self, limit: &'static Limit, field: &mut T);

    /// Takes a time.
    fn duration(&mut self, limit: &'static Limit, field: &mut Duration);
}

/// The integers that a limit may be: `u16`, `u32` and `usize`.
pub trait LimitNumber: TryFrom<u64> + Copy + Eq + fmt::Debug + Send + Sync + 'static {}

impl<T> LimitNumber for T where T: TryFrom<u64> + Copy + Eq + fmt::Debug + Send + Sync + 'static {}

/// Makes `Limits`, its defaults and its table. A row is the unit as the first line of the doc, what
/// happens at the bound as the rest, then the field, its default, the values that it may have, and
/// its counters, or where else is told what they would.
macro_rules! limits {
    ($(#[$attribute:meta])+ $type:ident {
        $(
            #[doc = $unit:literal]
            $(#[doc = $doc:literal])+
            $name:ident: $kind:ident = $number:literal $($suffix:ident)?,
            check [$($check:tt)*],
            $(counters [$($counter:ident),+])? $(told $told:literal)?;
        )+
    }) => {
        $(#[$attribute])+
        pub struct $type {
            $(
                #[doc = $unit]
                $(#[doc = $doc])+
                ///
                #[doc = concat!("Default: ", stringify!($number $($suffix)?), ".")]
                $($(#[doc = concat!(
                    "Counter: [`", stringify!($counter), "`](crate::metrics::CounterSnapshot::",
                    stringify!($counter), ")."
                )])+)?
                $(#[doc = concat!("No counter: ", $told, ".")])?
                pub $name: $kind,
            )+
        }

        impl Default for $type {
            fn default() -> Self {
                Self { $($name: limits!(@value $number $($suffix)?),)+ }
            }
        }

        impl $type {
            /// Every limit, in the order of the documentation.
            ///
            /// ```
            /// for limit in shaddock::Limits::table() {
            ///     println!("{} = {} # {}", limit.key, limit.default, limit.unit);
            /// }
            /// ```
            #[must_use]
            pub fn table() -> &'static [Limit] {
                static TABLE: &[Limit] = &[$(Limit {
                    key: stringify!($name),
                    unit: $unit.trim_ascii(),
                    default: stringify!($number $($suffix)?),
                    counters: &[$($(stringify!($counter),)+)?],
                    told: concat!($($told)?),
                    expected: limits!(@expected $($check)*),
                    holds: limits!(@holds $name $($check)*),
                },)+];
                TABLE
            }

            /// Hands each field to `visitor`, which may change it, with its row of the table: for
            /// whoever reads them from a file of their own.
            ///
            /// ```
            /// # use std::time::Duration;
            /// # use shaddock::{Limit, LimitNumber, LimitVisitor, Limits};
            /// struct Print;
            ///
            /// impl LimitVisitor for Print {
            ///     fn count<T: LimitNumber>(&mut self, limit: &'static Limit, field: &mut T) {
            ///         println!("{}: {field:?}", limit.key);
            ///     }
            ///
            ///     fn bytes<T: LimitNumber>(&mut self, limit: &'static Limit, field: &mut T) {
            ///         println!("{}: {field:?} bytes", limit.key);
            ///     }
            ///
            ///     fn duration(&mut self, limit: &'static Limit, field: &mut Duration) {
            ///         println!("{}: {field:?}", limit.key);
            ///     }
            /// }
            ///
            /// Limits::default().visit(&mut Print);
            /// ```
            pub fn visit(&mut self, visitor: &mut impl LimitVisitor) {
                let mut rows = Self::table().iter();
                $(
                    let row = rows.next().expect("as many rows as fields");
                    limits!(@visit visitor, row, &mut self.$name, $($suffix)?);
                )+
            }
        }
    };

    (@value $number:literal) => { $number };
    (@value $number:literal KiB) => { $number * 1024 };
    (@value $number:literal MiB) => { $number * 1024 * 1024 };
    (@value $number:literal ms) => { Duration::from_millis($number) };
    (@value $number:literal s) => { Duration::from_secs($number) };

    (@visit $visitor:ident, $row:ident, $field:expr,) => { $visitor.count($row, $field) };
    (@visit $visitor:ident, $row:ident, $field:expr, ms) => { $visitor.duration($row, $field) };
    (@visit $visitor:ident, $row:ident, $field:expr, s) => { $visitor.duration($row, $field) };
    (@visit $visitor:ident, $row:ident, $field:expr, $bytes:ident) => {
        $visitor.bytes($row, $field)
    };

    (@expected any) => { "" };
    (@expected at least $min:literal) => { concat!("at least ", $min) };
    (@expected $min:literal to $max:literal) => { concat!($min, " to ", $max) };
    (@expected $expected:literal if $holds:expr) => { $expected };

    (@holds $name:ident any) => { |_| true };
    (@holds $name:ident at least $min:literal) => { |limits| limits.$name >= $min };
    (@holds $name:ident $min:literal to $max:literal) => {
        |limits| ($min..=$max).contains(&limits.$name)
    };
    (@holds $name:ident $expected:literal if $holds:expr) => { $holds };
}

/// Makes the constants of `turn`, and the table of them that a test compares with the documents.
/// The first line of a doc is the unit.
macro_rules! turn_bounds {
    ($(
        $(#[cfg($cfg:meta)])?
        #[doc = $unit:literal]
        $(#[doc = $doc:literal])*
        $name:ident: $kind:ident = $number:literal $($suffix:ident)?,
        counters [$($counter:ident),*];
    )+) => {
        $(
            $(#[cfg($cfg)])?
            #[doc = $unit]
            $(#[doc = $doc])*
            pub(crate) const $name: $kind = limits!(@value $number $($suffix)?);
        )+

        /// Every bound of a turn, also those of features that are off.
        #[cfg(test)]
        pub(super) const TABLE: &[super::Limit] = &[$(super::Limit {
            key: stringify!($name),
            unit: $unit.trim_ascii(),
            default: stringify!($number $($suffix)?),
            counters: &[$(stringify!($counter)),*],
            told: "",
            expected: "",
            holds: |_| true,
        },)+];
    };
}
