use super::softmax::{finite_max, log_sum_exp};
use proto::engine::TokenScore;

/// The log-probability of `token` in the softmax of raw `logits`, its rank, and those of the `top` likeliest tokens.
///
/// Logits that are not finite have no distribution: the log-probability is minus infinity, and there is no top.
pub fn score(logits: &[f32], token: u32, top: u8) -> TokenScore {
    match finite_max(logits) {
        Some(max) => score_finite(logits, max, token, top),
        None => TokenScore {
            token,
            logprob: f32::NEG_INFINITY,
            rank: 0,
            top: Vec::new(),
        },
    }
}

pub(super) fn score_finite(logits: &[f32], max: f32, token: u32, top: u8) -> TokenScore {
    let norm = log_sum_exp(logits, max);
    // One expression for all, so that a token has the same f32 wherever it is shown.
    let logprob = |logit: f32| (f64::from(logit) - norm) as f32;
    let best = best(logits, top.into());
    TokenScore {
        token,
        logprob: logprob(logits[token as usize]),
        rank: rank(logits, token as usize),
        top: best
            .into_iter()
            .map(|(logit, token)| (token, logprob(logit)))
            .collect(),
    }
}

/// How many tokens come before it: larger logits, and equal ones of lower id.
fn rank(logits: &[f32], token: usize) -> u32 {
    let (before, after) = (&logits[..token], &logits[token + 1..]);
    let limit = logits[token];
    let before = before.iter().map(|logit| u32::from(*logit >= limit)).sum::<u32>();
    before + after.iter().map(|logit| u32::from(*logit > limit)).sum::<u32>()
}

/// The largest, best first, ties by lower id.
fn best(logits: &[f32], count: usize) -> Vec<(f32, u32)> {
    let mut best: Vec<(f32, u32)> = Vec::with_capacity(count + 1);
    if count == 0 {
        return best;
    }
    let mut worst = f32::NEG_INFINITY;
    for (token, logit) in logits.iter().enumerate() {
        if *logit <= worst {
            continue;
        }
        let place = best.partition_point(|(other, _)| other >= logit);
        best.insert(place, (*logit, token as u32));
        best.truncate(count);
        if best.len() == count {
            worst = best[count - 1].0;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn scores_are_those_of_a_full_sort(
            steps in prop::collection::vec(-40i32..40, 1..200), token in 0usize..200, top in 0u8..30,
        ) {
            let logits: Vec<f32> = steps.iter().map(|step| *step as f32 / 4.0).collect();
            let token = token % logits.len();
            let mut order: Vec<usize> = (0..logits.len()).collect();
            order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b)));
            let norm = logits.iter().map(|logit| f64::from(*logit).exp()).sum::<f64>().ln();

            let score = score(&logits, token as u32, top);
            prop_assert_eq!(score.rank as usize, order.iter().position(|other| *other == token).unwrap());
            prop_assert!((f64::from(score.logprob) - (f64::from(logits[token]) - norm)).abs() < 2e-6);
            let ids: Vec<usize> = score.top.iter().map(|(id, _)| *id as usize).collect();
            prop_assert_eq!(&ids[..], &order[..ids.len()]);
            prop_assert_eq!(ids.len(), logits.len().min(top.into()));
            for (id, logprob) in &score.top {
                if *id as usize == token {
                    prop_assert_eq!(logprob.to_bits(), score.logprob.to_bits());
                }
            }
        }
    }

    #[test]
    fn logits_that_are_not_finite_have_no_scores() {
        let score = score(&[0.0, f32::NAN], 0, 5);
        assert_eq!((score.logprob, score.top), (f32::NEG_INFINITY, Vec::new()));
    }
}
