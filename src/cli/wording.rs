//! Words of the lines on stdout and stderr.

/// A count and what is counted.
pub(super) fn several(count: u16, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_read_well() {
        assert_eq!(several(1, "shard"), "1 shard");
        assert_eq!(several(2, "chat worker"), "2 chat workers");
    }
}
