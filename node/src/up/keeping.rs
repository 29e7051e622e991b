//! A replica of a node's own choice, kept alive.

use super::shared::{Mended, SharedFiles, SharedModel};
use crate::shard_host::supervisor::{FirstStart, Supervisor};
use futures_util::FutureExt;
use std::sync::Arc;
use tokio::join;
use tokio::sync::oneshot;

/// So often a disk may damage what was just mended.
const MENDED_MAX: u32 = 3;

/// Supervises it, and mends a shared model's file where it turns out damaged: others hold it.
pub struct Keeper {
    pub supervisor: Supervisor,
    /// `None`: a person has asked for this very file, and hears that it is damaged.
    pub mending: Option<Mending>,
}

pub struct Mending {
    pub files: SharedFiles,
    pub model: SharedModel,
}

impl Keeper {
    /// As [`Supervisor::run`].
    pub async fn run(mut self, on_first: oneshot::Sender<FirstStart>) {
        let damage = Arc::clone(&self.supervisor.plan.damage);
        let (mut on_first, mut found) = (Some(on_first), None);
        for mended in 0.. {
            let (first, told) = oneshot::channel();
            let came_up = async {
                let Ok(told) = told.await else { return None };
                if let Err(reason) = told {
                    return Some(reason);
                }
                if let Some(on_first) = on_first.take() {
                    // Whoever no longer waits needs to hear nothing.
                    let _ = on_first.send(told);
                }
                self.mending.as_ref()?.whenever(&damage).await
            };
            let ((), reason) = join!(self.supervisor.run(first), came_up);
            let Some(reason) = reason else { return };
            let is_damaged = damage.notified().now_or_never().is_some();
            let is_mended = match &self.mending {
                Some(mending) if is_damaged && mended < MENDED_MAX => mending.mend().await,
                Some(_) | None => Mended::Not,
            };
            if is_mended == Mended::Not {
                if let Some(on_first) = on_first.take() {
                    let _ = on_first.send(Err(found.filter(|_| is_damaged).unwrap_or(reason)));
                }
                return;
            }
            // That its file is gone says less than what was damaged.
            found.get_or_insert(reason);
            self.supervisor.plan.setup.epoch.0 += 1;
        }
    }
}

impl Mending {
    async fn mend(&self) -> Mended {
        self.files.mend(&self.model).await
    }

    /// Beside a supervisor that starts it again and again.
    async fn whenever<T>(&self, damage: &tokio::sync::Notify) -> T {
        loop {
            damage.notified().await;
            self.mend().await;
        }
    }
}
