//! Which server a command sends requests to: one that is named, or the node of this host.

use super::data_dir::DataDir;
use crate::client::channel::Trust;
use crate::client::endpoint::Endpoint;
use crate::control::report::Access;
use crate::control::{ControlRequest, client};
use anyhow::{Context, bail};
use clap::Args;
use std::path::PathBuf;

#[derive(Args, Debug)]
pub struct Server {
    /// Any OpenAI-compatible server [default: the node of this host, which then needs no key]
    #[arg(long, visible_alias = "node", value_name = "URL", env = "CLUSTER_URL")]
    url: Option<String>,
    /// API key, sent as a bearer token [default: CLUSTER_KEY of the environment, to a server that --url names]
    #[arg(long)]
    key: Option<String>,
    /// PEM file with the certificates to believe, for https:// and servers that no public authority knows
    #[arg(long, value_name = "FILE", env = "CLUSTER_CA")]
    ca: Option<PathBuf>,
    #[command(flatten)]
    data_dir: DataDir,
}

impl Server {
    pub fn endpoint(&self) -> anyhow::Result<Endpoint> {
        if let Some(url) = &self.url {
            let trust = self.ca.as_deref().map_or(Trust::Public, Trust::File);
            let key = self.key.clone().or_else(key_of_environment);
            return Endpoint::parse(url, key, trust).context("--url");
        }
        let access: Access = client::ask(&self.data_dir.folder()?, &ControlRequest::OpenAccess)
            .context("neither --url nor a node of this host")?;
        // The node says itself which certificate is its own, and gives a key. That of the environment may be another node's, or
        // revoked.
        let ca = self.ca.as_deref().or(access.certificate.as_deref());
        let trust = ca.map_or(Trust::Public, Trust::File);
        Endpoint::parse(&access.url, self.key.clone().or(Some(access.key)), trust)
    }

    /// Where typed lines are kept; `None` where that cannot be known.
    pub fn chat_history(&self) -> Option<PathBuf> {
        let folder = self.data_dir.folder().ok()?;
        folder.is_dir().then(|| folder.join("chat_history"))
    }
}

fn key_of_environment() -> Option<String> {
    std::env::var("CLUSTER_KEY").ok().filter(|key| !key.is_empty())
}

/// The names under which the server offers models, at least one.
pub async fn model_names(endpoint: &Endpoint) -> anyhow::Result<Vec<String>> {
    let answer = endpoint.get("/v1/models").await?;
    let listed = answer["data"].as_array().into_iter().flatten();
    let names: Vec<String> = listed
        .filter_map(|model| Some(model["id"].as_str()?.to_owned()))
        .collect();
    if names.is_empty() {
        bail!("the server offers no model yet: `cluster status` tells whether one is loading");
    }
    Ok(names)
}
