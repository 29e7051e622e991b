//! Which replica: what one router knows of caches and loads, and what it makes of it.

mod story;

use coordinator::router::{RouterConfig, RouterEvent};
use proto::engine::Load;
use proto::request::{Finish, PrefixUse, Refusal, Ticket};
use proto::{BlockHash, Epoch, ReplicaId, Span};
use story::{Story, at, replicas_of, ticket};

/// A prompt of whole blocks and one token.
fn prompt(request: u128, chain: &[u128]) -> Ticket {
    Ticket {
        prompt_tokens: 16 * chain.len() as u32 + 1,
        block_hashes: chain.iter().map(|hash| BlockHash(*hash)).collect(),
        ..ticket(request, 0)
    }
}

fn serving(replicas: u32) -> Story {
    let mut story = Story::new(RouterConfig::default());
    (0..replicas).for_each(|replica| drop(story.up(replica, 1)));
    story
}

/// Where the prompt goes.
fn place(story: &mut Story, request: u128, chain: &[u128]) -> u32 {
    let sent = replicas_of(&story.arrive_with(vec![prompt(request, chain)]));
    assert_eq!(sent.len(), 1, "{sent:?}");
    sent[0]
}

/// It is served from beginning to end, and `cached_tokens` is what the replica says of it.
fn serve(story: &mut Story, request: u128, chain: &[u128], cached_tokens: u32) -> u32 {
    let replica = place(story, request, chain);
    let from = at(replica, 1, request, 0);
    story.deliver_cached(from, Some(0), Some(cached_tokens), Some(Finish::Stop));
    replica
}

/// 1 ms a token.
fn report(story: &mut Story, replica: u32, backlog_tokens: u64) {
    let load = Load {
        backlog_tokens,
        step_per_token_secs: 1e-3,
        ..Load::default()
    };
    story.event(RouterEvent::Load {
        replica: ReplicaId(replica),
        epoch: Epoch(1),
        load,
    });
}

#[test]
fn a_conversation_comes_back_to_the_replica_that_has_it_though_others_are_idle() {
    for conversation in 0..20_u128 {
        let mut story = serving(4);
        let chain = [conversation << 70, 1, 2, 3, 4];
        let home = serve(&mut story, 1, &chain[..3], 0);
        report(&mut story, home, 100);
        assert_eq!(place(&mut story, 2, &chain), home);
    }
}

#[test]
fn a_busy_holder_loses_once_computing_elsewhere_costs_less_and_then_there_are_two() {
    let chain = [7, 8, 9];
    let mut story = serving(2);
    let home = serve(&mut story, 1, &chain, 0);
    // It spares 48 tokens, which count four times.
    report(&mut story, home, 180);
    assert_eq!(serve(&mut story, 2, &chain, 48), home);
    report(&mut story, home, 200);
    let other = serve(&mut story, 3, &chain, 0);
    assert_ne!(other, home);
    report(&mut story, home, 20);
    report(&mut story, other, 0);
    assert_eq!(
        serve(&mut story, 4, &chain, 48),
        other,
        "both have it, and one is idle"
    );
}

#[test]
fn what_was_sent_since_the_last_report_is_added_to_what_others_have_there() {
    let chain = [7, 8, 9];
    let mut story = serving(2);
    let home = serve(&mut story, 1, &chain, 0);
    report(&mut story, 1 - home, 0);
    let load = Load {
        running: 1,
        step_per_token_secs: 1e-3,
        ..Load::default()
    };
    story.event(RouterEvent::Load {
        replica: ReplicaId(home),
        epoch: Epoch(1),
        load,
    });
    // One stream counts as 128 tokens, and the prefix spares four times 48.
    assert_eq!(place(&mut story, 2, &chain), home);
    assert_ne!(place(&mut story, 3, &chain), home, "there are two now");
}

#[test]
fn a_replica_that_was_lost_comes_back_with_nothing() {
    let chain = [7, 8, 9, 10, 11];
    let mut story = serving(2);
    let home = serve(&mut story, 1, &chain, 0);
    story.up(home, 2);
    let load = Load {
        backlog_tokens: 1,
        ..Load::default()
    };
    story.event(RouterEvent::Load {
        replica: ReplicaId(home),
        epoch: Epoch(2),
        load,
    });
    assert_ne!(place(&mut story, 2, &chain), home);
}

