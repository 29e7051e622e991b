use super::*;
use proptest::prelude::*;

fn request(sampling: Sampling, prompt: &[u32], output: &[u32]) -> SampleRequest {
    let counts = TokenCounts::new(&sampling, prompt, output);
    SampleRequest {
        sampling: Arc::new(sampling),
        counts: Arc::new(counts),
        choice: 0,
        position: Position(output.len() as u32),
        constraint: None,
    }
}

/// A grammar of which one position is known.
#[derive(Debug)]
struct Known(Mask);

impl Constraint for Known {
    fn mask(&self, _position: Position) -> Mask {
        self.0.clone()
    }

    fn accept(&self, _token: u32) {}
}

fn ready(allowed: &[u32], end: GrammarEnd) -> Mask {
    let word = allowed.iter().fold(0, |word, token| word | 1 << token);
    Mask::Ready(Arc::new(TokenMask::new(vec![word], end)))
}

fn choose_within(mask: Mask, sampling: Sampling, logits: &[f32]) -> SampledToken {
    let request = SampleRequest {
        constraint: Some(Arc::new(Known(mask))),
        ..request(sampling, &[], &[])
    };
    Sampler::default().choose(&request, logits)
}

fn greedy() -> Sampling {
    Sampling {
        temperature: 0.0,
        ..Sampling::default()
    }
}

fn choose(sampling: Sampling, prompt: &[u32], output: &[u32], logits: &[f32]) -> SampledToken {
    Sampler::default().choose(&request(sampling, prompt, output), logits)
}

/// Choices at many positions.
fn many(sampling: Sampling, logits: &[f32], count: u32) -> Vec<u32> {
    let mut sampler = Sampler::default();
    let mut request = request(sampling, &[], &[]);
    let choose = |position| {
        request.position = Position(position);
        sampler.choose(&request, logits).id
    };
    (0..count).map(choose).collect()
}

#[test]
fn greedy_takes_the_largest_and_of_equals_the_first() {
    assert_eq!(choose(greedy(), &[], &[], &[1.0, 3.0, 2.0, 3.0]).id, 1);
}

#[test]
fn one_logit_that_is_not_finite_breaks_the_sequence() {
    for broken in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        assert_eq!(
            choose(greedy(), &[], &[], &[0.0, broken]).verdict,
            Verdict::Broken
        );
    }
}

#[test]
fn a_stop_token_is_told_and_may_not_come_too_early() {
    let sampling = Sampling {
        stop_tokens: vec![1, 9999],
        min_tokens: 2,
        ..greedy()
    };
    let logits = [1.0, 3.0, 2.0];
    let early = choose(sampling.clone(), &[], &[0], &logits);
    assert_eq!((early.id, early.verdict), (2, Verdict::Continue));
    let late = choose(sampling, &[], &[0, 0], &logits);
    assert_eq!((late.id, late.verdict), (1, Verdict::Stop));
}

#[test]
fn a_grammar_forbids_and_the_scores_stay_those_of_the_raw_logits() {
    let sampling = Sampling {
        logprobs: Some(1),
        ..greedy()
    };
    let chosen = choose_within(ready(&[0, 2], GrammarEnd::NotYet), sampling, &[1.0, 3.0, 2.0]);
    let score = chosen.score.unwrap();
    assert_eq!((chosen.id, score.rank, score.top[0].0), (2, 1, 1));
}

