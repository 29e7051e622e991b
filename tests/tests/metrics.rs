//! The page of metrics, and the dashboard that reads it.

use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use tests::Node;

/// Names that dashboards and autoscalers made for vLLM read.
const ALIASES: [&str; 20] = [
    "vllm:cache_config_info",
    "vllm:lora_requests_info",
    "vllm:e2e_request_latency_seconds",
    "vllm:generation_tokens_total",
    "vllm:inter_token_latency_seconds",
    "vllm:iteration_tokens_total",
    "vllm:kv_cache_usage_perc",
    "vllm:num_preemptions_total",
    "vllm:num_requests_running",
    "vllm:num_requests_waiting",
    "vllm:prefix_cache_hits_total",
    "vllm:prefix_cache_queries_total",
    "vllm:prompt_tokens_total",
    "vllm:request_decode_time_seconds",
    "vllm:request_generation_tokens",
    "vllm:request_prefill_time_seconds",
    "vllm:request_prompt_tokens",
    "vllm:request_queue_time_seconds",
    "vllm:request_success_total",
    "vllm:time_to_first_token_seconds",
];

/// The page of a node that has answered whole and streamed requests and refused one.
fn page() -> Page {
    let node = Node::start();
    let client = node.client();
    client.complete(json!({"prompt": "One, two,", "max_tokens": 4, "ignore_eos": true}));
    let stream = client.stream("/v1/completions", json!({"prompt": "One, two,", "max_tokens": 4}));
    assert!(stream.count() > 0);
    assert_eq!(client.post("/v1/completions", &json!({})).status, 400);
    Page::parse(&client.get("/metrics").text)
}

#[test]
fn what_autoscalers_read_is_there_before_the_first_request() {
    let node = Node::start();
    let page = Page::parse(&node.client().get("/metrics").text);
    for alias in ALIASES {
        let family = page.0.get(alias);
        assert!(
            family.is_some_and(|family| !family.samples.is_empty()),
            "{alias} is missing"
        );
    }
}

/// Families by name.
struct Page(BTreeMap<String, Family>);

#[derive(Default)]
struct Family {
    kind: Option<String>,
    help: Option<String>,
    /// Names of its samples, with `_bucket` and the like.
    samples: BTreeSet<String>,
    labels: BTreeSet<String>,
}

impl Page {
    fn parse(text: &str) -> Page {
        let mut families: BTreeMap<String, Family> = BTreeMap::new();
        for line in text.lines().filter(|line| !line.is_empty()) {
            if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
                families.entry(name.to_owned()).or_default().help = Some(help.to_owned());
            } else if let Some((name, kind)) =
                line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' '))
            {
                let before = families
                    .entry(name.to_owned())
                    .or_default()
                    .kind
                    .replace(kind.to_owned());
                assert_eq!(before, None, "{name} stands twice on the page");
            } else {
                let end = line.find(['{', ' ']).expect("a sample has a value");
                let family = family_of(&line[..end], &families);
                let family = families.entry(family).or_default();
                family.samples.insert(line[..end].to_owned());
                if line[end..].contains("model_name=\"") {
                    family.labels.insert("model_name".to_owned());
                }
            }
        }
        Page(families)
    }
}

fn family_of(sample: &str, families: &BTreeMap<String, Family>) -> String {
    let ends = ["_bucket", "_sum", "_count"];
    let base = ends.iter().find_map(|end| sample.strip_suffix(end));
    base.filter(|base| families.contains_key(*base))
        .unwrap_or(sample)
        .to_owned()
}

/// The names of metrics in a query: words that begin as ours do.
fn metrics_in(query: &str) -> BTreeSet<String> {
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == ':';
    let words = query.split(|letter| !is_name(letter));
    words
        .filter(|word| word.starts_with("cluster_") || word.starts_with("vllm:"))
        .map(str::to_owned)
        .collect()
}

fn dashboard() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/grafana/cluster.json");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).expect("JSON")
}

fn panels(dashboard: &Value) -> &Vec<Value> {
    dashboard["panels"].as_array().expect("panels")
}

#[test]
fn every_metric_explains_itself_and_every_query_of_the_dashboard_finds_one() {
    let page = page();
    let mut samples = BTreeSet::new();
    for (name, family) in &page.0 {
        assert!(
            family.help.is_some() && family.kind.is_some(),
            "{name} has no HELP or no TYPE"
        );
        assert!(!family.samples.is_empty(), "{name} has no samples");
        samples.extend(&family.samples);
    }
    for alias in ALIASES {
        let family = page
            .0
            .get(alias)
            .unwrap_or_else(|| panic!("{alias} is not on the page"));
        assert!(family.labels.contains("model_name"), "{alias} has no model_name");
    }
    let dashboard = dashboard();
    let targets = panels(&dashboard)
        .iter()
        .flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let mut asked = 0;
    for target in targets {
        let query = target["expr"].as_str().expect("a query");
        let names = metrics_in(query);
        assert!(!names.is_empty(), "{query} asks for nothing of ours");
        for name in names {
            assert!(samples.contains(&name), "{name} is not on the page: {query}");
            asked += 1;
        }
    }
    assert!(asked > 30, "only {asked} metrics are asked for");
}

#[test]
fn the_dashboard_is_laid_out_as_grafana_reads_it() {
    let dashboard = dashboard();
    for key in ["title", "uid", "schemaVersion", "templating", "time"] {
        assert!(!dashboard[key].is_null(), "no {key}");
    }
    let mut ids = BTreeSet::new();
    let mut cells = BTreeSet::new();
    for panel in panels(&dashboard) {
        let title = panel["title"].as_str().expect("a title");
        assert!(
            ids.insert(panel["id"].as_u64().expect("an id")),
            "{title} has the id of another panel"
        );
        let side = |name: &str| {
            panel["gridPos"][name]
                .as_u64()
                .unwrap_or_else(|| panic!("{title} has no {name}"))
        };
        assert!(side("x") + side("w") <= 24, "{title} is wider than the screen");
        for (x, y) in (0..side("w")).flat_map(|x| (0..side("h")).map(move |y| (x, y))) {
            assert!(
                cells.insert((side("x") + x, side("y") + y)),
                "{title} covers another panel"
            );
        }
        for target in panel["targets"].as_array().into_iter().flatten() {
            assert_eq!(target["datasource"]["uid"], "${datasource}", "{title}");
        }
    }
}
