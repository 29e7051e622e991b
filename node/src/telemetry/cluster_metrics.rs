//! The page of numbers about agreement and the connections between nodes.

use crate::state::NodeState;
use crate::transport::LinkView;
use std::fmt::Write;

/// Prometheus text format.
pub fn page(state: &NodeState) -> String {
    let view = state.member.view();
    let mut page = String::new();
    let leads = view.leader == Some(state.node());
    let gauges = [
        ("raft_term", "The term that this node is in.", view.term as f64),
        (
            "raft_is_leader",
            "1 on the node that leads.",
            f64::from(u8::from(leads)),
        ),
        (
            "raft_has_leader",
            "1 while this node knows of a leader.",
            f64::from(u8::from(view.leader.is_some())),
        ),
        (
            "raft_last_index",
            "Index of the last entry in this node's log.",
            view.last_index as f64,
        ),
        (
            "raft_applied_index",
            "Index of the last entry that was applied.",
            view.applied_index as f64,
        ),
        ("raft_voters", "How many nodes vote.", view.voters.len() as f64),
        (
            "raft_in_trouble",
            "1 while this node cannot write its log or takes no part.",
            f64::from(u8::from(view.trouble.is_some())),
        ),
    ];
    for (name, help, value) in gauges {
        let _ = write!(
            page,
            "# HELP cluster_{name} {help}\n# TYPE cluster_{name} gauge\ncluster_{name} {value}\n"
        );
    }
    page.push_str(&links(&state.member.links.peers.links()));
    page
}

struct LinkMetric {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    value: fn(&LinkView) -> f64,
}

static LINK_METRICS: [LinkMetric; 4] = [
    LinkMetric {
        name: "link_round_trip_seconds",
        kind: "gauge",
        help: "Round trip to another node, as QUIC smooths it.",
        value: |link| link.round_trip.as_secs_f64(),
    },
    LinkMetric {
        name: "link_sent_bytes_total",
        kind: "counter",
        help: "Bytes sent in UDP datagrams.",
        value: |link| link.sent_bytes as f64,
    },
    LinkMetric {
        name: "link_received_bytes_total",
        kind: "counter",
        help: "Bytes received in UDP datagrams.",
        value: |link| link.received_bytes as f64,
    },
    LinkMetric {
        name: "link_lost_packets_total",
        kind: "counter",
        help: "Packets that were taken for lost.",
        value: |link| link.lost_packets as f64,
    },
];

fn links(links: &[LinkView]) -> String {
    let mut page = String::new();
    // A family without samples is of no use to anybody.
    if links.is_empty() {
        return page;
    }
    for metric in &LINK_METRICS {
        let name = metric.name;
        let _ = write!(
            page,
            "# HELP cluster_{name} {}\n# TYPE cluster_{name} {}\n",
            metric.help, metric.kind
        );
        for link in links {
            let (class, address) = (link.class.name(), link.address);
            let value = (metric.value)(link);
            let _ = writeln!(
                page,
                "cluster_{name}{{node=\"{}\",class=\"{class}\",address=\"{address}\"}} {value}",
                link.node
            );
        }
    }
    page
}
