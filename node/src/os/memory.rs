//! How much memory can still be had.

use std::fs;

/// Bytes that this process may still take before the kernel starts killing: the smaller of what the machine has
/// available and what the cgroup's limit leaves. `u64::MAX` where neither can be read.
pub fn available_bytes() -> u64 {
    [machine_available(), cgroup_v2_left(), cgroup_v1_left()]
        .into_iter()
        .flatten()
        .min()
        .unwrap_or(u64::MAX)
}

fn machine_available() -> Option<u64> {
    meminfo_available(&fs::read_to_string("/proc/meminfo").ok()?)
}

fn meminfo_available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find(|line| line.starts_with("MemAvailable:"))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes * 1024)
}

fn cgroup_v2_left() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let own = format!("/sys/fs/cgroup{}", path.trim_end_matches('/'));
    // Inside a container the path may be that of the host; the mount then shows the own group at its top.
    [own.as_str(), "/sys/fs/cgroup"]
        .into_iter()
        .find_map(|folder| left(folder, "memory.max", "memory.current"))
}

fn cgroup_v1_left() -> Option<u64> {
    left(
        "/sys/fs/cgroup/memory",
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
    )
}

/// `None` also where there is no limit (`max`).
fn left(folder: &str, limit: &str, usage: &str) -> Option<u64> {
    let read = |name: &str| {
        fs::read_to_string(format!("{folder}/{name}"))
            .ok()?
            .trim()
            .parse::<u64>()
            .ok()
    };
    Some(read(limit)?.saturating_sub(read(usage)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn available_memory_is_read_in_bytes() {
        let text = "MemTotal:  200 kB\nMemAvailable:     100 kB\n";
        assert_eq!(meminfo_available(text), Some(102_400));
        assert_eq!(meminfo_available("nothing"), None);
    }

    #[test]
    fn this_machine_has_some_memory() {
        assert!(available_bytes() > 1 << 20);
    }
}
