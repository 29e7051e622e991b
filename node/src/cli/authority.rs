//! `cluster authority`.

use super::data_dir::DataDir;
use super::tell::tell;
use crate::control::{ControlRequest, client};
use clap::{Args, Subcommand};
use serde_json::json;

/// The authority that signs the certificates of nodes
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Authority {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    Rotate(Rotate),
}

const EXAMPLES: &str = "\
Examples:
  cluster authority rotate             # a new one signs; both are believed
  cluster authority rotate --finish    # when all nodes have renewed: the old one is believed no more
  cluster authority rotate --abandon   # back to the old one, as when the node that holds the new one is lost";

/// Let a new authority take over from the present one
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
struct Rotate {
    /// Believe the old one no more; refused while a node still shows a certificate of it
    #[arg(long)]
    finish: bool,
    /// Let the old one sign again, and believe the new one no more; refused while a node still shows a certificate of it.
    /// A node that is lost has to be removed before: `cluster node rm`
    #[arg(long, conflicts_with = "finish")]
    abandon: bool,
    #[command(flatten)]
    data_dir: DataDir,
    /// Print JSON: {"rotation": "begun"|"finished"|"abandoned"}
    #[arg(long)]
    json: bool,
}

impl Authority {
    pub fn run(self) -> anyhow::Result<()> {
        match self.what {
            What::Rotate(rotate) => rotate.run(),
        }
    }
}

impl Rotate {
    fn run(self) -> anyhow::Result<()> {
        let (request, name, words) = match (self.finish, self.abandon) {
            (false, false) => (
                ControlRequest::BeginRotation,
                "begun",
                "a new authority signs now, nodes renew their certificates, and join tokens that were made before are void; then: \
                 cluster authority rotate --finish",
            ),
            (true, _) => (
                ControlRequest::FinishRotation,
                "finished",
                "the old authority is believed no more",
            ),
            (false, true) => (
                ControlRequest::AbandonRotation,
                "abandoned",
                "the old authority signs again, and the new one is believed no more; join tokens of the new one are void",
            ),
        };
        let (): () = client::ask(&self.data_dir.folder()?, &request)?;
        if self.json {
            tell!("{}", json!({"rotation": name}));
        } else {
            tell!("{words}");
        }
        Ok(())
    }
}
