//! A gateway that serves one model and takes no request.

use crate::model::chat_model;
use node::constraint::checker::Checker;
use node::gateway::{Gateway, Generate, Generation, ServedModel};
use node::http::fuzzing::{Endpoints, Refused};
use proto::TenantId;
use proto::request::Refusal;
use std::pin::Pin;
use std::sync::{Arc, LazyLock};

pub static ENDPOINTS: LazyLock<Endpoints> = LazyLock::new(|| Endpoints::new(Arc::new(Only(model()))));

/// A client is told what is wrong with its body; it never hears of a fault of ours.
pub fn check(refused: &Refused) {
    let Refused(status) = refused;
    assert!(
        (400..500).contains(status),
        "a body is answered with status {status}"
    );
}

struct Only(Arc<ServedModel>);

fn model() -> Arc<ServedModel> {
    let text = chat_model();
    Arc::new(ServedModel {
        name: "m".to_owned(),
        added_at_secs: 0,
        context_tokens_max: 8192,
        grammars: Checker::start(text.vocabulary().clone(), text.end_tokens())
            .expect("a thread can be started"),
        text,
    })
}

impl Gateway for Only {
    fn open(
        &self,
        _request: Generate,
    ) -> Pin<Box<dyn Future<Output = Result<Generation, Refusal>> + Send + '_>> {
        Box::pin(async { Err(Refusal::Draining) })
    }

    fn models(&self) -> Vec<Arc<ServedModel>> {
        vec![self.0.clone()]
    }

    fn awaits(&self, _model: &str) -> bool {
        false
    }

    fn health(&self) -> Result<(), String> {
        Ok(())
    }

    fn authenticate(&self, _key: Option<&str>) -> Option<TenantId> {
        None
    }

    fn metrics(&self) -> String {
        String::new()
    }
}
