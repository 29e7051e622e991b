//! Events in, actions out.

mod story;

use coordinator::Machine;
use coordinator::router::{RouterAction, RouterConfig, RouterEvent};
use proto::engine::Load;
use proto::request::{Finish, PrefixUse, Refusal, Ticket};
use proto::{Attempt, BlockHash, Epoch, ReplicaId, RequestId, Span, TenantId, Time};
use std::collections::BTreeSet;
use story::{Story, at, released, replicas_of, resumed, sent, stream, ticket};

#[test]
fn a_request_is_sent_delivered_and_ended() {
    let mut story = Story::serving();
    assert_eq!(story.arrive(1, 1), [sent(0, 1, ticket(1, 0))]);
    assert_eq!(
        story.deliver(at(0, 1, 1, 0), Some(0), None),
        [released(1, Some(0), None)]
    );
    let end = Some(Finish::Stop);
    assert_eq!(
        story.deliver(at(0, 1, 1, 0), Some(1), end),
        [released(1, Some(1), end)]
    );
    assert_eq!(story.router.streams(), 0);
    assert_eq!(story.deliver(at(0, 1, 1, 0), Some(2), None), []);
}

#[test]
fn a_repeat_is_dropped_and_a_gap_ends_the_attempt() {
    let mut story = Story::serving();
    story.arrive(1, 1);
    story.deliver(at(0, 1, 1, 0), Some(0), None);
    assert_eq!(story.deliver(at(0, 1, 1, 0), Some(0), None), []);
    let cancel = RouterAction::Cancel {
        replica: ReplicaId(0),
        epoch: Epoch(1),
        stream: stream(1, 0),
        attempt: Attempt(0),
    };
    assert_eq!(
        story.deliver(at(0, 1, 1, 0), Some(2), None),
        [cancel, sent(0, 1, resumed(1, 1, 1))]
    );
    assert_eq!(
        story.deliver(at(0, 1, 1, 0), Some(1), None),
        [],
        "the old attempt is not heard"
    );
    assert_eq!(
        story.deliver(at(0, 1, 1, 1), Some(1), None),
        [released(1, Some(1), None)]
    );
}

#[test]
fn after_a_loss_the_stream_continues_elsewhere_from_what_was_delivered() {
    let mut story = Story::serving();
    story.arrive(1, 1);
    story.up(1, 1);
    story.deliver(at(0, 1, 1, 0), Some(0), None);
    story.deliver(at(0, 1, 1, 0), Some(1), None);
    assert_eq!(story.down(0, 1), [sent(1, 1, resumed(1, 1, 2))]);
    assert_eq!(
        story.deliver(at(0, 1, 1, 0), Some(2), None),
        [],
        "a dead replica is not heard"
    );
    assert_eq!(
        story.deliver(at(1, 1, 1, 1), Some(2), None),
        [released(1, Some(2), None)]
    );
}

#[test]
fn a_replica_that_returns_in_a_new_epoch_gets_the_streams_of_its_old_one() {
    let mut story = Story::serving();
    story.arrive(1, 1);
    assert_eq!(story.up(0, 2), [sent(0, 2, resumed(1, 1, 0))]);
    assert_eq!(story.deliver(at(0, 1, 1, 1), Some(0), None), [], "old epoch");
    assert_eq!(story.up(0, 1), [], "an old announcement");
    assert_eq!(story.down(0, 1), [], "an old farewell");
}

#[test]
fn without_a_replica_an_admitted_stream_waits_a_bounded_time() {
    let mut story = Story::serving();
    story.arrive(1, 1);
    story.now = Time::ZERO + Span::from_secs(100);
    assert_eq!(story.down(0, 1), []);
    assert_eq!(story.router.deadline(), Some(Time::ZERO + Span::from_secs(130)));
    assert_eq!(story.pass(Span::from_secs(29)), []);
    let refusal = Refusal::Unavailable {
        retry_after: Span::from_secs(5),
    };
    assert_eq!(
        story.pass(Span::from_secs(1)),
        [RouterAction::Abandon {
            stream: stream(1, 0),
            refusal: refusal.clone()
        }]
    );
    assert_eq!(
        story.arrive(2, 1),
        [RouterAction::Refuse {
            request: RequestId(2),
            refusal
        }]
    );
}

#[test]
fn a_stream_whose_replicas_keep_dying_is_given_up() {
    let mut story = Story::serving();
    story.arrive(1, 1);
    for epoch in 2..6 {
        assert_eq!(story.up(0, epoch).len(), 1);
    }
    let last = story.down(0, 5);
    assert!(
        matches!(last.as_slice(), [RouterAction::Abandon { .. }]),
        "{last:?}"
    );
}

