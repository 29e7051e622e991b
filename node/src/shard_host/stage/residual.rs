//! Rows on their way from one stage to the next, as they are: `f32`, little-endian.
//!
//! ```text
//! chunk 0    step u64, values u64, and of each stage so far what it computed, u64 (nanoseconds)
//! chunk 1 …  values, at most CHUNK_VALUES in each
//! ```

use crate::transport::{FrameReceiver, FrameSender, LinkError};
use bytes::Bytes;
use proto::{Epoch, Span, StepId};

const WORD_BYTES: usize = 8;
const VALUE_BYTES: usize = 4;
/// Small enough that the first are on their way while the last are written.
const CHUNK_VALUES: usize = 1 << 18;
/// 512 rows of the widest models known, several times over.
const VALUES_MAX: u64 = 1 << 26;

/// What a stage has made of a step.
#[derive(Clone, PartialEq, Debug)]
pub struct Residual {
    pub step: StepId,
    /// How long each stage so far has computed, in their order.
    pub computed: Vec<Span>,
    /// Row-major `(rows, hidden)`.
    pub values: Vec<f32>,
}

#[derive(thiserror::Error, Debug)]
pub enum ResidualError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("the stage before is in epoch {found}, this one in {expected}")]
    Epoch { found: u64, expected: u64 },
    #[error("{values} values were announced; at most {VALUES_MAX} are taken")]
    TooMany { values: u64 },
    #[error("it broke off within the rows of a step")]
    BrokenOff,
}

pub async fn send(sender: &mut FrameSender, epoch: Epoch, residual: &Residual) -> Result<(), LinkError> {
    let words = [residual.step.0, residual.values.len() as u64];
    let words = words
        .into_iter()
        .chain(residual.computed.iter().map(|span| span.0));
    let header: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
    let mut chunks = residual.values.chunks(CHUNK_VALUES);
    let first = chunks.next().map(bytes_of).map(Bytes::from);
    let together = [Bytes::from(header)].into_iter().chain(first);
    sender.send_chunks(epoch.0, together).await?;
    for values in chunks {
        sender.send_chunk(epoch.0, Bytes::from(bytes_of(values))).await?;
    }
    Ok(())
}

/// From the last of `stages` stages. `None`: it has finished.
pub async fn receive(
    receiver: &mut FrameReceiver,
    expected: Epoch,
    stages: usize,
) -> Result<Option<Residual>, ResidualError> {
    let mut header = vec![0; (2 + stages) * WORD_BYTES];
    let Some(found) = receiver.next_into(&mut header).await? else {
        return Ok(None);
    };
    if found != expected.0 {
        let expected = expected.0;
        return Err(ResidualError::Epoch { found, expected });
    }
    let words = header.as_chunks::<WORD_BYTES>().0;
    let word = |place: usize| u64::from_le_bytes(words[place]);
    let values = word(1);
    if values > VALUES_MAX {
        return Err(ResidualError::TooMany { values });
    }
    // With room for the stage that it is for.
    let mut computed = Vec::with_capacity(stages + 1);
    computed.extend((0..stages).map(|stage| Span(word(2 + stage))));
    Ok(Some(Residual {
        step: StepId(word(0)),
        computed,
        values: receive_values(receiver, values as usize).await?,
    }))
}

async fn receive_values(receiver: &mut FrameReceiver, count: usize) -> Result<Vec<f32>, ResidualError> {
    let mut bytes = vec![0; count.min(CHUNK_VALUES) * VALUE_BYTES];
    let mut values = Vec::new();
    while values.len() < count {
        let chunk = (count - values.len()).min(CHUNK_VALUES);
        let bytes = &mut bytes[..chunk * VALUE_BYTES];
        let arrived = receiver.next_into(bytes).await?;
        arrived.ok_or(ResidualError::BrokenOff)?;
        values.reserve(chunk);
        values.extend(
            bytes
                .as_chunks::<VALUE_BYTES>()
                .0
                .iter()
                .map(|bytes| f32::from_le_bytes(*bytes)),
        );
    }
    Ok(values)
}

fn bytes_of(values: &[f32]) -> Vec<u8> {
    let mut bytes = vec![0; values.len() * VALUE_BYTES];
    let places = bytes.as_chunks_mut::<VALUE_BYTES>().0;
    for (place, value) in places.iter_mut().zip(values) {
        *place = value.to_le_bytes();
    }
    bytes
}
