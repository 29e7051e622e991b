//! The same nodes in the same order, with the layers between them cut anew by what they have computed.

use super::Device;
use super::cut::{self, Part};
use super::forecast::Forecast;
use super::sizes::{Room, Sizes};
use proto::Span;
use proto::cluster::{ModelShape, Placement, StagePlace};

/// The slowest stage has to become faster by this at least: a new cut costs every stream a pause. No cut that work has been seen
/// under for long enough is further from the best.
const WORTH_PERCENT: u128 = 10;

/// `devices`: of each stage, in their order. `computed`: how long each stage computed for the same plans. The replica keeps its
/// room for cache and steps.
///
/// A device's rates were measured once, maybe in a bad moment, and without what else runs there now. What counts here is by
/// how much a stage's part of the computing differs from the part that was foreseen for it; what all of them need together
/// stays as it was foreseen. `None`: the cut that there is comes close enough to the best.
pub fn cut_again(
    shape: &ModelShape,
    devices: &[Device],
    placement: &Placement,
    computed: &[Span],
) -> Option<Placement> {
    let placed = &placement.stages;
    assert!(placed.len() == devices.len() && placed.len() == computed.len());
    let room = Room {
        blocks: placement.blocks,
        step_tokens_max: placement.step_tokens_max,
    };
    let sizes = Sizes::new(shape, placed.first()?.ranks).with_room(room);
    let paced = paced(&sizes, devices, placed, computed)?;
    let order: Vec<&Device> = paced.iter().collect();
    let before: Vec<Part<'_>> = paced
        .iter()
        .zip(placed)
        .map(|(device, stage)| Part {
            device,
            layers: stage.layer_first..stage.layer_end,
        })
        .collect();
    let before_ns = u128::from(cut::slowest_ns(&sizes, &before));
    let after = cut::fastest_of(&sizes, &order, before);
    let after_ns = u128::from(cut::slowest_ns(&sizes, &after));
    let is_worth_it = after_ns * 100 <= before_ns * (100 - WORTH_PERCENT);
    (is_worth_it && after.len() == placed.len()).then(|| Placement {
        stages: super::stages(&sizes, &after, room),
        predicted: Forecast::new(&sizes, &after).prediction(),
        ..placement.clone()
    })
}

/// Each device as fast as it was beside the others. `None`: one has computed nothing.
fn paced(
    sizes: &Sizes<'_>,
    devices: &[Device],
    placed: &[StagePlace],
    computed: &[Span],
) -> Option<Vec<Device>> {
    let foreseen = |(device, stage): (&Device, &StagePlace)| {
        let layers = stage.layer_first..stage.layer_end;
        cut::mixed_ns(sizes, device, &layers)
    };
    let foreseen: Vec<u64> = devices.iter().zip(placed).map(foreseen).collect();
    let foreseen_sum: u128 = foreseen.iter().copied().map(u128::from).sum();
    let computed_sum: u128 = computed.iter().map(|span| u128::from(span.0)).sum();
    let pace = |(device, (foreseen, computed)): (&Device, (&u64, &Span))| {
        let scaled = |rate: u64| {
            // At the most 2⁶⁴ · 2⁶⁴: shares in parts of a million keep the product within that.
            let foreseen_share = u128::from(*foreseen) * 1_000_000 / foreseen_sum.max(1);
            let computed_share = u128::from(computed.0) * 1_000_000 / computed_sum.max(1);
            let scaled = u128::from(rate) * foreseen_share / computed_share.max(1);
            u64::try_from(scaled).unwrap_or(u64::MAX)
        };
        (computed.0 > 0).then(|| device.with_rates(scaled))
    };
    devices
        .iter()
        .zip(foreseen.iter().zip(computed))
        .map(pace)
        .collect()
}
