//! Which CPUs this process may use.

/// How many CPUs the scheduler may give to this process; at least 1. Cgroup quotas count, since more threads than the
/// quota allows only wait for each other.
pub fn usable_cpus() -> usize {
    std::thread::available_parallelism().map_or(1, |count| count.get())
}
