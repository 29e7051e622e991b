//! Becoming a node: the side that has only a token.

use super::error::{CloseCode, JoinError};
use super::{question, tls, tuning};
use crate::random;
use crate::trust::{JoinToken, SERVER_NAME};
use proto::join::{JoinAnswer, JoinRequest, Welcome};
use proto::wire::Kind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

const CONNECT_MAX: Duration = Duration::from_secs(5);
/// The cluster has to agree on the new member first.
const ANSWER_MAX: Duration = Duration::from_secs(40);
/// All pauses together while a busy cluster is asked again, the first of them, and the longest. A node lets in one every two
/// seconds of each network.
const BUSY_MAX: Duration = Duration::from_secs(120);
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(8);

/// Asks the token's addresses in turn, and again later where too many others ask just now. The secret in `request` is sent
/// only once, and only to who has proved to belong to the authority that the token pins. Within a tokio runtime.
pub async fn join(token: &JoinToken, request: &JoinRequest) -> Result<Welcome, JoinError> {
    let mut patience = Patience::new();
    loop {
        let failures = match find(token).await {
            Ok((address, line)) => {
                let answer = tokio::time::timeout(ANSWER_MAX, line.ask(request)).await;
                return read_answer(address, answer.unwrap_or_else(|_| Err(too_slow())));
            }
            Err(failures) => failures,
        };
        let Some(busy) = failures.iter().find(|failure| failure.why == Why::Busy) else {
            return Err(JoinError::NobodyAnswered(in_short(failures)));
        };
        let Some(pause) = patience.pause() else {
            return Err(JoinError::Busy(in_short(failures)));
        };
        let (address, pause) = (busy.address, jittered(pause));
        tracing::info!(%address, ?pause, "too many nodes ask to be let in just now; asking again after a pause");
        tokio::time::sleep(pause).await;
    }
}

/// An address that could not be asked.
struct Failure {
    address: SocketAddr,
    why: Why,
    words: String,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Why {
    /// It is of the cluster, and too many others ask it.
    Busy,
    Other,
}

fn in_short(failures: Vec<Failure>) -> Vec<(SocketAddr, String)> {
    let failures = failures.into_iter();
    failures.map(|failure| (failure.address, failure.words)).collect()
}

/// The first that listens.
async fn find(token: &JoinToken) -> Result<(SocketAddr, Line), Vec<Failure>> {
    let mut failures = Vec::new();
    for address in &token.addresses {
        tracing::info!(%address, "asking to be let in; the cluster has to agree");
        match connect(token, *address).await {
            Ok(line) => return Ok((*address, line)),
            Err((why, words)) => failures.push(Failure {
                address: *address,
                why,
                words,
            }),
        }
    }
    Err(failures)
}

/// How long a busy cluster is waited for: growing pauses, which end.
struct Patience {
    next: Duration,
    left: Duration,
}

impl Patience {
    fn new() -> Patience {
        Patience {
            next: PAUSE_FIRST,
            left: BUSY_MAX,
        }
    }

    fn pause(&mut self) -> Option<Duration> {
        let pause = self.next;
        self.left = self.left.checked_sub(pause)?;
        self.next = (pause * 2).min(PAUSE_MAX);
        Some(pause)
    }
}

/// Between half of it and all of it, so that those who were refused together do not come back together.
fn jittered(pause: Duration) -> Duration {
    let dice = u16::from_le_bytes(random::bytes());
    let half = pause / 2;
    half + half * u32::from(dice) / u32::from(u16::MAX)
}

/// To somebody who belongs to the authority, and is ready to listen.
struct Line {
    endpoint: quinn::Endpoint,
    connection: quinn::Connection,
    send: quinn::SendStream,
    receive: quinn::RecvStream,
}

async fn connect(token: &JoinToken, address: SocketAddr) -> Result<Line, (Why, String)> {
    let own: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let endpoint = quinn::Endpoint::client(own).map_err(other)?;
    let crypto = tls::joining(token.authority).map_err(other)?;
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(tuning::asking()));
    let connecting = async {
        let connecting = endpoint
            .connect_with(config, address, SERVER_NAME)
            .map_err(other)?;
        let connection = connecting.await.map_err(|error| ended(&error))?;
        // A stream can be opened only once the other side has decided to listen.
        let (send, receive) = connection.open_bi().await.map_err(|error| ended(&error))?;
        Ok((connection, send, receive))
    };
    let connected = tokio::time::timeout(CONNECT_MAX, connecting).await;
    let (connection, send, receive) =
        connected.unwrap_or_else(|_| Err(other(format!("no answer within {CONNECT_MAX:?}"))))?;
    Ok(Line {
        endpoint,
        connection,
        send,
        receive,
    })
}

fn other(error: impl ToString) -> (Why, String) {
    (Why::Other, error.to_string())
}

fn ended(error: &quinn::ConnectionError) -> (Why, String) {
    match error {
        error if CloseCode::Busy.is_why(error) => (Why::Busy, "too many ask it at once".to_owned()),
        // On a host under load the other side has forgotten the connection before its farewell was read.
        quinn::ConnectionError::Reset => (Why::Busy, error.to_string()),
        error => (Why::Other, in_words(error)),
    }
}

impl Line {
    async fn ask(mut self, request: &JoinRequest) -> Result<JoinAnswer, String> {
        let answer = self.exchange(request).await;
        let answer = answer.map_err(|reason| match self.connection.close_reason() {
            Some(closed) => in_words(&closed),
            None => reason,
        });
        CloseCode::Done.close(&self.connection);
        let _ = tokio::time::timeout(CONNECT_MAX, self.endpoint.wait_idle()).await;
        answer
    }

    async fn exchange(&mut self, request: &JoinRequest) -> Result<JoinAnswer, String> {
        question::write(&mut self.send, Kind::JoinRequest, request).await?;
        question::read(&mut self.receive, Kind::JoinAnswer).await
    }
}

fn read_answer(address: SocketAddr, answer: Result<JoinAnswer, String>) -> Result<Welcome, JoinError> {
    match answer {
        Ok(JoinAnswer::Welcome(welcome)) => Ok(*welcome),
        Ok(JoinAnswer::Refused(refused)) => Err(JoinError::Refused(refused.reason)),
        Err(reason) => Err(JoinError::Broken { address, reason }),
    }
}

fn too_slow() -> String {
    format!("no answer within {ANSWER_MAX:?}")
}

fn in_words(error: &quinn::ConnectionError) -> String {
    let text = error.to_string();
    match text.contains("UnknownIssuer") || text.contains("unknown_ca") {
        true => {
            "it does not belong to the cluster that the token is for: the token may be older than a change of authority \
             (`cluster authority rotate`; then make another one), or somebody else may be listening there"
                .to_owned()
        }
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_come_to_an_end() {
        let mut patience = Patience::new();
        let pauses: Vec<Duration> = std::iter::from_fn(|| patience.pause()).collect();
        let secs: Vec<u64> = pauses.iter().map(Duration::as_secs).collect();
        assert_eq!(secs[..5], [1, 2, 4, 8, 8]);
        let all: Duration = pauses.iter().sum();
        assert!(all <= BUSY_MAX && all + PAUSE_MAX > BUSY_MAX, "{all:?}");
        for _ in 0..100 {
            let pause = jittered(PAUSE_MAX);
            assert!(pause >= PAUSE_MAX / 2 && pause <= PAUSE_MAX, "{pause:?}");
        }
    }
}
