//! Computing must not delay what keeps the node alive.

/// Enough to let any control-plane thread go first, without starving against other programs.
const COMPUTE_NICENESS: i32 = 5;

/// Puts the calling thread, and all threads that it starts from now on, below the control plane. A refusal changes
/// only how threads share a busy CPU, so it is no error.
pub fn below_control_plane() {
    // On Linux priorities belong to threads, and "the calling process" means the calling thread.
    if let Err(error) = rustix::process::setpriority_process(None, COMPUTE_NICENESS) {
        tracing::debug!(%error, "compute threads keep the priority of the others");
    }
}

/// As low as it goes: a share of a few parts in a hundred where computing wants the CPU too.
const BACKGROUND_NICENESS: i32 = 19;

/// Puts the calling thread below those that compute. As above, a refusal is no error.
pub fn below_computing() {
    if let Err(error) = rustix::process::setpriority_process(None, BACKGROUND_NICENESS) {
        tracing::debug!(%error, "background threads keep the priority of the others");
    }
}