#[test]
fn a_stop_token_may_be_chosen_where_the_grammar_may_end_or_asks_for_it() {
    let sampling = Sampling {
        stop_tokens: vec![1, 9999],
        ..greedy()
    };
    let logits = [1.0, 3.0, 2.0];
    let chosen = |mask, sampling: &Sampling| {
        let token = choose_within(mask, sampling.clone(), &logits);
        (token.verdict, token.id)
    };
    let within = ready(&[0, 2], GrammarEnd::NotYet);
    assert_eq!(chosen(within, &sampling), (Verdict::Continue, 2));
    let asks_for_it = ready(&[0, 1, 2], GrammarEnd::NotYet);
    assert_eq!(chosen(asks_for_it.clone(), &sampling), (Verdict::Stop, 1));
    let complete = ready(&[0], GrammarEnd::Allowed);
    assert_eq!(chosen(complete.clone(), &sampling), (Verdict::Stop, 1));
    let early = Sampling {
        min_tokens: 1,
        ..sampling.clone()
    };
    assert_eq!(chosen(complete, &early), (Verdict::Continue, 0));
    assert_eq!(chosen(asks_for_it, &early), (Verdict::Continue, 2));
    let over = ready(&[], GrammarEnd::Due);
    assert_eq!(
        chosen(over, &early).0,
        Verdict::Complete,
        "min_tokens asks for too much"
    );
    let only_a_stop = ready(&[1], GrammarEnd::NotYet);
    assert_eq!(chosen(only_a_stop.clone(), &sampling), (Verdict::Stop, 1));
    assert_eq!(
        chosen(only_a_stop, &early),
        (Verdict::Stop, 1),
        "min_tokens asks for too much"
    );
}

#[test]
fn a_mask_that_is_late_or_lost_chooses_nothing() {
    assert_eq!(choose_within(Mask::Late, greedy(), &[1.0]).verdict, Verdict::Wait);
    assert_eq!(
        choose_within(Mask::Failed, greedy(), &[1.0]).verdict,
        Verdict::Unguided
    );
}

#[test]
fn where_only_one_token_is_left_it_is_chosen_whatever_the_rest_asks_for() {
    let sampling = Sampling {
        logit_bias: vec![(2, -100.0)],
        ..Sampling::default()
    };
    let logits = [1.0, 3.0, f32::MIN];
    let chosen = choose_within(ready(&[2], GrammarEnd::NotYet), sampling, &logits);
    assert_eq!((chosen.id, chosen.verdict), (2, Verdict::Continue));
}

#[test]
fn penalties_look_where_they_should() {
    let logits = [2.0, 1.9, -1.0, 0.0];
    let repetition = Sampling {
        repetition_penalty: 2.0,
        ..greedy()
    };
    assert_eq!(choose(repetition.clone(), &[0], &[], &logits).id, 1);
    assert_eq!(choose(repetition, &[], &[0, 1], &logits).id, 0);
    let presence = Sampling {
        presence_penalty: 1.0,
        ..greedy()
    };
    assert_eq!(choose(presence.clone(), &[0], &[], &logits).id, 0);
    assert_eq!(choose(presence, &[], &[0], &logits).id, 1);
    let frequency = Sampling {
        frequency_penalty: 0.06,
        ..greedy()
    };
    assert_eq!(choose(frequency.clone(), &[0, 0], &[0], &logits).id, 0);
    assert_eq!(choose(frequency, &[], &[0, 0], &logits).id, 1);
}

#[test]
fn a_bias_moves_a_token_but_not_its_score() {
    let sampling = Sampling {
        logit_bias: vec![(0, 100.0), (9999, 1.0)],
        logprobs: Some(2),
        ..greedy()
    };
    let chosen = choose(sampling, &[], &[], &[0.0, 3.0, 2.0]);
    assert_eq!(chosen.id, 0);
    let score = chosen.score.unwrap();
    assert_eq!((score.rank, score.top[0].0), (2, 1));
    assert!(score.logprob < -3.0);
}

#[test]
fn the_same_dice_fall_the_same_and_another_choice_or_seed_differs() {
    let logits = [0.0; 1000];
    let seeded = |seed| Sampling {
        seed,
        ..Sampling::default()
    };
    let first = many(seeded(1), &logits, 20);
    assert_eq!(first, many(seeded(1), &logits, 20));
    assert_ne!(first, many(seeded(2), &logits, 20));
    let mut other = request(seeded(1), &[], &[]);
    other.choice = 1;
    assert_ne!(Sampler::default().choose(&other, &logits).id, first[0]);
}

