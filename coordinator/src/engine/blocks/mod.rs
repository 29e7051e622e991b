//! The block table: the only owner of KV block ids.

mod check;
#[cfg(test)]
mod tests;

use proto::{BlockHash, BlockId, GroupId, SequenceId, Span, TenantId, Time};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// A tenant that used nothing for this long has no claim on its share of the cache any more.
const CLAIM_KEPT: Span = Span::from_secs(60);

/// Layers that keep their cache by the same rule. All groups draw blocks of equal bytes from one pool.
///
/// Every group here keeps the whole context; a sliding window will say so in a field of this struct.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GroupSpec {
    pub group: GroupId,
}

/// Which block belongs to whom.
///
/// The life of a block:
///
/// 1. **Free**: it says nothing. Whose bytes it still holds is remembered.
/// 2. **Owned, without a name**: [`BlockTable::grow`] gave it to one sequence, which alone writes it. If the bytes are
///    another tenant's, it is reported to be zeroed first.
/// 3. **Owned, named**: [`BlockTable::name`] said that it is full, computed and known by its hash. It is never written
///    again, and further sequences of the tenant may hold it ([`BlockTable::hold_prefix`]).
/// 4. **Cached**: its last holder let go of it ([`BlockTable::release`]); the name is kept. It becomes *Owned, named*
///    by the next prefix hit, or is evicted, oldest first, and goes to 2 with its name lost.
/// 5. A block without a name whose holder lets go is **Free** again.
///
/// A tenant's claim is half of its equal part of the pool. Another tenant's growth never evicts cached blocks of a
/// tenant that would then have less than its claim, unless with [`Reach::Everything`].
#[derive(Debug)]
pub struct BlockTable {
    block_tokens: u32,
    groups: Vec<GroupSpec>,
    blocks: Vec<Block>,
    /// The last one is given out next.
    free: Vec<BlockId>,
    /// Blocks by content. The tenant is part of the key although the hash is salted with it: belt and braces.
    names: BTreeMap<Name, BlockId>,
    holdings: BTreeMap<SequenceId, Holding>,
    tenants: BTreeMap<TenantId, Usage>,
    /// Counts releases: the age of a cached block.
    releases: u64,
}

/// How far growth may go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// Leaves other tenants their claims.
    Share,
    /// Takes every block that nobody holds: for the sequence that must advance so that all can.
    Everything,
}

/// What the index knows of a chain of hashes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PrefixHit {
    /// Leading hashes for which every group has a block.
    pub blocks: u32,
    /// Pool blocks among them that nobody holds now: holding them takes them from what is available.
    pub unheld: u32,
}

/// Blocks newly given to a sequence.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Growth {
    pub new_blocks: Vec<(GroupId, BlockId)>,
    /// Those among them that hold bytes of another tenant.
    pub zero: Vec<BlockId>,
}

/// Not enough blocks within the reach. Nothing was changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Name {
    group: GroupId,
    tenant: TenantId,
    hash: BlockHash,
}

#[derive(Debug)]
struct Block {
    state: State,
    /// Whose bytes it holds.
    tenant: Option<TenantId>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Free,
    Owned { holders: u32, name: Option<Name> },
    Cached { name: Name, released: u64 },
}

#[derive(Debug)]
struct Holding {
    tenant: TenantId,
    /// One list for each group, in the order of `BlockTable::groups`; entry i covers tokens i·block_tokens onwards.
    lists: Vec<Vec<BlockId>>,
}

#[derive(Debug, Default)]
struct Usage {
    owned: u32,
    /// By age.
    cached: BTreeMap<u64, BlockId>,
    used_at: Time,
}

impl Usage {
    fn blocks(&self) -> u32 {
        self.owned + self.cached.len() as u32
    }

    fn has_claim(&self, now: Time) -> bool {
        now < self.used_at + CLAIM_KEPT
    }
}

impl BlockTable {
    pub fn new(blocks: u32, block_tokens: u32, groups: Vec<GroupSpec>) -> BlockTable {
        assert!(block_tokens > 0 && !groups.is_empty());
        BlockTable {
            block_tokens,
            groups,
            blocks: (0..blocks)
                .map(|_| Block {
                    state: State::Free,
                    tenant: None,
                })
                .collect(),
            free: (0..blocks).rev().map(BlockId).collect(),
            names: BTreeMap::new(),
            holdings: BTreeMap::new(),
            tenants: BTreeMap::new(),
            releases: 0,
        }
    }

    pub fn total(&self) -> u32 {
        self.blocks.len() as u32
    }

    pub fn free(&self) -> u32 {
        self.free.len() as u32
    }

    pub fn cached(&self) -> u32 {
        self.tenants.values().map(|usage| usage.cached.len() as u32).sum()
    }

