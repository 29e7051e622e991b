//! For the targets in `node/fuzz`, and only under `cfg(fuzzing)`: the way of a request's body to the seam, without
//! sockets and without other threads.

use super::admission::{Job, choices, streams};
use super::error::ApiError;
use super::text_work::TextWork;
use super::{Limits, Service, chat, completions, idempotency, request, tokenize};
use crate::gateway::{Gateway, StreamSpec};
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use proto::RequestId;
use serde::de::DeserializeOwned;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// The endpoints that take a body.
pub struct Endpoints {
    service: Service,
}

/// The status of a refusal.
pub struct Refused(pub u16);

impl Endpoints {
    pub fn new(gateway: Arc<dyn Gateway>) -> Endpoints {
        let limits = Limits::default();
        Endpoints {
            service: Service {
                gateway,
                text_work: TextWork::new(&limits),
                limits: Arc::new(limits),
                answers: idempotency::Answers::new(),
            },
        }
    }

    /// `POST /v1/chat/completions`, to the streams that would be asked for. A grammar is written and not compiled.
    pub fn chat(&self, body: &[u8]) -> Result<Vec<StreamSpec>, Refused> {
        self.answer(body, async |request| {
            self.opened(&chat::job(&self.service, request).await?)
        })
    }

    /// `POST /v1/completions`, in the same way.
    pub fn completion(&self, body: &[u8]) -> Result<Vec<StreamSpec>, Refused> {
        self.answer(body, async |request| {
            self.opened(&completions::job(&self.service, request).await?)
        })
    }

    /// `POST /tokenize`, to the end of its answer, whose length is given back.
    pub fn tokenize(&self, body: &[u8]) -> Result<usize, Refused> {
        self.answer(body, async |request| {
            let answer = tokenize::tokenized(&self.service, request).await?;
            Ok(read(answer).await)
        })
    }

    /// `POST /detokenize`, in the same way.
    pub fn detokenize(&self, body: &[u8]) -> Result<usize, Refused> {
        self.answer(body, async |request| {
            let answer = tokenize::detokenized(&self.service, request)?;
            Ok(read(answer).await)
        })
    }

    fn answer<T: DeserializeOwned, A>(
        &self,
        body: &[u8],
        work: impl AsyncFnOnce(T) -> Result<A, ApiError>,
    ) -> Result<A, Refused> {
        let answer = request::parse(body).and_then(|request| at_once(work(request)));
        answer.map_err(|error| Refused(error.into_response().status().as_u16()))
    }

    fn opened(&self, job: &Job) -> Result<Vec<StreamSpec>, ApiError> {
        let streams = streams(job, self.service.limits.streams_max)?;
        drop(choices(job, RequestId(0)));
        Ok(streams)
    }
}

/// As a peer reads it: nothing of it is kept.
async fn read(answer: Response) -> usize {
    let mut body = answer.into_body();
    let mut bytes = 0;
    while let Some(Ok(frame)) = body.frame().await {
        bytes += frame.data_ref().map_or(0, |data| data.len());
    }
    bytes
}

/// Nothing on the way to the seam waits for anybody else.
fn at_once<A>(work: impl Future<Output = A>) -> A {
    match pin!(work).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer,
        Poll::Pending => panic!("the way to the seam waits for something"),
    }
}
