//! The gateway that HTTP sees, with the router behind it.

use super::board::Board;
use super::machine::Mailbox;
use super::router::RouterMessage;
use super::streams::OpenRequest;
use crate::config::high::Auth;
use crate::constraint::checker::Checker;
use crate::gateway::{Gateway, Generate, Generation, GenerationControl, ServedModel};
use crate::http::telemetry as request_telemetry;
use crate::peers::Served;
use crate::state::NodeState;
use crate::state::keys::{self, LocalKey};
use crate::telemetry::{cluster_metrics, engine_metrics, request_metrics};
use crate::text::TextModel;
use metrics_exporter_prometheus::PrometheusHandle;
use proto::cluster::ModelRecord;
use proto::request::Refusal;
use proto::{RequestId, StreamId, TenantId};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};

pub struct RouterGateway {
    pub mailbox: Mailbox<RouterMessage>,
    pub state: Arc<NodeState>,
    pub board: Board,
    pub auth: Auth,
    pub local_key: Arc<LocalKey>,
    /// Those whose replicas have come up, by name.
    pub models: RwLock<BTreeMap<String, Arc<ServedModel>>>,
    /// What HTTP itself counts.
    pub recorded: PrometheusHandle,
}

impl Gateway for RouterGateway {
    fn open(
        &self,
        request: Generate,
    ) -> Pin<Box<dyn Future<Output = Result<Generation, Refusal>> + Send + '_>> {
        Box::pin(self.admit(request))
    }

    fn models(&self) -> Vec<Arc<ServedModel>> {
        self.models
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    fn awaits(&self, model: &str) -> bool {
        let applied = self.state.applied();
        applied.deployment(model).is_some()
            || applied.replicas().any(|replica| replica.model == model)
            || self.board.has(model)
    }

    fn health(&self) -> Result<(), String> {
        let (own, applied) = (self.state.node(), self.state.applied());
        self.board.health(|replica| applied.is_offered(replica, own))
    }

    fn authenticate(&self, key: Option<&str>) -> Option<TenantId> {
        match self.auth {
            Auth::Open => Some(keys::DEFAULT_TENANT),
            Auth::Keys if self.local_key.opens(key?) => Some(keys::DEFAULT_TENANT),
            Auth::Keys => self.state.tenant_of(key?),
        }
    }

    fn metrics(&self) -> String {
        for model in self.models() {
            request_telemetry::introduce(&model.name);
        }
        let mut page = self.recorded.render();
        page.push_str(&request_metrics::aliases(&page));
        page.push_str(&engine_metrics::page(&self.board.views()));
        page.push_str(&cluster_metrics::page(&self.state));
        page
    }
}

impl RouterGateway {
    /// From now on clients see it.
    pub fn add_model(&self, model: ServedModel) {
        let mut models = self.models.write().unwrap_or_else(PoisonError::into_inner);
        models.insert(model.name.clone(), Arc::new(model));
    }

    async fn admit(&self, generate: Generate) -> Result<Generation, Refusal> {
        let request = generate.request;
        let (open, (events, verdict)) = OpenRequest::new(generate.tenant, generate.model, generate.streams);
        self.mailbox
            .send(RouterMessage::Arrived {
                request,
                class: generate.class,
                open,
            })
            .await;
        // From here on a caller that gives up, also while it waits for the verdict, cancels the request.
        let control = Control {
            request,
            mailbox: self.mailbox.clone(),
        };
        match verdict.await {
            Ok(Ok(())) => Ok(Generation {
                events,
                control: Box::new(control),
            }),
            Ok(Err(refusal)) => Err(refusal),
            // The router has ended, so the node is ending.
            Err(_) => Err(Refusal::Draining),
        }
    }
}

/// Models that other nodes hold.
impl Served for RouterGateway {
    fn knows(&self, model: &str) -> bool {
        let models = self.models.read().unwrap_or_else(PoisonError::into_inner);
        models.contains_key(model)
    }

    fn serve(&self, model: &ModelRecord, text: TextModel, context_tokens_max: u32) {
        let grammars = Checker::start(text.vocabulary().clone(), text.end_tokens());
        match grammars {
            Ok(grammars) => self.add_model(ServedModel {
                name: model.name.clone(),
                added_at_secs: model.added_at_secs,
                context_tokens_max,
                text,
                grammars,
            }),
            Err(error) => {
                tracing::error!(model = model.name, %error, "a model of another node cannot be served")
            }
        }
    }

    fn forget_all_but(&self, models: &[String]) {
        let mut known = self.models.write().unwrap_or_else(PoisonError::into_inner);
        known.retain(|name, _| models.contains(name));
    }
}

struct Control {
    request: RequestId,
    mailbox: Mailbox<RouterMessage>,
}

impl GenerationControl for Control {
    fn end(&self, choice: u32) {
        self.mailbox.send_owed(RouterMessage::Ended {
            stream: StreamId {
                request: self.request,
                choice,
            },
        });
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.mailbox.send_owed(RouterMessage::ClientGone {
            request: self.request,
        });
    }
}
