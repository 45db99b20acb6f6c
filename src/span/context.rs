//! The place of a span in its trace, and the form in which others are told of it.

/// Ids of a span and of the trace that it is part of. INVARIANT: neither is all zeros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SpanContext {
    pub(crate) trace: [u8; 16],
    pub(crate) span: [u8; 8],
}

impl SpanContext {
    /// Bytes of [`Self::traceparent`].
    pub(crate) const TRACEPARENT_BYTES: usize = 55;

    /// The header `traceparent` of W3C's Trace Context, section 3.2: version 00, the trace, the
    /// span that is the parent of what the receiver does, and the flag that it is sampled.
    ///
    /// ```text
    /// 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01
    /// ```
    pub(crate) fn traceparent(&self) -> String {
        let mut text = String::with_capacity(Self::TRACEPARENT_BYTES);
        text.push_str("00-");
        push_hex(&self.trace, &mut text);
        text.push('-');
        push_hex(&self.span, &mut text);
        text.push_str("-01");
        text
    }
}

fn push_hex(bytes: &[u8], text: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        text.push(DIGITS[usize::from(byte >> 4)].into());
        text.push(DIGITS[usize::from(byte & 0xf)].into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the recommendation.
    #[test]
    fn a_traceparent_looks_as_written_down() {
        let context = SpanContext {
            trace: 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128.to_be_bytes(),
            span: 0x00f0_67aa_0ba9_02b7_u64.to_be_bytes(),
        };
        let text = context.traceparent();
        assert_eq!(text, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        assert_eq!(text.len(), SpanContext::TRACEPARENT_BYTES);
    }
}
