//! A child that never outlives its parent.

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

/// The kernel kills this process when the *thread* that started it ends; the starter keeps one thread for that.
/// `parent` is who should be the parent: when it is already gone, the signal would never come.
///
/// # Errors
/// The parent is gone already, or the kernel has refused.
pub fn die_with_parent(parent: u32) -> std::io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if getppid().map(Pid::as_raw_nonzero).map(i32::from) == i32::try_from(parent).ok() {
        Ok(())
    } else {
        Err(std::io::Error::other(
            "the node that started this process has ended",
        ))
    }
}
