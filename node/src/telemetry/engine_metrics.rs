//! The page of numbers that engines report, under our names and under those that dashboards for vLLM read.

use crate::actors::board::{Phase, ReplicaView};
use proto::ReplicaId;
use proto::engine::{Load, PipelineUse};
use std::collections::BTreeMap;
use std::fmt::Write;

struct Metric {
    /// After `cluster_`.
    name: &'static str,
    alias: Option<&'static str>,
    kind: &'static str,
    help: &'static str,
    value: fn(&Load) -> f64,
}

static METRICS: &[Metric] = &[
    Metric {
        name: "requests_running",
        alias: Some("vllm:num_requests_running"),
        kind: "gauge",
        help: "Sequences that hold KV blocks.",
        value: |load| f64::from(load.running),
    },
    Metric {
        name: "requests_waiting",
        alias: Some("vllm:num_requests_waiting"),
        kind: "gauge",
        help: "Sequences that wait for KV blocks.",
        value: |load| f64::from(load.waiting),
    },
    Metric {
        name: "kv_cache_usage_ratio",
        alias: Some("vllm:kv_cache_usage_perc"),
        kind: "gauge",
        help: "Share of KV blocks owned by running sequences; 1 is all.",
        value: kv_usage,
    },
    Metric {
        name: "preemptions_total",
        alias: Some("vllm:num_preemptions_total"),
        kind: "counter",
        help: "Sequences that lost their blocks for others.",
        value: |load| load.preemptions as f64,
    },
    Metric {
        name: "prefix_cache_queries_total",
        alias: Some("vllm:prefix_cache_queries_total"),
        kind: "counter",
        help: "Prompt tokens looked up in the prefix cache.",
        value: |load| load.prefix_queried_tokens as f64,
    },
    Metric {
        name: "prefix_cache_hits_total",
        alias: Some("vllm:prefix_cache_hits_total"),
        kind: "counter",
        help: "Prompt tokens found in the prefix cache.",
        value: |load| load.prefix_hit_tokens as f64,
    },
    Metric {
        name: "engine_steps_total",
        alias: None,
        kind: "counter",
        help: "Steps computed.",
        value: |load| load.steps as f64,
    },
    Metric {
        name: "engine_computed_tokens_total",
        alias: None,
        kind: "counter",
        help: "Positions computed, prompts and outputs.",
        value: |load| load.computed_tokens as f64,
    },
    Metric {
        name: "engine_sampled_tokens_total",
        alias: None,
        kind: "counter",
        help: "Tokens sampled.",
        value: |load| load.sampled_tokens as f64,
    },
    Metric {
        name: "engine_backlog_tokens",
        alias: None,
        kind: "gauge",
        help: "Prompt tokens still to be computed.",
        value: |load| load.backlog_tokens as f64,
    },
    Metric {
        name: "kv_blocks_cached",
        alias: None,
        kind: "gauge",
        help: "Unowned KV blocks that hold a reusable prefix.",
        value: |load| f64::from(load.blocks_cached),
    },
    Metric {
        name: "step_fixed_seconds",
        alias: None,
        kind: "gauge",
        help: "Cost model: a step's fixed part.",
        value: |load| load.step_fixed_secs,
    },
    Metric {
        name: "step_per_token_seconds",
        alias: None,
        kind: "gauge",
        help: "Cost model: for each token of a step.",
        value: |load| load.step_per_token_secs,
    },
];

fn kv_usage(load: &Load) -> f64 {
    let owned = load
        .blocks_total
        .saturating_sub(load.blocks_free)
        .saturating_sub(load.blocks_cached);
    f64::from(owned) / f64::from(load.blocks_total.max(1))
}

/// In Prometheus' text format. Counters begin anew with each epoch, as with any process that was restarted.
pub fn page(views: &BTreeMap<ReplicaId, ReplicaView>) -> String {
    let mut page = String::new();
    for metric in METRICS {
        family(
            &mut page,
            &format!("cluster_{}", metric.name),
            metric,
            views,
            labels,
        );
        if let Some(alias) = metric.alias {
            family(&mut page, alias, metric, views, alias_labels);
        }
    }
    iterations(&mut page, views);
    readiness(&mut page, views);
    caches(&mut page, views);
    adapters(&mut page, views);
    if views.values().any(|view| view.pipeline.is_some()) {
        for metric in PIPELINE_METRICS {
            pipelines(&mut page, metric, views);
        }
        stages(&mut page, views);
    }
    page
}

