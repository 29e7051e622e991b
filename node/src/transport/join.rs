//! Becoming a node: the side that has only a token.

use super::error::{CloseCode, JoinError};
use super::{question, tls, tuning};
use crate::trust::{JoinToken, SERVER_NAME};
use proto::join::{JoinAnswer, JoinRequest, Welcome};
use proto::wire::Kind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

const CONNECT_MAX: Duration = Duration::from_secs(5);
/// The cluster has to agree on the new member first.
const ANSWER_MAX: Duration = Duration::from_secs(40);

/// Asks the token's addresses in turn. The secret in `request` is sent only once, and only to who has proved to belong to
/// the authority that the token pins. Within a tokio runtime.
pub async fn join(token: &JoinToken, request: &JoinRequest) -> Result<Welcome, JoinError> {
    let mut failures = Vec::new();
    for address in &token.addresses {
        tracing::info!(%address, "asking to be let in; the cluster has to agree");
        match connect(token, *address).await {
            Ok(line) => {
                let answer = tokio::time::timeout(ANSWER_MAX, line.ask(request)).await;
                return read_answer(*address, answer.unwrap_or_else(|_| Err(too_slow())));
            }
            Err(reason) => failures.push((*address, reason)),
        }
    }
    Err(JoinError::NobodyAnswered(failures))
}

/// To somebody who belongs to the authority, and is ready to listen.
struct Line {
    endpoint: quinn::Endpoint,
    connection: quinn::Connection,
    send: quinn::SendStream,
    receive: quinn::RecvStream,
}

async fn connect(token: &JoinToken, address: SocketAddr) -> Result<Line, String> {
    let own: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let endpoint = quinn::Endpoint::client(own).map_err(|error| error.to_string())?;
    let crypto = tls::joining(token.authority).map_err(|error| error.to_string())?;
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(tuning::asking()));
    let connecting = async {
        let connecting = endpoint
            .connect_with(config, address, SERVER_NAME)
            .map_err(|error| error.to_string())?;
        let connection = connecting.await.map_err(|error| in_words(&error))?;
        // A stream can be opened only once the other side has decided to listen.
        let (send, receive) = connection.open_bi().await.map_err(|error| in_words(&error))?;
        Ok((connection, send, receive))
    };
    let connected = tokio::time::timeout(CONNECT_MAX, connecting).await;
    let (connection, send, receive) =
        connected.unwrap_or_else(|_| Err(format!("no answer within {CONNECT_MAX:?}")))?;
    Ok(Line {
        endpoint,
        connection,
        send,
        receive,
    })
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