#[test]
fn losses_between_which_a_stream_gets_on_do_not_add_up() {
    let mut story = Story::new(RouterConfig {
        attempts_max: 2,
        ..RouterConfig::default()
    });
    story.up(0, 1);
    story.arrive(1, 1);
    for loss in 0..3 {
        let epoch = u64::from(loss) + 1;
        let next = [released(1, Some(loss), None)];
        assert_eq!(story.deliver(at(0, epoch, 1, loss), Some(loss), None), next);
        let again = [sent(0, epoch + 1, resumed(1, loss + 1, loss + 1))];
        assert_eq!(story.up(0, epoch + 1), again);
    }
    let last = story.down(0, 4);
    assert!(
        matches!(last.as_slice(), [RouterAction::Abandon { .. }]),
        "the second in a row without a token: {last:?}"
    );
}

#[test]
fn a_request_is_admitted_or_refused_as_a_whole() {
    let mut story = Story::new(RouterConfig {
        streams_max: 3,
        ..RouterConfig::default()
    });
    story.up(0, 1);
    assert_eq!(story.arrive(1, 2).len(), 2);
    let load = Load {
        running: 64,
        waiting: 64,
        step_fixed_secs: 0.5,
        ..Load::default()
    };
    story.event(RouterEvent::Load {
        replica: ReplicaId(0),
        epoch: Epoch(1),
        load,
    });
    // Two rounds of as many answers as run, with the 5 tokens that the streams may have, of half a second each.
    let refusal = Refusal::Busy {
        retry_after: Span::from_secs(5),
    };
    assert_eq!(
        story.arrive(2, 2),
        [RouterAction::Refuse {
            request: RequestId(2),
            refusal
        }]
    );
    assert_eq!(story.arrive(3, 1).len(), 1);
}

#[test]
fn one_tenant_cannot_fill_the_queue_for_all() {
    let mut story = Story::new(RouterConfig {
        streams_per_tenant_max: 2,
        ..RouterConfig::default()
    });
    story.up(0, 1);
    story.arrive(1, 2);
    assert!(matches!(
        story.arrive(2, 1).as_slice(),
        [RouterAction::Refuse { .. }]
    ));
    let other = Ticket {
        tenant: TenantId(2),
        ..ticket(3, 0)
    };
    assert_eq!(story.arrive_with(vec![other]).len(), 1);
}

#[test]
fn prompt_tokens_that_nobody_began_to_answer_are_bounded() {
    let mut story = Story::new(RouterConfig {
        prompt_tokens_max: 25,
        ..RouterConfig::default()
    });
    story.up(0, 1);
    story.arrive(1, 2);
    assert!(matches!(
        story.arrive(2, 1).as_slice(),
        [RouterAction::Refuse { .. }]
    ));
    story.deliver(at(0, 1, 1, 0), Some(0), None);
    assert_eq!(story.arrive(3, 1).len(), 1);
}

#[test]
fn what_fits_no_replica_and_what_is_asked_of_no_model_is_refused_at_arrival() {
    let mut story = Story::serving();
    let long = Ticket {
        prompt_tokens: 100,
        ..ticket(1, 0)
    };
    let refusal = Refusal::TooLong {
        tokens: 101,
        tokens_max: 100,
    };
    assert_eq!(
        story.arrive_with(vec![long]),
        [RouterAction::Refuse {
            request: RequestId(1),
            refusal
        }]
    );
    let other = RouterEvent::Arrived {
        request: RequestId(2),
        model: "x".into(),
        tickets: vec![ticket(2, 0)],
    };
    assert!(matches!(
        story.event(other).as_slice(),
        [RouterAction::Refuse {
            refusal: Refusal::Unavailable { .. },
            ..
        }]
    ));
}

#[test]
fn a_replica_never_has_more_unanswered_submits_than_its_credits() {
    let mut story = Story::new(RouterConfig {
        credits: 2,
        ..RouterConfig::default()
    });
    story.up(0, 1);
    assert_eq!(story.arrive(1, 3).len(), 2);
    let next = story.deliver(at(0, 1, 1, 0), Some(0), None);
    assert_eq!(next, [released(1, Some(0), None), sent(0, 1, ticket(1, 2))]);
}

#[test]
fn queued_streams_of_the_tenant_that_was_served_least_go_first() {
    let mut story = Story::new(RouterConfig {
        credits: 1,
        ..RouterConfig::default()
    });
    story.up(0, 1);
    story.arrive(1, 3);
    let other = Ticket {
        tenant: TenantId(2),
        ..ticket(2, 0)
    };
    story.arrive_with(vec![other.clone()]);
    story.deliver(at(0, 1, 1, 0), Some(0), None);
    let mut second = at(0, 1, 1, 0);
    second.stream.choice = 1;
    // Level at first, so age decides; from then on it is the other tenant's turn.
    assert_eq!(
        story.deliver(second, Some(0), None).last(),
        Some(&sent(0, 1, other))
    );
}

