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
            "1 while this node cannot write its log, takes no part, or leads a node that was set back.",
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

/// Of several connections between the same two ends one is made: after a restart there may be one that was dialled and some
/// that were accepted. The newest is the one in use, and says how long the way is.
fn merged(links: &[LinkView]) -> Vec<LinkView> {
    let mut merged: Vec<LinkView> = Vec::new();
    for link in links {
        let same = |known: &&mut LinkView| {
            (known.node, known.class, known.address) == (link.node, link.class, link.address)
        };
        match merged.iter_mut().find(same) {
            Some(known) => {
                known.round_trip = link.round_trip;
                known.sent_bytes += link.sent_bytes;
                known.received_bytes += link.received_bytes;
                known.lost_packets += link.lost_packets;
            }
            None => merged.push(link.clone()),
        }
    }
    merged
}

fn links(links: &[LinkView]) -> String {
    let mut page = String::new();
    let links = merged(links);
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
        for link in &links {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::{Class, Side};
    use proto::NodeId;
    use std::collections::BTreeSet;
    use std::time::Duration;

    fn link(node: u64, side: Side, bytes: u64) -> LinkView {
        LinkView {
            node: NodeId(node),
            class: Class::Control,
            side,
            address: "10.0.0.1:8001".parse().unwrap(),
            round_trip: Duration::from_millis(bytes),
            age: Duration::ZERO,
            sent_bytes: bytes,
            received_bytes: 2 * bytes,
            lost_packets: 1,
            sent_packets: 1,
            packet_bytes: 1452,
        }
    }

    #[test]
    fn several_connections_to_one_node_are_one_series() {
        let both = [
            link(7, Side::Opener, 100),
            link(7, Side::Acceptor, 20),
            link(9, Side::Acceptor, 3),
        ];
        let page = links(&both);
        let series = page.lines().filter(|line| !line.starts_with('#'));
        let names: Vec<&str> = series.map(|line| line.rsplit_once(' ').unwrap().0).collect();
        assert_eq!(names.len(), names.iter().collect::<BTreeSet<_>>().len(), "{page}");
        let ends = "{node=\"7\",class=\"control\",address=\"10.0.0.1:8001\"}";
        for line in [
            format!("cluster_link_sent_bytes_total{ends} 120"),
            format!("cluster_link_received_bytes_total{ends} 240"),
            format!("cluster_link_lost_packets_total{ends} 2"),
            format!("cluster_link_round_trip_seconds{ends} 0.02"),
        ] {
            assert!(page.contains(&line), "{line} in {page}");
        }
    }
}
