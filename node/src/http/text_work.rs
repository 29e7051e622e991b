//! Tokenizing and rendering, off the async threads and bounded in number.

use super::error::ApiError;
use super::limits::Limits;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// Those who wait for a turn hold a connection each, so `connections_max` bounds the queue.
#[derive(Clone)]
pub struct TextWork {
    turns: Arc<Semaphore>,
}

impl TextWork {
    pub fn new(limits: &Limits) -> TextWork {
        TextWork {
            turns: Arc::new(Semaphore::new(limits.text_work_max)),
        }
    }

    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        let turn = self
            .turns
            .clone()
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        let done = off_the_async_threads(move || {
            // Held by the work, not by the waiting client, who may go away before it ends.
            let _turn = turn;
            work()
        });
        done.await.unwrap_or_else(|_| {
            Err(ApiError::internal(
                "the text of this request could not be processed",
            ))
        })
    }
}

#[cfg(not(fuzzing))]
use tokio::task::spawn_blocking as off_the_async_threads;

/// A fuzz target has one thread, whose time and memory are those of its input.
#[cfg(fuzzing)]
async fn off_the_async_threads<T>(work: impl FnOnce() -> T) -> Result<T, std::convert::Infallible> {
    Ok(work())
}