    /// Blocks that nobody holds.
    pub fn unheld(&self) -> u32 {
        self.free() + self.cached()
    }

    /// How many blocks the tenant's sequences hold.
    pub fn owned_by(&self, tenant: TenantId) -> u32 {
        self.tenants.get(&tenant).map_or(0, |usage| usage.owned)
    }

    /// How many blocks the sequence holds, of all groups together.
    pub fn held_by(&self, sequence: SequenceId) -> u32 {
        let holding = self.holdings.get(&sequence);
        holding.map_or(0, |holding| {
            holding.lists.iter().map(Vec::len).sum::<usize>() as u32
        })
    }

    /// Pool blocks (of all groups together) that hold `tokens` tokens of one sequence.
    pub fn needed_for(&self, tokens: u32) -> u32 {
        tokens.div_ceil(self.block_tokens) * self.groups.len() as u32
    }

    /// The longest sequence that the whole pool can hold.
    pub fn tokens_max(&self) -> u32 {
        (self.total() / self.groups.len() as u32).saturating_mul(self.block_tokens)
    }

    /// How much [`BlockTable::grow`] could give to the tenant.
    pub fn available(&self, tenant: TenantId, reach: Reach, now: Time) -> u32 {
        let evictable: u32 = self
            .tenants
            .iter()
            .map(|(owner, usage)| self.evictable(*owner, usage, tenant, reach, now))
            .sum();
        self.free() + evictable
    }

    /// The longest known prefix of a chain of block hashes.
    pub fn prefix(&self, tenant: TenantId, hashes: &[BlockHash]) -> PrefixHit {
        let mut hit = PrefixHit::default();
        for hash in hashes {
            let Some(found) = self.find(tenant, *hash) else {
                break;
            };
            hit.blocks += 1;
            hit.unheld += found.iter().filter(|block| self.is_cached(**block)).count() as u32;
        }
        hit
    }

    /// Opens the sequence's block list with blocks that are known already; all of `hashes` must have been found by
    /// [`BlockTable::prefix`] since the last change.
    pub fn hold_prefix(
        &mut self,
        sequence: SequenceId,
        tenant: TenantId,
        hashes: &[BlockHash],
        now: Time,
    ) -> Vec<(GroupId, BlockId)> {
        let mut lists = vec![Vec::new(); self.groups.len()];
        let mut held = Vec::new();
        for hash in hashes {
            let found = self.find(tenant, *hash).expect("hold_prefix after prefix");
            for (index, block) in found.into_iter().enumerate() {
                self.hold(block);
                lists[index].push(block);
                held.push((self.groups[index].group, block));
            }
        }
        self.tenants.entry(tenant).or_default().used_at = now;
        let before = self.holdings.insert(sequence, Holding { tenant, lists });
        assert!(before.is_none(), "sequence {sequence} holds blocks already");
        held
    }

    /// Makes the sequence's list long enough for `tokens` tokens in every group. All or nothing.
    pub fn grow(
        &mut self,
        sequence: SequenceId,
        tokens: u32,
        reach: Reach,
        now: Time,
    ) -> Result<Growth, Full> {
        let holding = self.holdings.get(&sequence).expect("grow after hold_prefix");
        let tenant = holding.tenant;
        let length = tokens.div_ceil(self.block_tokens) as usize;
        let missing: Vec<usize> = holding
            .lists
            .iter()
            .map(|list| length.saturating_sub(list.len()))
            .collect();
        let wanted = missing.iter().sum::<usize>() as u32;
        if wanted == 0 {
            return Ok(Growth::default());
        }
        if wanted > self.free() && wanted > self.available(tenant, reach, now) {
            return Err(Full);
        }
        let mut growth = Growth::default();
        for (index, count) in missing.into_iter().enumerate() {
            for _ in 0..count {
                self.give(sequence, tenant, index, reach, now, &mut growth);
            }
        }
        Ok(growth)
    }

    /// Block `index` of the sequence is full and computed, and this is its hash: others may share it from now on.
    pub fn name(&mut self, sequence: SequenceId, index: usize, hash: BlockHash) {
        let holding = self
            .holdings
            .get(&sequence)
            .expect("name of a sequence that holds blocks");
        for (spec, list) in self.groups.iter().zip(&holding.lists) {
            let name = Name {
                group: spec.group,
                tenant: holding.tenant,
                hash,
            };
            let block = list[index];
            let State::Owned {
                name: slot @ None, ..
            } = &mut self.blocks[block.0 as usize].state
            else {
                continue;
            };
            // The same content may have been computed twice at once; then the first keeps the name.
            if let Entry::Vacant(entry) = self.names.entry(name) {
                entry.insert(block);
                *slot = Some(name);
            }
        }
    }

