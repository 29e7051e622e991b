//! What is counted of requests: a line for each name, and the names that dashboards made for vLLM read.

use super::spans;
use crate::http::telemetry as http;
use metrics::{counter, describe_counter, describe_histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder};

pub struct Metric {
    name: &'static str,
    alias: Option<&'static str>,
    kind: Kind,
    help: &'static str,
}

enum Kind {
    Counter,
    /// With the bounds of its buckets.
    Histogram(&'static [f64]),
}

static METRICS: &[Metric] = &[
    Metric {
        name: http::HTTP_REQUESTS,
        alias: None,
        kind: Kind::Counter,
        help: "Answers by route and status, counted by their heads.",
    },
    Metric {
        name: http::PROMPT_TOKENS,
        alias: Some("vllm:prompt_tokens_total"),
        kind: Kind::Counter,
        help: "Prompt tokens of admitted requests.",
    },
    Metric {
        name: http::GENERATION_TOKENS,
        alias: Some("vllm:generation_tokens_total"),
        kind: Kind::Counter,
        help: "Tokens generated for clients, counted as they come.",
    },
    Metric {
        name: http::REQUEST_SUCCESS,
        alias: Some("vllm:request_success_total"),
        kind: Kind::Counter,
        help: "Choices of admitted requests, by how they ended: abort is a client that went away, error one that was told an error, the others are ends of their own.",
    },
    Metric {
        name: http::TIME_TO_FIRST_TOKEN,
        alias: Some("vllm:time_to_first_token_seconds"),
        kind: Kind::Histogram(&[
            0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0,
            80.0,
        ]),
        help: "From admission to the first token of each choice.",
    },
    Metric {
        name: http::INTER_TOKEN_LATENCY,
        alias: Some("vllm:inter_token_latency_seconds"),
        kind: Kind::Histogram(&[
            0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5,
            5.0,
        ]),
        help: "Between two tokens of a choice.",
    },
    Metric {
        name: http::REQUEST_LATENCY,
        alias: Some("vllm:e2e_request_latency_seconds"),
        kind: Kind::Histogram(REQUEST_SECS),
        help: "From admission to the end of each choice, however it ended.",
    },
    Metric {
        name: http::QUEUE_TIME,
        alias: Some("vllm:request_queue_time_seconds"),
        kind: Kind::Histogram(REQUEST_SECS),
        help: "From a choice's arrival at the engine to the first step that had it, of choices with an end of their own.",
    },
    Metric {
        name: http::PREFILL_TIME,
        alias: Some("vllm:request_prefill_time_seconds"),
        kind: Kind::Histogram(REQUEST_SECS),
        help: "From a choice's first step to its first token, of choices with an end of their own.",
    },
    Metric {
        name: http::DECODE_TIME,
        alias: Some("vllm:request_decode_time_seconds"),
        kind: Kind::Histogram(REQUEST_SECS),
        help: "From a choice's first token to its last, of choices with an end of their own.",
    },
    Metric {
        name: http::REQUEST_PROMPT_TOKENS,
        alias: Some("vllm:request_prompt_tokens"),
        kind: Kind::Histogram(REQUEST_TOKENS),
        help: "Tokens of the prompt of each choice: with n choices a prompt counts n times.",
    },
    Metric {
        name: http::REQUEST_GENERATION_TOKENS,
        alias: Some("vllm:request_generation_tokens"),
        kind: Kind::Histogram(REQUEST_TOKENS),
        help: "Generated tokens of each choice, however it ended.",
    },
    Metric {
        name: spans::DROPPED,
        alias: None,
        kind: Kind::Counter,
        help: "Spans that no collector took.",
    },
];

/// Those of vLLM, and finer ones below: on a node that is idle all of a request may be over before the first of vLLM's.
const REQUEST_SECS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.2, 0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0,
    15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0,
];
const REQUEST_TOKENS: &[f64] = &[
    1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 2_000.0, 5_000.0, 10_000.0, 20_000.0,
    50_000.0, 100_000.0,
];

/// Before the recorder is built.
pub fn with_buckets(mut builder: PrometheusBuilder) -> Result<PrometheusBuilder, BuildError> {
    for metric in METRICS {
        if let Kind::Histogram(bounds) = metric.kind {
            builder = builder.set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), bounds)?;
        }
    }
    Ok(builder)
}

/// After it has been installed.
pub fn describe() {
    for metric in METRICS {
        match metric.kind {
            Kind::Counter => describe_counter!(metric.name, metric.help),
            Kind::Histogram(_) => describe_histogram!(metric.name, metric.help),
        }
    }
    counter!(spans::DROPPED).increment(0);
}

/// The families of `page` that have a second name, under that name. Counted once, shown twice.
pub fn aliases(page: &str) -> String {
    let mut aliases = String::new();
    for line in page.lines() {
        let known = METRICS
            .iter()
            .find_map(|metric| Some((metric, metric.alias?)).filter(|_| belongs(line, metric.name)));
        if let Some((metric, alias)) = known {
            aliases.push_str(&line.replacen(metric.name, alias, 1));
            aliases.push('\n');
        }
    }
    aliases
}

/// Is the line about this family: its `# HELP`, its `# TYPE` or a sample?
fn belongs(line: &str, name: &str) -> bool {
    let line = line.trim_start_matches("# HELP ").trim_start_matches("# TYPE ");
    line.strip_prefix(name).is_some_and(|rest| {
        ["{", " ", "_bucket{", "_sum", "_count"]
            .iter()
            .any(|next| rest.starts_with(next))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_over_in_milliseconds_is_told_from_what_takes_longer() {
        let of_requests = [
            http::REQUEST_LATENCY,
            http::QUEUE_TIME,
            http::PREFILL_TIME,
            http::DECODE_TIME,
        ];
        for metric in METRICS.iter().filter(|metric| of_requests.contains(&metric.name)) {
            let Kind::Histogram(bounds) = metric.kind else {
                panic!("{} is a histogram", metric.name)
            };
            assert!(bounds[0] <= 0.001, "{}", metric.name);
            // Quantiles are guessed within a bucket, so none below a second may be three times as wide as what is below it.
            let pairs = bounds.windows(2).take_while(|pair| pair[1] <= 1.0);
            assert!(
                pairs
                    .into_iter()
                    .all(|pair| pair[0] < pair[1] && pair[1] < 3.0 * pair[0]),
                "{}",
                metric.name
            );
        }
    }

    #[test]
    fn a_family_is_shown_whole_under_its_second_name() {
        let page = "\
# HELP cluster_time_to_first_token_seconds help
# TYPE cluster_time_to_first_token_seconds histogram
cluster_time_to_first_token_seconds_bucket{model_name=\"cluster_a\",le=\"0.1\"} 1
cluster_time_to_first_token_seconds_sum{model_name=\"cluster_a\"} 0.05
cluster_time_to_first_token_seconds_count{model_name=\"cluster_a\"} 1
cluster_prompt_tokens_total 3
cluster_prompt_tokens_total_of_others 4
cluster_http_requests_total 5
";
        let expected = "\
# HELP vllm:time_to_first_token_seconds help
# TYPE vllm:time_to_first_token_seconds histogram
vllm:time_to_first_token_seconds_bucket{model_name=\"cluster_a\",le=\"0.1\"} 1
vllm:time_to_first_token_seconds_sum{model_name=\"cluster_a\"} 0.05
vllm:time_to_first_token_seconds_count{model_name=\"cluster_a\"} 1
vllm:prompt_tokens_total 3
";
        assert_eq!(aliases(page), expected);
    }
}
