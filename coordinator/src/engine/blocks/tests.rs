use super::*;

const A: TenantId = TenantId(1);
const B: TenantId = TenantId(2);
const NOW: Time = Time(0);

fn table(blocks: u32) -> BlockTable {
    BlockTable::new(blocks, 4, vec![GroupSpec { group: GroupId(0) }])
}

fn hashes(range: std::ops::Range<u128>) -> Vec<BlockHash> {
    range.map(BlockHash).collect()
}

/// A sequence that computes blocks with these hashes and ends.
fn cache(table: &mut BlockTable, id: u64, tenant: TenantId, names: &[BlockHash]) {
    let sequence = SequenceId(id);
    table.hold_prefix(sequence, tenant, &[], NOW);
    table
        .grow(sequence, names.len() as u32 * 4, Reach::Share, NOW)
        .unwrap();
    names
        .iter()
        .enumerate()
        .for_each(|(index, hash)| table.name(sequence, index, *hash));
    table.release(sequence, NOW);
    table.check();
}

#[test]
fn only_computed_blocks_are_found_and_they_outlive_their_sequence() {
    let mut table = table(4);
    let chain = hashes(0..2);
    table.hold_prefix(SequenceId(1), A, &[], NOW);
    table.grow(SequenceId(1), 8, Reach::Share, NOW).unwrap();
    assert_eq!(table.prefix(A, &chain), PrefixHit::default());
    table.name(SequenceId(1), 0, chain[0]);
    assert_eq!(table.prefix(A, &chain), PrefixHit { blocks: 1, unheld: 0 });
    table.release(SequenceId(1), NOW);
    assert_eq!(table.prefix(A, &chain), PrefixHit { blocks: 1, unheld: 1 });
    assert_eq!((table.free(), table.cached()), (3, 1));
    table.check();
}

#[test]
fn another_tenant_never_hits_even_with_an_equal_hash() {
    let mut table = table(4);
    cache(&mut table, 1, A, &hashes(0..2));
    assert_eq!(table.prefix(B, &hashes(0..2)), PrefixHit::default());
}

#[test]
fn the_end_of_the_oldest_chain_is_evicted_first() {
    let mut table = table(4);
    cache(&mut table, 1, A, &hashes(0..2));
    cache(&mut table, 2, A, &hashes(10..12));
    table.hold_prefix(SequenceId(3), A, &[], NOW);
    table.grow(SequenceId(3), 4, Reach::Share, NOW).unwrap();
    assert_eq!(table.prefix(A, &hashes(0..2)).blocks, 1);
    assert_eq!(table.prefix(A, &hashes(10..12)).blocks, 2);
    table.check();
}

#[test]
fn a_block_that_crosses_tenants_is_zeroed_and_one_that_does_not_is_not() {
    let mut table = table(2);
    cache(&mut table, 1, A, &hashes(0..2));
    table.hold_prefix(SequenceId(2), A, &[], NOW);
    assert_eq!(
        table.grow(SequenceId(2), 8, Reach::Share, NOW).unwrap().zero,
        vec![]
    );
    table.release(SequenceId(2), NOW);
    table.hold_prefix(SequenceId(3), B, &[], NOW);
    assert_eq!(
        table
            .grow(SequenceId(3), 8, Reach::Share, NOW)
            .unwrap()
            .zero
            .len(),
        2
    );
}

#[test]
fn growth_leaves_another_tenant_its_claim_until_that_lapses() {
    let mut table = table(8);
    cache(&mut table, 1, A, &hashes(0..4));
    table.hold_prefix(SequenceId(2), B, &[], NOW);
    // Two claimants, so each claims 2 of 8 blocks; B gets the 4 free ones and A's 2 above its claim.
    assert_eq!(table.grow(SequenceId(2), 7 * 4, Reach::Share, NOW), Err(Full));
    assert_eq!(
        table.prefix(A, &hashes(0..4)).blocks,
        4,
        "a refused growth changes nothing"
    );
    table.grow(SequenceId(2), 6 * 4, Reach::Share, NOW).unwrap();
    assert_eq!(table.prefix(A, &hashes(0..4)).blocks, 2);
    let later = NOW + CLAIM_KEPT;
    table.grow(SequenceId(2), 7 * 4, Reach::Share, later).unwrap();
    table.check();
}

#[test]
fn everything_that_nobody_holds_is_within_the_reach_of_the_last_resort() {
    let mut table = table(4);
    cache(&mut table, 1, A, &hashes(0..4));
    table.hold_prefix(SequenceId(2), B, &[], NOW);
    table.grow(SequenceId(2), 16, Reach::Everything, NOW).unwrap();
    assert_eq!(table.grow(SequenceId(2), 17, Reach::Everything, NOW), Err(Full));
    table.check();
}

#[test]
fn every_group_has_its_own_list_and_a_hit_needs_all_of_them() {
    let groups = vec![GroupSpec { group: GroupId(0) }, GroupSpec { group: GroupId(1) }];
    let mut table = BlockTable::new(8, 4, groups);
    table.hold_prefix(SequenceId(1), A, &[], NOW);
    let growth = table.grow(SequenceId(1), 5, Reach::Share, NOW).unwrap();
    assert_eq!(
        growth
            .new_blocks
            .iter()
            .filter(|(group, _)| *group == GroupId(1))
            .count(),
        2
    );
    table.name(SequenceId(1), 0, BlockHash(7));
    assert_eq!(table.prefix(A, &[BlockHash(7)]).blocks, 1);
    table.release(SequenceId(1), NOW);
    // Evicting one block of the pair loses the hit.
    table.hold_prefix(SequenceId(2), A, &[], NOW);
    table.grow(SequenceId(2), 3 * 4, Reach::Share, NOW).unwrap();
    table.grow(SequenceId(2), 4 * 4, Reach::Share, NOW).unwrap();
    assert_eq!(table.prefix(A, &[BlockHash(7)]).blocks, 0);
    table.check();
}
