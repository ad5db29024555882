//! Text in a fixed place: nothing is allocated while memory is put back.

use core::fmt;

/// At most `N - 1` bytes, and a NUL after them. Zeros are an empty one.
#[repr(C)]
pub(crate) struct Text<const N: usize> {
    bytes: [u8; N],
    count: usize,
}

impl<const N: usize> Default for Text<N> {
    fn default() -> Self {
        Text { bytes: [0; N], count: 0 }
    }
}

impl<const N: usize> Text<N> {
    /// Replaces it; what does not fit is left out.
    pub(crate) fn say(&mut self, words: fmt::Arguments<'_>) {
        self.count = 0;
        // It takes everything: there is no error.
        let _ = fmt::write(self, words);
        self.bytes[self.count] = 0;
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.count]
    }

    /// With the NUL, for C.
    pub(crate) fn with_nul(&self) -> &[u8] {
        &self.bytes[..=self.count]
    }
}

impl<const N: usize> fmt::Write for Text<N> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = N - 1 - self.count;
        let fits = &text.as_bytes()[..text.len().min(room)];
        self.bytes[self.count..self.count + fits.len()].copy_from_slice(fits);
        self.count += fits.len();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_left_out_and_a_nul_follows() {
        let mut text = Text::<8>::default();
        text.say(format_args!("{}-{}", 123, "456789"));
        assert_eq!((text.as_bytes(), text.with_nul()), (&b"123-456"[..], &b"123-456\0"[..]));
        text.say(format_args!(""));
        assert_eq!((text.as_bytes(), text.with_nul()), (&b""[..], &b"\0"[..]));
    }
}
