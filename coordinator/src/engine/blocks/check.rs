//! That no block is lost, shared by mistake or in two states at once.

use super::{BlockTable, State};

impl BlockTable {
    /// Asserts that every block is in exactly one state and that all counts agree.
    pub fn check(&self) {
        self.check_free();
        self.check_holders();
        self.check_names();
        self.check_usage();
    }

    fn check_free(&self) {
        let mut listed = vec![false; self.blocks.len()];
        for block in &self.free {
            let before = std::mem::replace(&mut listed[block.0 as usize], true);
            assert!(!before, "block {block} is twice in the free list");
        }
        for (index, block) in self.blocks.iter().enumerate() {
            assert_eq!(
                block.state == State::Free,
                listed[index],
                "block {index} and the free list disagree"
            );
        }
    }

    fn check_holders(&self) {
        let mut holders = vec![0; self.blocks.len()];
        for (sequence, holding) in &self.holdings {
            for block in holding.lists.iter().flatten() {
                holders[block.0 as usize] += 1;
                let tenant = self.blocks[block.0 as usize].tenant;
                assert_eq!(
                    tenant,
                    Some(holding.tenant),
                    "sequence {sequence} holds another tenant's block"
                );
            }
        }
        for (index, block) in self.blocks.iter().enumerate() {
            let counted = match block.state {
                State::Owned { holders, .. } => holders,
                State::Free | State::Cached { .. } => 0,
            };
            assert_eq!(counted, holders[index], "holders of block {index}");
            assert!(
                counted < 2 || matches!(block.state, State::Owned { name: Some(_), .. }),
                "shared without a name"
            );
        }
    }

    fn check_names(&self) {
        for (name, block) in &self.names {
            match self.blocks[block.0 as usize].state {
                State::Owned { name: found, .. } => assert_eq!(found, Some(*name), "name of block {block}"),
                State::Cached { name: found, .. } => assert_eq!(found, *name, "name of block {block}"),
                State::Free => panic!("free block {block} has a name"),
            }
        }
        let named = self.blocks.iter().filter(|block| match block.state {
            State::Owned { name, .. } => name.is_some(),
            State::Cached { .. } => true,
            State::Free => false,
        });
        assert_eq!(
            named.count(),
            self.names.len(),
            "a named block is not in the index"
        );
    }

    fn check_usage(&self) {
        let (mut owned, mut cached) = (0, 0);
        for (tenant, usage) in &self.tenants {
            owned += usage.owned;
            cached += usage.cached.len();
            for (age, block) in &usage.cached {
                let state = self.blocks[block.0 as usize].state;
                assert!(
                    matches!(state, State::Cached { name, released } if name.tenant == *tenant && released == *age),
                    "block {block} is not cached for tenant {tenant}"
                );
            }
        }
        assert_eq!(
            owned as usize + cached + self.free.len(),
            self.blocks.len(),
            "blocks went missing"
        );
    }
}
