//! Starting and ending one shard host.

use super::setup::ShardSetup;
use crate::config::low::LogFormat;
use proto::wire::{self, Kind};
use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use tokio::process::{ChildStdin, ChildStdout};
use tokio::sync::oneshot;

/// A running shard host. Dropping it kills the process.
pub struct ShardProcess {
    pub stdin: Option<ChildStdin>,
    pub stdout: Option<ChildStdout>,
    /// Completes when the process has ended and was collected.
    pub exited: oneshot::Receiver<io::Result<ExitStatus>>,
    /// Names this very process, also when its number has been given to another.
    handle: OwnedFd,
}

impl ShardProcess {
    /// Must be called inside the runtime.
    pub async fn start(setup: &ShardSetup, log_format: LogFormat) -> io::Result<ShardProcess> {
        let (started_sender, started) = oneshot::channel();
        let (exited_sender, exited) = oneshot::channel();
        let setup = setup.clone();
        // The kernel ends the child together with the *thread* that started it, so that thread must live as long as
        // the child: it waits for it. A thread of the runtime's pool may end at any time.
        thread::Builder::new()
            .name("shard-host".to_owned())
            .spawn(move || match launch(&setup, log_format) {
                Ok((mut child, handle)) => {
                    let _ = started_sender.send(Ok((child.stdin.take(), child.stdout.take(), handle)));
                    let _ = exited_sender.send(child.wait());
                }
                Err(error) => {
                    let _ = started_sender.send(Err(error));
                }
            })?;
        let (stdin, stdout, handle) = started
            .await
            .map_err(|_| io::Error::other("the thread that starts shard hosts died"))??;
        let (stdin, stdout) = (stdin.map(ChildStdin::from_std), stdout.map(ChildStdout::from_std));
        Ok(ShardProcess {
            stdin: stdin.transpose()?,
            stdout: stdout.transpose()?,
            exited,
            handle,
        })
    }

    /// At once, whatever it is doing.
    pub fn kill(&self) {
        // An error means that it has ended already.
        let _ = pidfd_send_signal(&self.handle, Signal::KILL);
    }
}

impl Drop for ShardProcess {
    fn drop(&mut self) {
        self.kill();
    }
}

fn launch(setup: &ShardSetup, log_format: LogFormat) -> io::Result<(Child, OwnedFd)> {
    let log_format = match log_format {
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    };
    let mut child = Command::new(std::env::current_exe()?)
        .arg("shard-host")
        .args(["--parent", &std::process::id().to_string()])
        .args(["--log-format", log_format])
        // A group of its own, so that Ctrl-C in the terminal reaches the node alone, which drains.
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let pid = i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .expect("a child has a process number");
    let handle = pidfd_open(pid, PidfdFlags::empty())?;
    let stdin = child.stdin.as_mut().expect("stdin was asked for");
    // Far smaller than a pipe, so this does not wait.
    stdin.write_all(&wire::frame(Kind::ShardSetup, setup.epoch.0, setup))?;
    Ok((child, handle))
}
