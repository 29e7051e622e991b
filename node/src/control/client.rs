//! The commands' side of the socket.

use super::{ControlAnswer, ControlRequest, socket};
use crate::peers::is_held;
use serde::de::DeserializeOwned;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longer than the node takes to say that the cluster does not agree.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(20);

const ENDED: &str = "it is just ending, because it was stopped or removed from its cluster: what it printed says why; ask another node, \
                     or start it again";

#[derive(thiserror::Error, Debug)]
pub enum ControlError {
    #[error("no node runs on {0}: start one with `cluster up`, or name its folder with --data-dir")]
    NoNode(PathBuf),
    #[error(
        "the node on {0} cannot be asked yet: it is starting, which includes joining and fetching models, or about to end; what it prints says how far \
         it is"
    )]
    NotUp(PathBuf),
    #[error("the node on {0} belongs to somebody else: ask as the user who started it")]
    NotYours(PathBuf),
    #[error("the node on {data_dir} does not answer: {error}")]
    NoAnswer { data_dir: PathBuf, error: io::Error },
    /// In the node's words.
    #[error("{0}")]
    Refused(String),
}

/// `T` is what [`ControlRequest`] names as the answer.
pub fn ask<T: DeserializeOwned>(data_dir: &Path, request: &ControlRequest) -> Result<T, ControlError> {
    let stream = UnixStream::connect(socket(data_dir)).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => ControlError::NotYours(data_dir.to_owned()),
        _ if is_held(data_dir) => ControlError::NotUp(data_dir.to_owned()),
        _ => ControlError::NoNode(data_dir.to_owned()),
    })?;
    let answer: ControlAnswer<T> = exchange(stream, request).map_err(|error| ControlError::NoAnswer {
        data_dir: data_dir.to_owned(),
        error,
    })?;
    answer.map_err(ControlError::Refused)
}

fn exchange<T: DeserializeOwned>(mut stream: UnixStream, request: &ControlRequest) -> io::Result<T> {
    stream.set_read_timeout(Some(ANSWER_WAIT_MAX))?;
    stream.set_write_timeout(Some(ANSWER_WAIT_MAX))?;
    let mut line = serde_json::to_string(request)?;
    line.push('\n');
    stream.write_all(line.as_bytes())?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    if answer.is_empty() {
        // It hung up: a node ends when it is stopped, and when its cluster has removed it.
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, ENDED));
    }
    Ok(serde_json::from_str(&answer)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::DataFolder;

    #[test]
    fn a_node_that_has_no_socket_yet_is_not_said_to_be_none() {
        let folder = std::env::temp_dir().join(format!("cluster-control-{}", std::process::id()));
        let status = || ask::<()>(&folder, &ControlRequest::Status).unwrap_err();
        assert!(matches!(status(), ControlError::NoNode(_)));
        let held = DataFolder::lock(&folder).unwrap();
        assert!(matches!(status(), ControlError::NotUp(_)));
        drop(held);
        assert!(matches!(status(), ControlError::NoNode(_)));
        assert!(DataFolder::lock(&folder).is_ok());
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_node_that_hangs_up_is_said_to_be_ending() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let node = std::thread::spawn(move || {
            let mut asked = String::new();
            BufReader::new(theirs).read_line(&mut asked)
        });
        let error = exchange::<()>(ours, &ControlRequest::Status).unwrap_err();
        assert!(error.to_string().contains("it is just ending"), "{error}");
        assert!(node.join().unwrap().unwrap() > 0);
    }
}
