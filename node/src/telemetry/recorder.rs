//! The recorder behind `metrics::counter!` and the like. No listener of its own: `/metrics` renders it.

use super::request_metrics;
use crate::http;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

/// Once in a process.
pub fn install() -> anyhow::Result<PrometheusHandle> {
    let recorder = request_metrics::with_buckets(PrometheusBuilder::new())?.build_recorder();
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder).map_err(|_| anyhow::anyhow!("metrics are recorded already"))?;
    request_metrics::describe();
    http::describe_connections();
    Ok(handle)
}
