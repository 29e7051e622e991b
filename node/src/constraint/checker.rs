//! The node's side: whether a grammar will be taken, before its request is admitted.

use super::cache::FairCache;
use super::compiler::{Compiler, GrammarError};
use super::workshop::{Full, Workshop};
use crate::text::Vocabulary;
use proto::TenantId;
use proto::request::Grammar;
use std::io;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use tokio::sync::oneshot;

const WAITING_MAX: usize = 256;
const CACHE_ENTRIES_MAX: usize = 256;
const CACHE_BYTES_MAX: usize = 8 << 20;

#[derive(thiserror::Error, Clone, PartialEq, Eq, Debug)]
pub enum CheckError {
    #[error(transparent)]
    Bad(#[from] GrammarError),
    /// Try again later.
    #[error(transparent)]
    Busy(#[from] Full),
}

type Verdict = Result<(), GrammarError>;

/// Checks grammars for one model, one after the other.
#[derive(Clone)]
pub struct Checker {
    workshop: Workshop,
    bench: Arc<Bench>,
}

struct Bench {
    vocabulary: Arc<Vocabulary>,
    end_tokens: Vec<u32>,
    /// Made for the first grammar.
    compiler: OnceLock<Compiler>,
    known: Mutex<FairCache<Grammar, Verdict>>,
}

impl Checker {
    pub fn start(vocabulary: Arc<Vocabulary>, end_tokens: &[u32]) -> io::Result<Checker> {
        let bench = Bench {
            vocabulary,
            end_tokens: end_tokens.to_vec(),
            compiler: OnceLock::new(),
            known: Mutex::new(FairCache::new(CACHE_ENTRIES_MAX, CACHE_BYTES_MAX)),
        };
        Ok(Checker {
            workshop: Workshop::start("grammar-checks", WAITING_MAX)?,
            bench: Arc::new(bench),
        })
    }

    /// A grammar that passes is compiled by every replica of the model too.
    pub async fn check(&self, tenant: TenantId, grammar: &Grammar) -> Result<(), CheckError> {
        if let Some(known) = self.bench.known(tenant, grammar) {
            return Ok(known?);
        }
        let (told, verdict) = oneshot::channel();
        let (bench, grammar) = (Arc::clone(&self.bench), grammar.clone());
        self.workshop.run(move || {
            // The client may have gone.
            let _ = told.send(bench.check(tenant, grammar));
        })?;
        let broken = || GrammarError::new("the compiler cannot work with it");
        Ok(verdict.await.unwrap_or_else(|_| Err(broken()))?)
    }
}

impl Bench {
    fn known(&self, tenant: TenantId, grammar: &Grammar) -> Option<Verdict> {
        self.cache().get(tenant, grammar)
    }

    fn check(&self, tenant: TenantId, grammar: Grammar) -> Verdict {
        // Another request may have asked for the same meanwhile.
        if let Some(known) = self.known(tenant, &grammar) {
            return known;
        }
        let compiler = self
            .compiler
            .get_or_init(|| Compiler::new(&self.vocabulary, &self.end_tokens));
        let verdict = compiler.compile(&grammar).map(drop);
        let bytes = super::bounds::bytes(&grammar);
        self.cache().insert(tenant, grammar, verdict.clone(), bytes);
        verdict
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, FairCache<Grammar, Verdict>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