#[test]
fn frequencies_follow_the_softmax_at_the_temperature() {
    let logits = [0.0, 1.0, 2.0, -1.0];
    let count = 20_000;
    for temperature in [0.5, 1.0, 2.0] {
        let weights = logits.map(|logit| f64::from(logit / temperature).exp());
        let total: f64 = weights.iter().sum();
        let chosen = many(
            Sampling {
                temperature,
                ..Sampling::default()
            },
            &logits,
            count,
        );
        for (token, weight) in (0..).zip(weights) {
            let share = chosen.iter().filter(|id| **id == token).count() as f64 / f64::from(count);
            assert!(
                (share - weight / total).abs() < 0.015,
                "{token} at {temperature}: {share}"
            );
        }
    }
}

/// The set that sorting everything would keep; `None` where rounding decides what is kept.
fn kept_by_sorting(sampling: &Sampling, logits: &[f32]) -> Option<Vec<u32>> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let weight = |id: &u32| f64::from((logits[*id as usize] - max) / sampling.temperature).exp();
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    order.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b)));
    if sampling.top_k > 0 {
        order.truncate(sampling.top_k as usize);
    }
    let min_p = f64::from(sampling.min_p);
    let mut close = order
        .iter()
        .any(|id| min_p > 0.0 && (weight(id) / min_p - 1.0).abs() < 1e-5);
    if sampling.top_p < 1.0 {
        let enough = f64::from(sampling.top_p) * order.iter().map(weight).sum::<f64>();
        let mut mass = 0.0;
        let masses = order.iter().map(|id| {
            mass += weight(id);
            mass
        });
        let masses: Vec<f64> = masses.collect();
        close |= masses.iter().any(|mass| (mass / enough - 1.0).abs() < 1e-5);
        let last = masses
            .iter()
            .position(|mass| *mass >= enough)
            .unwrap_or(order.len() - 1);
        order.truncate(last + 1);
    }
    order.retain(|id| weight(id) >= min_p);
    (!close).then_some(order)
}

proptest! {
    #[test]
    fn only_and_all_of_what_truncation_keeps_is_chosen(
        steps in prop::collection::hash_set(-4000i32..400, 2..60),
        top_k in prop_oneof![Just(0u32), 1u32..20],
        top_p in prop_oneof![Just(1.0f32), 0.05f32..0.99],
        min_p in prop_oneof![Just(0.0f32), 0.001f32..0.5],
        temperature in prop_oneof![Just(1.0f32), 0.3f32..20.0],
    ) {
        let logits: Vec<f32> = steps.iter().map(|step| *step as f32 * 0.0137).collect();
        let sampling = Sampling { top_k, top_p, min_p, temperature, ..Sampling::default() };
        prop_assume!(truncates(&sampling));
        let mut sampler = Sampler::default();
        sampler.choose(&request(sampling.clone(), &[], &[]), &logits);
let count = sampler.count_kept(&sampling);
        let mut kept: Vec<u32> = (0..count).map(|place| sampler.ladder.token(place)).collect();
        let expected = kept_by_sorting(&sampling, &logits);
        prop_assume!(expected.is_some());
        let mut expected = expected.unwrap();
        let weightless = |id: &u32| {
            let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            (logits[*id as usize] - max) / temperature <= -86.9
        };
        kept.retain(|id| !weightless(id));
        expected.retain(|id| !weightless(id));
        prop_assert_eq!(kept, expected);
    }

    #[test]
    fn whatever_is_asked_the_answer_is_a_token(
        bits in prop::collection::vec(any::<f32>(), 1..50),
        temperature in any::<f32>(), top_p in any::<f32>(), top_k in any::<u32>(), min_p in any::<f32>(),
        penalty in any::<f32>(), bias in any::<f32>(), seed in any::<u64>(),
    ) {
        let sampling = Sampling {
            seed, temperature, top_p, top_k, min_p,
            presence_penalty: penalty, frequency_penalty: penalty, repetition_penalty: penalty,
            logit_bias: vec![(0, bias)], logprobs: Some(3), ..Sampling::default()
        };
        let chosen = choose(sampling, &[0], &[0], &bits);
        prop_assert!((chosen.id as usize) < bits.len());
    }
}
