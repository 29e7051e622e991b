//! A cluster that serves the model, over as many stages as it has nodes.

use crate::pace::Pace;
use serde_json::Value;
use tests::{Fleet, Holds};

/// Of one node.
#[derive(Clone, Copy)]
pub struct Settings<'a> {
    pub words: &'a [&'a str],
    pub pace: &'a Pace,
}

impl<'a> From<&'a [&'a str]> for Settings<'a> {
    fn from(words: &'a [&'a str]) -> Settings<'a> {
        Settings {
            words,
            pace: &Pace::Whole,
        }
    }
}

pub struct Placed {
    pub fleet: Fleet,
    nodes: usize,
    /// What each stage takes of a step, in any unit, as it was planned.
    pub shares: Vec<f64>,
}

impl Placed {
    /// By the settings of its nodes.
    pub fn new(model: &str, nodes: &[Settings]) -> Placed {
        Placed::on(Placed::nodes(nodes), model, nodes.len())
    }

    /// Without a model.
    pub fn nodes(settings: &[Settings]) -> Fleet {
        let [founder, others @ ..] = settings else {
            panic!("at least one node")
        };
        let mut fleet = founder.pace.of(|| Fleet::found_as(Holds::Nothing, founder.words));
        for node in others {
            node.pace.of(|| fleet.join_as(Holds::Nothing, node.words));
        }
        fleet
    }

    /// Over all of so many nodes.
    pub fn on(fleet: Fleet, model: &str, nodes: usize) -> Placed {
        let named = format!("measured={model}");
        let plan = fleet.json(0, &["deploy", &named, "--dry-run"]);
        fleet.says(0, &["deploy", &named, "--timeout", "1800"]);
        let placed = Placed {
            fleet,
            nodes,
            shares: shares(&plan),
        };
        assert_eq!(placed.stages().len(), nodes, "{plan}");
        placed
    }

    /// What status says: where the stages are, and how what they did compares with what was predicted.
    pub fn tell(&self) {
        println!("{}", self.fleet.says(0, &["status"]));
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.fleet.node(0).address())
    }

    pub fn placement(&self) -> Value {
        self.fleet.json(0, &["status"])["deployments"][0]["placed"][0].clone()
    }

    pub fn stages(&self) -> Vec<Value> {
        self.placement()["stages"].as_array().cloned().unwrap_or_default()
    }

    /// Of each stage.
    pub fn layers(&self) -> Vec<u64> {
        let count = |stage: &Value| {
            let place = |name: &str| stage[name].as_u64().expect("a layer");
            place("layer_end") - place("layer_first")
        };
        self.stages().iter().map(count).collect()
    }

    /// Of whichever node tells it; 0 when none does.
    pub fn metric(&self, name: &str) -> f64 {
        self.labelled_metric(name, "")
    }

    pub fn labelled_metric(&self, name: &str, label: &str) -> f64 {
        let told = (0..self.nodes).map(|place| self.fleet.client(place).labelled_metric(name, label));
        told.fold(0.0, f64::max)
    }
}

/// The reasons of a plan say of each stage "… ms for 32 tokens".
fn shares(plan: &Value) -> Vec<f64> {
    let reasons = plan["reasons"].as_array().cloned().unwrap_or_default();
    let millis = |reason: &Value| {
        let (before, _) = reason.as_str()?.split_once(" ms for ")?;
        before.rsplit(' ').next()?.parse().ok()
    };
    reasons.iter().filter_map(millis).collect()
}
