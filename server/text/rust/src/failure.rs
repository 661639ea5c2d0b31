//! The one error type of this library: a status code that the C++ side understands, and a message.

use std::cell::RefCell;
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

/// Codes are those of `absl::StatusCode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Code {
    InvalidArgument = 3,
    FailedPrecondition = 9,
    Internal = 13,
}

#[derive(Clone, Debug)]
pub struct Failure {
    pub code: Code,
    pub message: String,
}

impl Failure {
    pub fn invalid_argument(message: impl Into<String>) -> Self {
        Self { code: Code::InvalidArgument, message: message.into() }
    }

    pub fn failed_precondition(message: impl Into<String>) -> Self {
        Self { code: Code::FailedPrecondition, message: message.into() }
    }

    pub fn internal(message: impl Into<String>) -> Self {
        Self { code: Code::Internal, message: message.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

thread_local! {
    static PANIC_LOCATION: RefCell<String> = const { RefCell::new(String::new()) };
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Runs `body`; a panic inside becomes an INTERNAL failure that names the place. The panic's own message is dropped,
/// because it may quote the text that was being worked on.
pub fn catch<T>(body: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        panic::set_hook(Box::new(|info| {
            let place = info.location().map(|l| format!("{}:{}", file_name(l.file()), l.line())).unwrap_or_default();
            PANIC_LOCATION.with(|slot| *slot.borrow_mut() = place);
        }));
    });
    panic::catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| {
        let place = PANIC_LOCATION.with(|slot| slot.take());
        Err(Failure::internal(format!("the text library panicked at {place}")))
    })
}
