use super::dice::Dice;
use super::model::Model;
use super::trace::step;
use super::{CACHE_BYTES, created, open};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_store_holds_what_a_plain_map_holds(seeds in prop::collection::vec(any::<u64>(), 1..40)) {
        let machine = created();
        let mut disk = open(&machine, CACHE_BYTES).unwrap();
        let mut model = Model::default();
        for seed in seeds {
            let mut dice = Dice::new(seed);
            let step = step(&model, &mut dice);
            disk.commit(&step).unwrap();
            model.apply(&step);
            prop_assert_eq!(disk.log(), model.log());
            let log = model.log();
            if !log.is_empty() {
                let start = log.start + dice.below(log.end - log.start);
                let end = start + 1 + dice.below(log.end - start);
                let due: Vec<Vec<u8>> = model.entries.range(start..end).map(|(_, entry)| entry.to_vec()).collect();
                prop_assert_eq!(disk.entries(start..end).unwrap(), due);
            }
            if dice.below(4) == 0 {
                drop(disk);
                disk = open(&machine, CACHE_BYTES).unwrap();
            }
            prop_assert_eq!(&Model::of(&mut disk).unwrap(), &model);
        }
    }
}