/// Of a replica in several stages, told by the node of the last one.
struct PipelineMetric {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    value: fn(&PipelineUse) -> f64,
}

const PIPELINE_METRICS: &[PipelineMetric] = &[
    PipelineMetric {
        name: "cluster_pipeline_bubble_ratio",
        kind: "gauge",
        help: "The part of the stages' time in which none computed while there was work, since the epoch began.",
        value: PipelineUse::bubble,
    },
    PipelineMetric {
        name: "cluster_pipeline_occupied_seconds_total",
        kind: "counter",
        help: "While at least one step was under way.",
        value: |used| used.occupied.as_secs_f64(),
    },
    PipelineMetric {
        name: "cluster_pipeline_least_seconds_total",
        kind: "counter",
        help: "What that would have been with nothing between the stages: the rest went on ways, planning and busy cores.",
        value: |used| used.least.as_secs_f64(),
    },
];

fn pipelines(page: &mut String, metric: &PipelineMetric, views: &BTreeMap<ReplicaId, ReplicaView>) {
    let PipelineMetric { name, kind, help, .. } = metric;
    introduce(page, name, kind, help);
    for (replica, view) in views {
        if let Some(used) = &view.pipeline {
            let _ = writeln!(page, "{name}{} {}", labels(*replica, view), (metric.value)(used));
        }
    }
}

/// In the order of the layers: stage 0 embeds.
fn stages(page: &mut String, views: &BTreeMap<ReplicaId, ReplicaView>) {
    let name = "cluster_pipeline_computed_seconds_total";
    introduce(page, name, "counter", "What each stage computed; stage 0 embeds.");
    for (replica, view) in views {
        let computed = view.pipeline.iter().flat_map(|used| &used.computed);
        for (stage, span) in computed.enumerate() {
            let names = names(*replica, view);
            let _ = writeln!(page, "{name}{{{names},stage=\"{stage}\"}} {}", span.as_secs_f64());
        }
    }
}

