//! How long a device takes for so much arithmetic, by the rates it has measured of itself.
//!
//! Of what it has not measured it is taken to be as slow as it is with the slowest of what it has: another format of weights
//! with as many terms, else any; another format of cache. A device that has measured no product at all never gets done;
//! attention that nobody measured takes no time.

use super::Device;
use super::sizes::nanoseconds;
use proto::cluster::{AttentionRates, KvCacheFormat, ProductKind, ProductRates};

const ATTOSECONDS: u64 = 1_000_000_000_000_000_000;

/// Whose rows attend to what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rows {
    /// Of one sequence.
    OfPrompt,
    /// Each of another sequence.
    OfStreams,
}

/// So many weights, multiplied with so many rows at once.
pub fn product_ns(device: &Device, kind: ProductKind, weights: u64, rows: u64) -> u64 {
    if weights == 0 || rows == 0 {
        return 0;
    }
    match attoseconds_per_weight(device, kind, rows) {
        Some(attoseconds) => {
            let elapsed = (u128::from(weights) * u128::from(attoseconds)).div_ceil(1_000_000_000);
            u64::try_from(elapsed).unwrap_or(u64::MAX)
        }
        None => u64::MAX,
    }
}

/// So many products of numbers of queries with those of keys, and of weights with those of values.
pub fn attention_ns(device: &Device, kv_cache: KvCacheFormat, rows: Rows, multiplications: u128) -> u64 {
    let rate = |rates: &AttentionRates| match rows {
        Rows::OfPrompt => rates.prompt_per_sec,
        Rows::OfStreams => rates.decode_per_sec,
    };
    let measured = &device.rates.attention;
    let same = measured.iter().find(|rates| rates.kv_cache == kv_cache).map(rate);
    match same.or_else(|| measured.iter().map(rate).min()) {
        Some(per_sec) => nanoseconds(multiplications, per_sec),
        None => 0,
    }
}

/// Between two numbers of rows that were measured time grows evenly, beyond the largest in proportion. `None`: it never
/// gets done.
fn attoseconds_per_weight(device: &Device, kind: ProductKind, rows: u64) -> Option<u64> {
    let measured = |of: fn(&ProductRates) -> u64| ATTOSECONDS.checked_div(rate(device, kind, of));
    let one = || measured(|rates| rates.with_1_row_per_sec);
    let some = || measured(|rates| rates.with_16_rows_per_sec);
    let many = || measured(|rates| rates.with_128_rows_per_sec);
    Some(match rows {
        0..=1 => one()?,
        2..=16 => between((1, one()?), (16, some()?), rows),
        17..=128 => between((16, some()?), (128, many()?), rows),
        _ => many()?.saturating_mul(rows) / 128,
    })
}

fn between(low: (u64, u64), high: (u64, u64), rows: u64) -> u64 {
    let part = |(_, time): (u64, u64), weight: u64| u128::from(time) * u128::from(weight);
    let sum = part(low, high.0 - rows) + part(high, rows - low.0);
    u64::try_from(sum / u128::from(high.0 - low.0)).unwrap_or(u64::MAX)
}

fn rate(device: &Device, kind: ProductKind, of: fn(&ProductRates) -> u64) -> u64 {
    let measured = &device.rates.products;
    let slowest = |is_like: &dyn Fn(&ProductKind) -> bool| {
        let like = measured.iter().filter(|rates| is_like(&rates.kind));
        like.map(of).min()
    };
    slowest(&|other| *other == kind)
        .or_else(|| slowest(&|other| other.inputs == kind.inputs))
        .or_else(|| slowest(&|_| true))
        .unwrap_or(0)
}