#[test]
fn a_busy_replica_rests_and_the_stream_goes_elsewhere_or_comes_back() {
    let mut story = Story::serving();
    story.arrive(1, 1);
    assert_eq!(
        story.refuse(
            at(0, 1, 1, 0),
            Refusal::Busy {
                retry_after: Span::from_millis(300)
            }
        ),
        []
    );
    assert_eq!(story.router.deadline(), Some(Time::ZERO + Span::from_millis(300)));
    assert_eq!(story.pass(Span::from_millis(300)), [sent(0, 1, resumed(1, 1, 0))]);
    story.up(1, 1);
    let elsewhere = story.refuse(
        at(0, 1, 1, 1),
        Refusal::Busy {
            retry_after: Span::from_millis(300),
        },
    );
    assert_eq!(elsewhere, [sent(1, 1, resumed(1, 2, 0))]);
    let refusal = Refusal::TooLong {
        tokens: 11,
        tokens_max: 5,
    };
    let last = story.refuse(at(1, 1, 1, 2), refusal.clone());
    assert_eq!(
        last,
        [RouterAction::Abandon {
            stream: stream(1, 0),
            refusal
        }]
    );
}

#[test]
fn a_draining_replica_finishes_what_it_has_and_gets_nothing_new() {
    let mut story = Story::serving();
    story.arrive(1, 1);
    story.deliver(at(0, 1, 1, 0), Some(0), None);
    story.arrive(2, 1);
    story.up(1, 1);
    assert_eq!(
        story.refuse(at(0, 1, 2, 0), Refusal::Draining),
        [sent(1, 1, resumed(2, 1, 0))]
    );
    assert_eq!(
        story.deliver(at(0, 1, 1, 0), Some(1), None),
        [released(1, Some(1), None)]
    );
    assert_eq!(replicas_of(&story.arrive(3, 1)), [1]);
}

#[test]
fn requests_with_one_prefix_go_to_one_replica_and_others_spread() {
    let mut story = Story::serving();
    (1..4).for_each(|replica| drop(story.up(replica, 1)));
    let with_prefix = |request: u128, prefix: u128| {
        vec![Ticket {
            prompt_tokens: 97,
            block_hashes: (prefix..prefix + 6).map(BlockHash).collect(),
            ..ticket(request, 0)
        }]
    };
    let same: BTreeSet<u32> = (1..4)
        .flat_map(|request| replicas_of(&story.arrive_with(with_prefix(request, 7))))
        .collect();
    assert_eq!(same.len(), 1);
    let plain: BTreeSet<u32> = (10..13)
        .flat_map(|request| replicas_of(&story.arrive(request, 1)))
        .collect();
    assert_eq!(plain.len(), 3, "the least loaded one each time");
}

#[test]
fn what_nobody_wants_any_more_is_cancelled() {
    let mut story = Story::serving();
    story.arrive(1, 2);
    let cancel = |choice| RouterAction::Cancel {
        replica: ReplicaId(0),
        epoch: Epoch(1),
        stream: stream(1, choice),
        attempt: Attempt(0),
    };
    assert_eq!(
        story.event(RouterEvent::Ended {
            stream: stream(1, 1),
            finish: Finish::Stop
        }),
        [cancel(1)]
    );
    assert_eq!(
        story.event(RouterEvent::ClientGone {
            request: RequestId(1)
        }),
        [cancel(0)]
    );
    assert_eq!(story.deliver(at(0, 1, 1, 0), None, Some(Finish::Cancelled)), []);
}

#[test]
fn a_queued_stream_expires_at_its_deadline() {
    let mut story = Story::new(RouterConfig {
        credits: 1,
        ..RouterConfig::default()
    });
    story.up(0, 1);
    story.arrive(1, 1);
    let deadline = Some(Time::ZERO + Span::from_secs(2));
    story.arrive_with(vec![Ticket {
        deadline,
        ..ticket(2, 0)
    }]);
    assert_eq!(story.router.deadline(), deadline);
    assert_eq!(
        story.pass(Span::from_secs(2)),
        [released(2, None, Some(Finish::Expired))]
    );
}

#[test]
fn draining_ends_when_the_last_stream_does() {
    let mut story = Story::serving();
    story.arrive(1, 1);
    assert_eq!(story.event(RouterEvent::Drain), []);
    let refusal = Refusal::Draining;
    assert_eq!(
        story.arrive(2, 1),
        [RouterAction::Refuse {
            request: RequestId(2),
            refusal
        }]
    );
    let end = Some(Finish::Length);
    assert_eq!(
        story.deliver(at(0, 1, 1, 0), Some(0), end),
        [released(1, Some(0), end), RouterAction::Drained]
    );
}

#[test]
fn scores_are_computed_once_and_a_later_attempt_may_use_the_cache() {
    let mut story = Story::serving();
    let scored = Ticket {
        prefix: PrefixUse::Recompute,
        ..ticket(1, 0)
    };
    story.arrive_with(vec![scored.clone()]);
    assert_eq!(
        story.up(0, 2),
        [sent(
            0,
            2,
            Ticket {
                attempt: Attempt(1),
                ..scored
            }
        )]
    );
    story.deliver(at(0, 2, 1, 1), Some(0), None);
    assert_eq!(story.up(0, 3), [sent(0, 3, resumed(1, 2, 1))]);
}