    /// The sequence lets go of all its blocks. Named ones stay in the cache. Without effect if it holds none.
    pub fn release(&mut self, sequence: SequenceId, now: Time) {
        let Some(holding) = self.holdings.remove(&sequence) else {
            return;
        };
        self.tenants.entry(holding.tenant).or_default().used_at = now;
        let longest = holding.lists.iter().map(Vec::len).max().unwrap_or(0);
        // From the end: a block is of no use without those before it, so it must be evicted before them.
        for index in (0..longest).rev() {
            for list in &holding.lists {
                if let Some(block) = list.get(index) {
                    self.let_go(*block, holding.tenant);
                }
            }
        }
    }

    /// One block per group, or none.
    fn find(&self, tenant: TenantId, hash: BlockHash) -> Option<Vec<BlockId>> {
        self.groups
            .iter()
            .map(|spec| {
                self.names
                    .get(&Name {
                        group: spec.group,
                        tenant,
                        hash,
                    })
                    .copied()
            })
            .collect()
    }

    fn is_cached(&self, block: BlockId) -> bool {
        matches!(self.blocks[block.0 as usize].state, State::Cached { .. })
    }

    fn evictable(&self, owner: TenantId, usage: &Usage, tenant: TenantId, reach: Reach, now: Time) -> u32 {
        let cached = usage.cached.len() as u32;
        match reach {
            Reach::Everything => cached,
            Reach::Share if owner == tenant || !usage.has_claim(now) => cached,
            Reach::Share => cached.min(usage.blocks().saturating_sub(self.claim(now))),
        }
    }

    fn claim(&self, now: Time) -> u32 {
        let claimants = self.tenants.values().filter(|usage| usage.has_claim(now)).count() as u32;
        self.total() / (2 * claimants.max(1))
    }

    fn give(
        &mut self,
        sequence: SequenceId,
        tenant: TenantId,
        index: usize,
        reach: Reach,
        now: Time,
        growth: &mut Growth,
    ) {
        let block = self
            .free
            .pop()
            .unwrap_or_else(|| self.evict(tenant, reach, now).expect("availability was checked"));
        let entry = &mut self.blocks[block.0 as usize];
        if entry.tenant.replace(tenant).is_some_and(|last| last != tenant) {
            growth.zero.push(block);
        }
        entry.state = State::Owned {
            holders: 1,
            name: None,
        };
        growth.new_blocks.push((self.groups[index].group, block));
        let usage = self.tenants.entry(tenant).or_default();
        usage.owned += 1;
        usage.used_at = now;
        self.holdings
            .get_mut(&sequence)
            .expect("grow after hold_prefix")
            .lists[index]
            .push(block);
    }

    /// The block that was let go of longest ago, of those within reach.
    fn evict(&mut self, tenant: TenantId, reach: Reach, now: Time) -> Option<BlockId> {
        let (_, owner) = self
            .tenants
            .iter()
            .filter(|(owner, usage)| self.evictable(**owner, usage, tenant, reach, now) > 0)
            .filter_map(|(owner, usage)| usage.cached.keys().next().map(|released| (*released, *owner)))
            .min()?;
        let (_, block) = self.tenants.get_mut(&owner)?.cached.pop_first()?;
        let State::Cached { name, .. } = self.blocks[block.0 as usize].state else {
            panic!("block {block} is in a list of cached blocks and not cached");
        };
        self.names.remove(&name);
        Some(block)
    }

    fn hold(&mut self, block: BlockId) {
        let entry = &mut self.blocks[block.0 as usize];
        match entry.state {
            State::Owned { holders, name } => {
                entry.state = State::Owned {
                    holders: holders + 1,
                    name,
                }
            }
            State::Cached { name, released } => {
                entry.state = State::Owned {
                    holders: 1,
                    name: Some(name),
                };
                let usage = self.tenants.entry(name.tenant).or_default();
                usage.cached.remove(&released);
                usage.owned += 1;
            }
            State::Free => panic!("free block {block} has a name"),
        }
    }

    fn let_go(&mut self, block: BlockId, tenant: TenantId) {
        let entry = &mut self.blocks[block.0 as usize];
        let usage = self.tenants.entry(tenant).or_default();
        match entry.state {
            State::Owned { holders, name } if holders > 1 => {
                entry.state = State::Owned {
                    holders: holders - 1,
                    name,
                };
            }
            State::Owned { name: Some(name), .. } => {
                self.releases += 1;
                entry.state = State::Cached {
                    name,
                    released: self.releases,
                };
                usage.owned -= 1;
                usage.cached.insert(self.releases, block);
            }
            State::Owned { name: None, .. } => {
                entry.state = State::Free;
                usage.owned -= 1;
                self.free.push(block);
            }
            State::Cached { .. } | State::Free => panic!("block {block} was let go of and nobody held it"),
        }
    }
}
