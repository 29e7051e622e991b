//! Where submits with a grammar wait until it is compiled, beside the step loop.

use super::engine_loop::LoopMessage;
use super::prepare::ModelFile;
use crate::constraint::cache::FairCache;
use crate::constraint::compiler::{Compiled, Compiler, GrammarError};
use crate::constraint::masks::MaskThreads;
use crate::constraint::stream::StreamConstraint;
use crate::constraint::workshop::{Full, Workshop};
use crate::text::{TokenizerSource, Vocabulary};
use proto::request::{Grammar, Submit};
use shard::Constraint;
use std::io;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// As many as may wait for the engine itself.
const WAITING_MAX: usize = 256;
const CACHE_ENTRIES_MAX: usize = 128;
const CACHE_BYTES_MAX: usize = 64 << 20;

/// A submit whose grammar has been compiled, or cannot be.
pub struct CompiledSubmit {
    pub submit: Box<Submit>,
    pub constraint: Result<Arc<dyn Constraint>, String>,
}

pub struct GrammarDesk {
    workshop: Workshop,
    bench: Arc<Bench>,
}

/// What the workshop works with.
struct Bench {
    file: Arc<ModelFile>,
    /// Made for the first grammar: many replicas never see one.
    compiler: OnceLock<Result<Compiler, String>>,
    cache: Mutex<FairCache<Grammar, Arc<Compiled>>>,
    threads: Arc<MaskThreads>,
    mailbox: SyncSender<LoopMessage>,
}

impl GrammarDesk {
    /// What is compiled goes to `mailbox`.
    pub fn start(file: Arc<ModelFile>, mailbox: SyncSender<LoopMessage>) -> io::Result<GrammarDesk> {
        let resumed = mailbox.clone();
        let threads = MaskThreads::start(Box::new(move |stream, attempt| {
            // Without its loop the process ends.
            let _ = resumed.send(LoopMessage::Resume { stream, attempt });
        }))?;
        let bench = Bench {
            file,
            compiler: OnceLock::new(),
            cache: Mutex::new(FairCache::new(CACHE_ENTRIES_MAX, CACHE_BYTES_MAX)),
            threads,
            mailbox,
        };
        Ok(GrammarDesk {
            workshop: Workshop::start("grammars", WAITING_MAX)?,
            bench: Arc::new(bench),
        })
    }

    /// Never waits.
    pub fn compile(&self, submit: Box<Submit>) -> Result<(), Full> {
        let bench = Arc::clone(&self.bench);
        self.workshop.run(move || {
            let constraint = bench.constraint(&submit);
            let _ = bench
                .mailbox
                .send(LoopMessage::Compiled(CompiledSubmit { submit, constraint }));
        })
    }
}

impl Bench {
    fn constraint(&self, submit: &Submit) -> Result<Arc<dyn Constraint>, String> {
        let grammar = submit.sampling.grammar.as_ref();
        let grammar = grammar.expect("only submits with a grammar come here");
        let compiled = self.compiled(submit, grammar)?;
        let ticket = &submit.ticket;
        let output = &submit.prompt[submit.prompt.len() - ticket.resumed_tokens as usize..];
        let constraint = StreamConstraint::new(
            ticket.stream,
            ticket.attempt,
            compiled.follower(),
            output,
            &self.threads,
        );
        let constraint =
            constraint.map_err(|lost| format!("what was written so far does not match it ({lost})"))?;
        Ok(Arc::new(constraint))
    }

    fn compiled(&self, submit: &Submit, grammar: &Grammar) -> Result<Arc<Compiled>, String> {
        let tenant = submit.ticket.tenant;
        if let Some(known) = self.cache().get(tenant, grammar) {
            return Ok(known);
        }
        let compiler = self.compiler.get_or_init(|| compiler(&self.file));
        let compiled = compiler.as_ref().map_err(String::clone)?.compile(grammar);
        let compiled = Arc::new(compiled.map_err(|error: GrammarError| error.to_string())?);
        self.cache()
            .insert(tenant, grammar.clone(), Arc::clone(&compiled), compiled.bytes);
        Ok(compiled)
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, FairCache<Grammar, Arc<Compiled>>> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn compiler(file: &ModelFile) -> Result<Compiler, String> {
    let gguf = file.parse().map_err(|error| error.to_string())?;
    let source = TokenizerSource::from_gguf(&gguf).map_err(|error| error.to_string())?;
    Ok(Compiler::new(&Vocabulary::new(&source), &source.end_tokens()))
}
