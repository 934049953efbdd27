//! Threads that panic: what becomes of their panics and of the locks that they held.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::{Error, ErrorKind, Result};

/// Locks `mutex`. The thread that panicked while it held the lock reports its panic; the others end in order.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Calls `part`, whose panic becomes an error, as nothing else ends the threads that wait for this one. The caller drops
/// what `part` has left half done.
pub(crate) fn catch_panic<T>(name: &str, part: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(part)).unwrap_or_else(|panic| Err(error_of(name, &*panic)))
}

fn error_of(name: &str, panic: &(dyn Any + Send)) -> Error {
    let literal = panic.downcast_ref::<&str>().copied();
    let message =
        literal.or(panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message");
    let remedy = "this is an error of hasn: please report it";
    Error::new(name, format!("panicked: {message}"), remedy).with_kind(ErrorKind::Internal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error_with_its_message_and_its_lock_can_be_taken() {
        let mutex = Mutex::new(1);
        let panics = || -> Result<()> {
            let mut value = lock(&mutex);
            *value = 2;
            panic!("at {value}")
        };
        let error = catch_panic("the encode stage", panics).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
        let line = "the encode stage: panicked: at 2; this is an error of hasn: please report it";
        assert_eq!(error.to_string(), line);
        assert_eq!(*lock(&mutex), 2);
    }
}
