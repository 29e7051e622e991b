use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Why something that is deployed is not placed, in the placer's words, by model. Known where the placer runs. Cheap to
/// copy.
#[derive(Clone, Default)]
pub struct Explanations(Arc<Mutex<BTreeMap<String, String>>>);

impl Explanations {
    /// `None`: nothing stands in the way any more.
    pub fn set(&self, model: String, reason: Option<String>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match reason {
            Some(reason) => known.insert(model, reason),
            None => known.remove(&model),
        };
    }

    /// Another node is the leader now, or all is placed.
    pub fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub fn find(&self, model: &str) -> Option<String> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(model)
            .cloned()
    }
}