#[test]
fn a_hit_shorter_than_was_certain_means_that_older_prefixes_are_gone_too() {
    let (old, young, busy) = ([1, 2, 3, 4, 5], [6, 7, 8, 9, 10], 100);
    for (cached_tokens, is_kept) in [(80, true), (16, false)] {
        let mut story = serving(1);
        serve(&mut story, 1, &old, 0);
        serve(&mut story, 2, &young, 0);
        serve(&mut story, 3, &young, cached_tokens);
        story.up(1, 1);
        report(&mut story, 0, busy);
        assert_eq!(place(&mut story, 4, &old) == 0, is_kept, "{cached_tokens} cached");
        assert_eq!(place(&mut story, 5, &young), 0, "it was just computed");
    }
}

#[test]
fn a_prompt_that_must_be_computed_whole_says_nothing_about_the_cache() {
    let chain = [1, 2, 3, 4, 5];
    let mut story = serving(1);
    serve(&mut story, 1, &chain, 0);
    let scored = Ticket {
        prefix: PrefixUse::Recompute,
        ..prompt(2, &chain)
    };
    story.arrive_with(vec![scored]);
    story.deliver_cached(at(0, 1, 2, 0), Some(0), Some(0), Some(Finish::Stop));
    story.up(1, 1);
    report(&mut story, 0, 100);
    assert_eq!(place(&mut story, 3, &chain), 0);
}

#[test]
fn what_was_refused_or_expired_has_not_been_computed() {
    let chain = [1, 2, 3, 4, 5];
    let mut story = serving(1);
    place(&mut story, 1, &chain);
    story.deliver_cached(at(0, 1, 1, 0), None, Some(0), Some(Finish::Expired));
    place(&mut story, 2, &chain);
    let retry_after = Span::from_millis(1);
    story.refuse(at(0, 1, 2, 0), Refusal::Unavailable { retry_after });
    story.event(RouterEvent::ClientGone {
        request: proto::RequestId(2),
    });
    story.pass(retry_after);
    story.up(1, 1);
    report(&mut story, 0, 1);
    assert_eq!(place(&mut story, 3, &chain), 1, "idle, and nobody has it");
}

#[test]
fn a_system_prompt_that_all_share_does_not_draw_all_to_one_replica() {
    let mut story = serving(4);
    let mut counts = [0; 4];
    for request in 1..200_u128 {
        let own = request * 0x9e37_79b9_7f4a_7c15_1234;
        counts[place(&mut story, request, &[5, own]) as usize] += 1;
        (0..4).for_each(|replica| report(&mut story, replica, 0));
        if request % 2 == 0 {
            let gone = proto::RequestId(request - 1);
            story.event(RouterEvent::ClientGone { request: gone });
        }
    }
    assert!(counts.iter().all(|count| (25..75).contains(count)), "{counts:?}");
}

#[test]
fn gateways_that_never_heard_of_each_other_send_one_conversation_to_one_replica() {
    let system = 5;
    for conversation in 1..50_u128 {
        let own = conversation * 0x9e37_79b9_7f4a_7c15_1234;
        let gateway = |request: u128, chain: &[u128]| {
            let mut story = serving(4);
            // Each of them has seen the system prompt, with questions of its own.
            serve(&mut story, 99, &[system, 6], 0);
            (0..4).for_each(|replica| report(&mut story, replica, 1000));
            place(&mut story, request, chain)
        };
        let first_turn = gateway(1, &[system, own]);
        let second_turn = gateway(2, &[system, own, own + 1, own + 2]);
        assert_eq!(first_turn, second_turn);
    }
}

#[test]
fn what_is_remembered_is_bounded_and_shared_by_all_replicas() {
    let mut story = Story::new(RouterConfig {
        remembered_blocks_max: 6,
        ..RouterConfig::default()
    });
    (0..2).for_each(|replica| drop(story.up(replica, 1)));
    let home = serve(&mut story, 1, &[1, 2, 3, 4, 5], 0);
    report(&mut story, home, 180);
    // Three of the five are remembered: they spare 48 tokens, four times, but no more.
    assert_eq!(place(&mut story, 2, &[1, 2, 3, 4, 5]), home);
    let mut story = Story::new(RouterConfig {
        remembered_blocks_max: 0,
        ..RouterConfig::default()
    });
    (0..2).for_each(|replica| drop(story.up(replica, 1)));
    let home = serve(&mut story, 1, &[1, 2, 3, 4, 5], 0);
    report(&mut story, home, 1);
    assert_ne!(place(&mut story, 2, &[1, 2, 3, 4, 5]), home);
}
