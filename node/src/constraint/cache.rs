//! Values worth keeping, bounded in number and bytes, without one tenant driving out the others.

use proto::TenantId;
use std::collections::BTreeMap;

/// When it is full, the tenant that holds most loses what it has not used for longest.
pub struct FairCache<Key, Value> {
    entries: BTreeMap<(TenantId, Key), Entry<Value>>,
    entries_max: usize,
    bytes_max: usize,
    /// Counts uses.
    clock: u64,
}

struct Entry<Value> {
    value: Value,
    bytes: usize,
    used: u64,
}

impl<Key: Ord + Clone, Value: Clone> FairCache<Key, Value> {
    pub fn new(entries_max: usize, bytes_max: usize) -> FairCache<Key, Value> {
        FairCache {
            entries: BTreeMap::new(),
            entries_max,
            bytes_max,
            clock: 0,
        }
    }

    pub fn get(&mut self, tenant: TenantId, key: &Key) -> Option<Value> {
        self.clock += 1;
        let entry = self.entries.get_mut(&(tenant, key.clone()))?;
        entry.used = self.clock;
        Some(entry.value.clone())
    }

    /// Something larger than the whole cache is not kept.
    pub fn insert(&mut self, tenant: TenantId, key: Key, value: Value, bytes: usize) {
        if bytes > self.bytes_max {
            return;
        }
        self.clock += 1;
        let entry = Entry {
            value,
            bytes,
            used: self.clock,
        };
        self.entries.insert((tenant, key), entry);
        while self.entries.len() > self.entries_max || self.bytes() > self.bytes_max {
            self.evict();
        }
    }

    fn bytes(&self) -> usize {
        self.entries.values().map(|entry| entry.bytes).sum()
    }

    fn evict(&mut self) {
        let mut held: BTreeMap<TenantId, (usize, usize)> = BTreeMap::new();
        for ((tenant, _), entry) in &self.entries {
            let (bytes, count) = held.entry(*tenant).or_default();
            (*bytes, *count) = (*bytes + entry.bytes, *count + 1);
        }
        let is_about_bytes = self.bytes() > self.bytes_max;
        let most = held
            .into_iter()
            .max_by_key(|(_, (bytes, count))| match is_about_bytes {
                true => *bytes,
                false => *count,
            });
        let Some((tenant, _)) = most else { return };
        let of_tenant = self.entries.iter().filter(|((owner, _), _)| *owner == tenant);
        let oldest = of_tenant
            .min_by_key(|(_, entry)| entry.used)
            .map(|(key, _)| key.clone());
        if let Some(oldest) = oldest {
            self.entries.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: TenantId = TenantId(1);
    const GREEDY: TenantId = TenantId(2);

    #[test]
    fn a_tenant_that_fills_the_cache_drives_out_itself_alone() {
        let mut cache = FairCache::new(4, 100);
        cache.insert(SMALL, 0, "kept", 10);
        (0..50).for_each(|key| cache.insert(GREEDY, key, "new", 10));
        assert_eq!(cache.get(SMALL, &0), Some("kept"));
        assert_eq!(cache.get(GREEDY, &49), Some("new"));
        assert_eq!(cache.get(GREEDY, &46), None);
        (0..3).for_each(|key| cache.insert(GREEDY, key, "large", 60));
        assert_eq!(cache.get(SMALL, &0), Some("kept"));
        assert!(cache.bytes() <= 100);
    }

    #[test]
    fn what_was_used_last_stays_and_what_is_too_large_never_enters() {
        let mut cache = FairCache::new(2, 100);
        cache.insert(SMALL, 1, 'a', 1);
        cache.insert(SMALL, 2, 'b', 1);
        assert_eq!(cache.get(SMALL, &1), Some('a'));
        cache.insert(SMALL, 3, 'c', 1);
        assert_eq!((cache.get(SMALL, &1), cache.get(SMALL, &2)), (Some('a'), None));
        cache.insert(SMALL, 4, 'd', 101);
        assert_eq!((cache.get(SMALL, &4), cache.get(SMALL, &3)), (None, Some('c')));
    }

    #[test]
    fn tenants_do_not_see_each_other() {
        let mut cache = FairCache::new(2, 100);
        cache.insert(SMALL, 1, 'a', 1);
        assert_eq!(cache.get(GREEDY, &1), None);
    }
}
