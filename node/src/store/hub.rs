//! Models from a Hugging Face hub, through the `hf-hub` crate.

use super::error::SourceError;
use super::progress::Progress;
use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Repo, RepoType};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

/// Which hub, and how patient to be.
#[derive(Clone, Debug)]
pub struct Hub {
    pub endpoint: String,
    /// Of the user, for gated models.
    pub token: Option<String>,
    /// Until the first answer. The crate sets no timeouts, and behind a firewall a connection may hang for minutes.
    pub answer_timeout: Duration,
    /// Without one more byte.
    pub stall_timeout: Duration,
}

impl Hub {
    /// `HF_ENDPOINT` and `HF_TOKEN` where they are set.
    pub fn from_environment() -> Hub {
        Hub {
            endpoint: std::env::var("HF_ENDPOINT").unwrap_or_else(|_| "https://huggingface.co".to_owned()),
            token: std::env::var("HF_TOKEN").ok(),
            answer_timeout: Duration::from_secs(6),
            stall_timeout: Duration::from_secs(30),
        }
    }
}

/// What to fetch.
#[derive(Clone, Debug)]
pub struct HubFile {
    pub repo: String,
    /// A commit or `main`.
    pub revision: String,
    /// `None`: the only `.gguf` there.
    pub file: Option<String>,
}

/// Fetches into `folder` and says where the file lies there. Digests are the caller's business.
pub fn fetch(hub: &Hub, wanted: HubFile, folder: &Path) -> Result<PathBuf, SourceError> {
    let (sender, receiver) = channel();
    let (job, folder) = (hub.clone(), folder.to_owned());
    let label = wanted.repo.clone();
    // On its own thread, so that a connection that hangs can be given up; the thread ends with the process.
    std::thread::spawn(move || {
        let result = download(&job, &wanted, &folder, &sender);
        let _ = sender.send(News::Done(result));
    });
    watch(hub, &label, &receiver)
}

enum News {
    Total(u64),
    Bytes(u64),
    Done(Result<PathBuf, SourceError>),
}

fn watch(hub: &Hub, label: &str, receiver: &Receiver<News>) -> Result<PathBuf, SourceError> {
    let mut progress = None;
    let mut patience = hub.answer_timeout;
    loop {
        match receiver.recv_timeout(patience) {
            // Said twice: before the connection and once it stands.
            Ok(News::Total(total)) => {
                progress.get_or_insert_with(|| Progress::start(&format!("fetching {label}"), total));
            }
            Ok(News::Bytes(bytes)) => {
                if let Some(progress) = &mut progress {
                    progress.advance(bytes);
                }
            }
            Ok(News::Done(result)) => return result,
            Err(RecvTimeoutError::Timeout) => {
                return Err(SourceError::Silent {
                    endpoint: hub.endpoint.clone(),
                    secs: patience.as_secs(),
                });
            }
            Err(RecvTimeoutError::Disconnected) => {
                return Err(SourceError::Broken("the download thread died".to_owned()));
            }
        }
        patience = hub.stall_timeout;
    }
}

fn download(hub: &Hub, wanted: &HubFile, folder: &Path, news: &Sender<News>) -> Result<PathBuf, SourceError> {
    let api = api(hub, folder).map_err(broken)?;
    let repo = api.repo(Repo::with_revision(
        wanted.repo.clone(),
        RepoType::Model,
        wanted.revision.clone(),
    ));
    let file = match &wanted.file {
        Some(file) => file.clone(),
        None => only_gguf(&repo, &wanted.repo)?,
    };
    let link = repo
        .download_with_progress(&file, Reporter { news: news.clone() })
        .map_err(broken)?;
    Ok(link.canonicalize()?)
}

fn api(hub: &Hub, folder: &Path) -> Result<Api, ApiError> {
    ApiBuilder::from_cache(hf_hub::Cache::new(folder.to_owned()))
        .with_endpoint(hub.endpoint.clone())
        .with_token(hub.token.clone())
        .with_progress(false)
        .with_retries(0)
        .build()
}

fn only_gguf(repo: &ApiRepo, name: &str) -> Result<String, SourceError> {
    let info = repo.info().map_err(broken)?;
    let files = info.siblings.into_iter().map(|sibling| sibling.rfilename);
    super::only_gguf(files, &format!("hf:{name}"), ':')
}

/// Keeps the disk-full error recognisable; everything else is text for a person.
fn broken(error: ApiError) -> SourceError {
    match error {
        ApiError::IoError(error) => SourceError::Io(error),
        other => SourceError::Broken(other.to_string()),
    }
}

struct Reporter {
    news: Sender<News>,
}

impl hf_hub::api::Progress for Reporter {
    fn init(&mut self, size: usize, _filename: &str) {
        let _ = self.news.send(News::Total(size as u64));
    }

    fn update(&mut self, size: usize) {
        let _ = self.news.send(News::Bytes(size as u64));
    }

    fn finish(&mut self) {}
}