fn introduce(page: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn family(
    page: &mut String,
    name: &str,
    metric: &Metric,
    views: &BTreeMap<ReplicaId, ReplicaView>,
    labels: fn(ReplicaId, &ReplicaView) -> String,
) {
    introduce(page, name, metric.kind, metric.help);
    for (replica, view) in views {
        let labels = labels(*replica, view);
        let _ = writeln!(page, "{name}{labels} {}", (metric.value)(&view.load));
    }
}

/// How many tokens a step has: engines report the sum and the count, so there is no bucket but the one for all.
fn iterations(page: &mut String, views: &BTreeMap<ReplicaId, ReplicaView>) {
    let name = "vllm:iteration_tokens_total";
    let help =
        "Positions computed in each step, prompts and outputs; the sum and the count alone, without buckets.";
    introduce(page, name, "histogram", help);
    for (replica, view) in views {
        let labels = alias_labels(*replica, view);
        let (steps, tokens) = (view.load.steps, view.load.computed_tokens);
        let open = labels.trim_end_matches('}');
        let _ = writeln!(page, "{name}_bucket{open},le=\"+Inf\"}} {steps}");
        let _ = writeln!(page, "{name}_sum{labels} {tokens}");
        let _ = writeln!(page, "{name}_count{labels} {steps}");
    }
}

fn readiness(page: &mut String, views: &BTreeMap<ReplicaId, ReplicaView>) {
    let name = "cluster_replica_ready";
    introduce(page, name, "gauge", "1 while the replica serves.");
    for (replica, view) in views {
        let ready = u8::from(matches!(view.phase, Phase::Ready(_)));
        let _ = writeln!(page, "{name}{} {ready}", labels(*replica, view));
    }
}

/// How large caches are, as labels: what routers made for vLLM read.
fn caches(page: &mut String, views: &BTreeMap<ReplicaId, ReplicaView>) {
    let name = "vllm:cache_config_info";
    introduce(page, name, "gauge", "Tokens of a KV block, and blocks.");
    for (replica, view) in views {
        if let Phase::Ready(info) = &view.phase {
            let labels = alias_labels(*replica, view);
            let (block_size, blocks) = (info.block_tokens, info.blocks);
            let _ = writeln!(
                page,
                "{name}{},block_size=\"{block_size}\",num_gpu_blocks=\"{blocks}\"}} 1",
                labels.trim_end_matches('}')
            );
        }
    }
}

/// That there are none: routers for the Gateway API ask for it.
fn adapters(page: &mut String, views: &BTreeMap<ReplicaId, ReplicaView>) {
    let name = "vllm:lora_requests_info";
    introduce(
        page,
        name,
        "gauge",
        "Adapters that are held and wanted: none, ever.",
    );
    for (replica, view) in views {
        if let Phase::Ready(_) = &view.phase {
            let labels = alias_labels(*replica, view);
            let _ = writeln!(
                page,
                "{name}{},max_lora=\"0\",running_lora_adapters=\"\",waiting_lora_adapters=\"\"}} 1",
                labels.trim_end_matches('}')
            );
        }
    }
}

fn labels(replica: ReplicaId, view: &ReplicaView) -> String {
    format!("{{{}}}", names(replica, view))
}

/// Also as vLLM names what computes.
fn alias_labels(replica: ReplicaId, view: &ReplicaView) -> String {
    format!("{{{},engine=\"{replica}\"}}", names(replica, view))
}

fn names(replica: ReplicaId, view: &ReplicaView) -> String {
    let model = view
        .model
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n");
    format!("model_name=\"{model}\",replica=\"{replica}\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actors::board::{Board, Where};
    use proto::{Epoch, Span};

    #[test]
    fn each_number_stands_under_both_names_with_its_model() {
        let board = Board::default();
        board.starting(ReplicaId(0), Epoch(1), "a\"b", Where::Here);
        let load = Load {
            running: 3,
            blocks_total: 10,
            blocks_free: 4,
            blocks_cached: 1,
            steps: 2,
            computed_tokens: 33,
            ..Load::default()
        };
        board.load(ReplicaId(0), load);
        let used = PipelineUse {
            occupied: Span::from_secs(10),
            least: Span::from_secs(9),
            computed: [9, 6].map(Span::from_secs).to_vec(),
        };
        board.pipeline(ReplicaId(0), used);
        let page = page(&board.views());
        for line in [
            r#"cluster_requests_running{model_name="a\"b",replica="0"} 3"#,
            r#"vllm:num_requests_running{model_name="a\"b",replica="0",engine="0"} 3"#,
            r#"vllm:kv_cache_usage_perc{model_name="a\"b",replica="0",engine="0"} 0.5"#,
            r#"vllm:iteration_tokens_total_bucket{model_name="a\"b",replica="0",engine="0",le="+Inf"} 2"#,
            r#"vllm:iteration_tokens_total_sum{model_name="a\"b",replica="0",engine="0"} 33"#,
            r#"vllm:iteration_tokens_total_count{model_name="a\"b",replica="0",engine="0"} 2"#,
            r#"cluster_replica_ready{model_name="a\"b",replica="0"} 0"#,
            r#"cluster_pipeline_bubble_ratio{model_name="a\"b",replica="0"} 0.25"#,
            r#"cluster_pipeline_occupied_seconds_total{model_name="a\"b",replica="0"} 10"#,
            r#"cluster_pipeline_least_seconds_total{model_name="a\"b",replica="0"} 9"#,
            r#"cluster_pipeline_computed_seconds_total{model_name="a\"b",replica="0",stage="0"} 9"#,
            r#"cluster_pipeline_computed_seconds_total{model_name="a\"b",replica="0",stage="1"} 6"#,
            "# TYPE vllm:num_preemptions_total counter",
        ] {
            assert!(
                page.lines().any(|found| found == line),
                "{line} is missing in {page}"
            );
        }
    }
}
