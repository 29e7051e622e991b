//! Who a node was that is being repaired: the member whose place the new one takes.
//!
//! A number alone proves nothing, since every cluster has a node 1, and an authority may have been replaced meanwhile. A key is
//! one node's for ever: whoever has it among a cluster's members is the one that this node was.

use crate::hex;
use crate::trust::SpkiHash;
use coordinator::cluster_state::ClusterState;
use proto::NodeId;

/// As far as it is known.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Former {
    pub node: Option<NodeId>,
    pub key: Option<SpkiHash>,
}

/// What the parts of a data folder say about whose it is. Each of them may be gone, or come from another folder.
#[derive(Clone, Copy, Default, Debug)]
pub struct Traces {
    pub certificate: Option<(NodeId, SpkiHash)>,
    pub key: Option<SpkiHash>,
    pub log: Option<NodeId>,
    /// Of the log's node, as the log says.
    pub log_key: Option<SpkiHash>,
}

impl Traces {
    /// Nobody, where they contradict each other: whoever is meant may run somewhere else.
    pub fn former(&self) -> Former {
        let node = self.certificate.map(|(node, _)| node);
        let key = self.certificate.map(|(_, key)| key);
        match (agreed([node, self.log]), agreed([key, self.key, self.log_key])) {
            (Ok(node), Ok(key)) => Former { node, key },
            (Err(Contradiction), _) | (_, Err(Contradiction)) => Former::default(),
        }
    }
}

struct Contradiction;

fn agreed<T: PartialEq + Copy, const N: usize>(said: [Option<T>; N]) -> Result<Option<T>, Contradiction> {
    let mut said = said.into_iter().flatten();
    let Some(first) = said.next() else {
        return Ok(None);
    };
    match said.all(|other| other == first) {
        true => Ok(Some(first)),
        false => Err(Contradiction),
    }
}

/// What the cluster that a repaired node has joined knows of the one that it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    Member(NodeId),
    /// It was removed, or belonged to another cluster.
    Unknown,
    /// Nothing says who it was.
    Untold,
}

impl Former {
    pub fn standing(&self, state: &ClusterState) -> Standing {
        let Some(key) = self.key else {
            return Standing::Untold;
        };
        let member = state.member_by_key(&key);
        member.map_or(Standing::Unknown, |member| Standing::Member(member.node))
    }

    /// What is kept after a repair began, where `before` was kept by an earlier one that has not come to its end. What that
    /// one left behind is a key of its own, which was nobody's yet.
    pub fn after(self, before: Option<Former>) -> Former {
        match before {
            Some(before) if self.node.is_none() => before,
            Some(_) | None => self,
        }
    }

    /// Its file. An earlier program wrote the hash of an authority in place of the key, or nothing at all.
    pub fn text(&self) -> String {
        let node = self
            .node
            .map_or_else(|| "-".to_owned(), |node| node.0.to_string());
        match self.key {
            Some(key) => format!("{node} key {}\n", hex::encode(&key)),
            None => format!("{node}\n"),
        }
    }

    /// See [`Former::text`].
    pub fn read(text: &str) -> Former {
        let mut words = text.split_whitespace();
        let node = words.next().and_then(|word| word.parse().ok()).map(NodeId);
        let key = match words.next() {
            Some("key") => words.next().and_then(hex::decode),
            Some(_) | None => None,
        };
        Former { node, key }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: SpkiHash = [7; 32];
    const OTHER_KEY: SpkiHash = [8; 32];
    const NODE: NodeId = NodeId(243);

    fn known() -> Former {
        Former {
            node: Some(NODE),
            key: Some(KEY),
        }
    }

    #[test]
    fn each_part_that_is_left_says_who_it_was() {
        let certificate = Traces {
            certificate: Some((NODE, KEY)),
            ..Traces::default()
        };
        assert_eq!(certificate.former(), known());
        let log = Traces {
            log: Some(NODE),
            log_key: Some(KEY),
            ..Traces::default()
        };
        assert_eq!(log.former(), known());
        let key = Traces {
            key: Some(KEY),
            ..Traces::default()
        };
        assert_eq!(key.former().key, Some(KEY));
        assert_eq!(Traces::default().former(), Former::default());
    }

    #[test]
    fn parts_of_several_nodes_say_nothing() {
        let whole = Traces {
            certificate: Some((NODE, KEY)),
            key: Some(KEY),
            log: Some(NODE),
            log_key: Some(KEY),
        };
        assert_eq!(whole.former(), known());
        let log = Some(NodeId(7));
        assert_eq!(Traces { log, ..whole }.former(), Former::default());
        let key = Some(OTHER_KEY);
        assert_eq!(Traces { key, ..whole }.former(), Former::default());
        let log_key = Some(OTHER_KEY);
        assert_eq!(Traces { log_key, ..whole }.former(), Former::default());
    }

    #[test]
    fn what_was_known_is_not_forgotten_by_a_later_try() {
        let nobody_yet = Former {
            node: None,
            key: Some(OTHER_KEY),
        };
        assert_eq!(nobody_yet.after(Some(known())), known());
        assert_eq!(nobody_yet.after(None), nobody_yet);
        let since = Former {
            node: Some(NodeId(300)),
            key: Some(OTHER_KEY),
        };
        assert_eq!(since.after(Some(known())), since);
    }

    #[test]
    fn its_file_reads_as_it_was_written() {
        let by_key = Former {
            node: None,
            key: Some(KEY),
        };
        let by_number = Former {
            node: Some(NODE),
            key: None,
        };
        for former in [known(), by_key, by_number, Former::default()] {
            assert_eq!(Former::read(&former.text()), former);
        }
        // Of an earlier program.
        let earlier = format!("243 {}", hex::encode(&KEY));
        assert_eq!(Former::read(&earlier), by_number);
        assert_eq!(Former::read(""), Former::default());
    }
}
