//! Locks whose holders do not panic.

use std::sync::{Mutex, MutexGuard};

/// Locks `mutex`. A thread that panicked while it held the lock is a mistake of this program.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no thread panics while it holds a lock")
}
