//! What makes a node of its cluster the one that it is, apart from its log: all that has to be whole before it starts again.

use super::custody::Custody;
use super::folder::{DataFolder, Part};
use crate::shard_host::epochs::Epochs;
use crate::trust::{Bundle, Identity, TrustError};
use proto::NodeId;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

#[derive(thiserror::Error, Debug)]
pub enum PapersError {
    #[error(
        "{path} is damaged ({reason}): this node must not go on as node {node} with it. To repair it from the other nodes, start \
         it with --join and a token of theirs (`cluster token create`); if there are none, make a cluster of what its log \
         holds (`cluster recover`)"
    )]
    Damaged {
        path: PathBuf,
        reason: String,
        node: NodeId,
    },
    #[error(
        "in {folder} the log (raft/) is of node {log} and the certificate (identity/) of node {certificate}: one of them was put \
         here from another folder, and this node must not vote or lead as either. Put back what belongs here. Where that is \
         lost, start it with --join and a token of the other nodes (`cluster token create`): it joins as a new node, and the \
         one that it was is then removed with `cluster node rm`"
    )]
    OfAnother {
        folder: PathBuf,
        log: NodeId,
        certificate: NodeId,
    },
    #[error("{0}: see that the file can be read by whom the node runs as")]
    Unread(TrustError),
    #[error("{path}: {error}: see that the file can be read by whom the node runs as")]
    Epochs { path: PathBuf, error: io::Error },
}

impl PapersError {
    /// A new member may take the place of this one. A file that could not be read may be as it should be.
    pub fn is_damage(&self) -> bool {
        match self {
            PapersError::Damaged { .. } | PapersError::OfAnother { .. } => true,
            PapersError::Unread(_) | PapersError::Epochs { .. } => false,
        }
    }
}

/// Of a member, as its data folder holds them.
pub struct Papers {
    pub identity: Arc<Identity>,
    pub bundle: Arc<Bundle>,
    pub custody: Custody,
}

impl Papers {
    /// Of the node whose log lies beside them.
    pub fn read(folder: &DataFolder, node: NodeId) -> Result<Papers, PapersError> {
        let bad = |error| of_trust(error, node);
        let identity = Identity::load(&folder.key(), &folder.chain()).map_err(bad)?;
        let papers = Papers {
            identity: Arc::new(identity),
            bundle: Arc::new(Bundle::load(&folder.authorities()).map_err(bad)?),
            custody: Custody::load(folder).map_err(bad)?,
        };
        papers.are_of(folder, node)?;
        look_at_epochs(folder, node)?;
        Ok(papers)
    }

    fn are_of(&self, folder: &DataFolder, node: NodeId) -> Result<(), PapersError> {
        let may_sign = self.custody.first_of(&self.bundle.authorities()).is_some();
        match self.identity.node() {
            Some(certificate) if certificate != node => Err(PapersError::OfAnother {
                folder: folder.path().to_owned(),
                log: node,
                certificate,
            }),
            // It makes itself another.
            Some(_) | None if may_sign => Ok(()),
            None => Err(PapersError::Damaged {
                path: folder.chain(),
                reason: "there is no certificate, and nobody listens to this node without one".to_owned(),
                node,
            }),
            Some(_) if self.identity.signed_by(&self.bundle.authorities()).is_none() => {
                Err(PapersError::Damaged {
                    path: folder.chain(),
                    reason: "nobody whom this node believes has signed its certificate, so no other node believes it"
                        .to_owned(),
                    node,
                })
            }
            Some(_) => Ok(()),
        }
    }
}

/// Those that would be in the way of a new member too.
pub fn damaged_parts(folder: &DataFolder) -> Vec<Part> {
    let authority = Custody::load(folder).is_err_and(|error| matches!(error, TrustError::File { .. }));
    let epochs = Epochs::open(folder.epochs()).is_err_and(|error| error.kind() == io::ErrorKind::InvalidData);
    let parts = [(authority, Part::Authority), (epochs, Part::Epochs)];
    let damaged = parts.into_iter().filter(|(is_damaged, _)| *is_damaged);
    damaged.map(|(_, part)| part).collect()
}

fn look_at_epochs(folder: &DataFolder, node: NodeId) -> Result<(), PapersError> {
    let path = folder.epochs();
    let Err(error) = Epochs::open(path.clone()) else {
        return Ok(());
    };
    Err(match error.kind() {
        io::ErrorKind::InvalidData => PapersError::Damaged {
            path,
            reason: error.to_string(),
            node,
        },
        _ => PapersError::Epochs { path, error },
    })
}

/// All that these files hold comes with their names.
fn of_trust(error: TrustError, node: NodeId) -> PapersError {
    match error {
        TrustError::File { path, reason } => PapersError::Damaged { path, reason, node },
        error @ (TrustError::Io { .. }
        | TrustError::Certificate(_)
        | TrustError::Request(_)
        | TrustError::Key(_)
        | TrustError::Bundle(_)) => PapersError::Unread(error),
    }
}
