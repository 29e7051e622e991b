//! `cluster deploy` and `cluster undeploy`.

use super::data_dir::DataDir;
use super::tell::tell;
use crate::control::report::{DeployReport, DeployStep};
use crate::control::{ControlRequest, client};
use crate::placement::deploy::DeployWish;
use crate::store::spec::{NamedSpec, Spec, may_be_a_name};
use anyhow::bail;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

const ASK_EVERY: Duration = Duration::from_millis(200);

const EXAMPLES: &str = "\
Examples:
  cluster deploy smollm2-135m --dry-run          # what would go where, and why
  cluster deploy hf:Qwen/Qwen2.5-7B-Instruct-GGUF:qwen2.5-7b-instruct-q8_0.gguf
  cluster deploy big=./model.gguf
  cluster deploy big --replicas 2                # a copy more of what is deployed
  cluster deploy big=./model.gguf --no-wait --json";

/// Serve a model on the nodes of this cluster that have room for it, over several of them where it is too big for one
///
/// The cluster says which layers go where. A model that has been deployed already gets the number of copies named here.
#[derive(Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Deploy {
    /// As for `cluster up --model`, or the name of a model that is deployed
    #[arg(value_name = "[NAME=]SPEC")]
    model: String,
    /// How many copies [default: as many as it is deployed with, or one]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    replicas: Option<u32>,
    /// Tensor parallel ranks inside each node [default: as it is deployed, or --tp of the node that is asked]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    tp: Option<u32>,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Do not wait until it is served
    #[arg(long)]
    no_wait: bool,
    /// Wait so many seconds at most, then fail; a model that the node has read by then stays deployed [default: for ever]
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    #[command(flatten)]
    data_dir: DataDir,
    /// Print JSON: {"step": "planned"|"waiting"|"starting"|"serving", "reasons": […], "waits_for"}
    #[arg(long)]
    json: bool,
}

/// Serve a deployed model no more
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  cluster undeploy smollm2-135m")]
pub struct Undeploy {
    /// Its name
    model: String,
    #[command(flatten)]
    data_dir: DataDir,
    /// Print JSON: {"model", "deployed": false}
    #[arg(long)]
    json: bool,
}

impl Deploy {
    pub fn run(self) -> anyhow::Result<()> {
        let model = from_anywhere(&self.model)?;
        let wish = DeployWish {
            model,
            replicas: self.replicas,
            ranks: self.tp,
        };
        let request = match self.dry_run {
            true => ControlRequest::PlanModel(wish),
            false => ControlRequest::DeployModel(wish),
        };
        let folder = self.data_dir.folder()?;
        let mut teller = Teller::new();
        let began = Instant::now();
        let report = loop {
            let report: DeployReport = client::ask(&folder, &request)?;
            if self.is_enough(report.step) {
                break report;
            }
            teller.tell(in_words(&report));
            if self
                .timeout
                .is_some_and(|secs| began.elapsed() > Duration::from_secs(secs))
            {
                bail!("{}", too_late(&self.model, &report));
            }
            sleep(ASK_EVERY);
        };
        teller.bar.finish_and_clear();
        match self.json {
            true => tell!("{}", serde_json::to_string(&report)?),
            false => print(&report),
        }
        Ok(())
    }

    fn is_enough(&self, step: DeployStep) -> bool {
        match step {
            DeployStep::Reading | DeployStep::Measuring => false,
            DeployStep::Planned | DeployStep::Serving => true,
            DeployStep::Waiting | DeployStep::Starting => self.no_wait,
        }
    }
}

impl Undeploy {
    pub fn run(self) -> anyhow::Result<()> {
        let model = self.model;
        let request = ControlRequest::UndeployModel { model: model.clone() };
        let (): () = client::ask(&self.data_dir.folder()?, &request)?;
        match self.json {
            true => tell!("{}", json!({"model": model, "deployed": false})),
            false => tell!("{model} is deployed no more"),
        }
        Ok(())
    }
}

fn too_late(model: &str, report: &DeployReport) -> String {
    let words = in_words(report);
    match report.step {
        DeployStep::Reading | DeployStep::Measuring => {
            format!("{model} is not deployed: {words}; say it again with more time")
        }
        DeployStep::Waiting | DeployStep::Starting | DeployStep::Planned | DeployStep::Serving => {
            format!("{model} is not served yet: {words}; `cluster status` shows when it is")
        }
    }
}

/// The node has another working folder, and knows what is deployed.
fn from_anywhere(model: &str) -> anyhow::Result<String> {
    if may_be_a_name(model) {
        return Ok(model.to_owned());
    }
    let named: NamedSpec = model.parse()?;
    let spec = match named.spec {
        Spec::Path(path) => Spec::Path(std::path::absolute::<PathBuf>(path)?),
        spec @ (Spec::Hub { .. } | Spec::Pypi { .. } | Spec::Catalogue(_)) => spec,
    };
    Ok(format!("{}={spec}", named.name))
}

/// On a terminal a line that moves, elsewhere one for each thing that is new.
struct Teller {
    bar: ProgressBar,
    told: String,
}

impl Teller {
    fn new() -> Teller {
        Teller {
            bar: spinner(),
            told: String::new(),
        }
    }

    fn tell(&mut self, words: String) {
        if self.told == words {
            return;
        }
        if self.bar.is_hidden() {
            eprintln!("{words}");
        }
        self.bar.set_message(words.clone());
        self.told = words;
    }
}

fn spinner() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

fn in_words(report: &DeployReport) -> String {
    match (report.step, &report.waits_for) {
        (DeployStep::Reading, _) => "the node reads the model".to_owned(),
        (DeployStep::Measuring, _) => "new nodes measure what they can do".to_owned(),
        (DeployStep::Waiting, Some(reason)) => format!("waiting: {reason}"),
        (DeployStep::Waiting, None) => "waiting to be placed".to_owned(),
        (DeployStep::Starting, Some(reason)) => format!("placed; {reason}"),
        (DeployStep::Starting, None) => "placed; its stages load".to_owned(),
        (DeployStep::Planned, _) => "planned".to_owned(),
        (DeployStep::Serving, _) => "served".to_owned(),
    }
}

fn print(report: &DeployReport) {
    for reason in &report.reasons {
        tell!("{reason}");
    }
    if report.step != DeployStep::Planned {
        tell!("{}", in_words(report));
    }
}
