//! The time that a template sees.

use std::ffi::CString;
use std::mem::MaybeUninit;

const MICROSECONDS: i64 = 1_000_000;

/// Microseconds since the Unix epoch, shown in the local time zone.
#[derive(Clone, Copy, Debug)]
pub struct Clock(pub i64);

impl Clock {
    /// Python's `datetime.now().strftime(format)`; an empty text for a format that C's strftime cannot show.
    pub fn strftime(self, format: &str) -> String {
        let seconds: libc::time_t = self.0.div_euclid(MICROSECONDS);
        let Ok(format) = CString::new(self.with_microseconds(format)) else {
            return String::new();
        };
        let mut fields = MaybeUninit::<libc::tm>::uninit();
        let mut buffer = vec![0u8; 256 + 16 * format.as_bytes().len()];
        // SAFETY: localtime_r fills `fields` before strftime reads it; the buffer's size is given.
        let length = unsafe {
            if libc::localtime_r(&seconds, fields.as_mut_ptr()).is_null() {
                return String::new();
            }
            let start = buffer.as_mut_ptr().cast();
            libc::strftime(start, buffer.len(), format.as_ptr(), fields.as_ptr())
        };
        buffer.truncate(length);
        String::from_utf8_lossy(&buffer).into_owned()
    }

    /// Replaces `%f`, which only Python knows, by six digits.
    fn with_microseconds(self, format: &str) -> String {
        let mut out = String::with_capacity(format.len());
        let mut characters = format.chars();
        while let Some(c) = characters.next() {
            match (c, if c == '%' { characters.next() } else { None }) {
                ('%', Some('f')) => out.push_str(&format!("{:06}", self.0.rem_euclid(MICROSECONDS))),
                (c, Some(directive)) => out.extend([c, directive]),
                (c, None) => out.push(c),
            }
        }
        out
    }
}
