//! Stores for tests that have no source of models but what is in them.

use super::Store;
use super::hub::Hub;
use super::pypi::Python;
use std::path::Path;
use std::time::Duration;

pub fn store_without_sources(folder: &Path) -> Store {
    Store::open(folder, no_hub(), no_python()).unwrap()
}

pub fn hub_at(endpoint: String) -> Hub {
    let patience = Duration::from_secs(20);
    Hub {
        endpoint,
        token: None,
        answer_timeout: patience,
        stall_timeout: patience,
    }
}

/// Nothing listens there: refused at once.
pub fn no_hub() -> Hub {
    hub_at("http://127.0.0.1:9".to_owned())
}

pub fn no_python() -> Python {
    Python {
        program: "/nowhere/python3".to_owned(),
    }
}
