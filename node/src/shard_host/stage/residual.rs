//! Rows on their way from one stage to the next, as they are: `f32`, little-endian.
//!
//! ```text
//! chunk 0    step u64, computed u64 (nanoseconds), values u64
//! chunk 1 …  values, at most CHUNK_VALUES in each
//! ```

use crate::transport::{FrameReceiver, FrameSender, LinkError};
use bytes::Bytes;
use proto::{Epoch, Span, StepId};

const HEADER_BYTES: usize = 24;
const VALUE_BYTES: usize = 4;
/// Small enough that the first are on their way while the last are written.
const CHUNK_VALUES: usize = 1 << 18;
/// 512 rows of the widest models known, several times over.
const VALUES_MAX: u64 = 1 << 26;

/// What a stage has made of a step.
#[derive(Clone, PartialEq, Debug)]
pub struct Residual {
    pub step: StepId,
    /// How long this stage and those before it have computed.
    pub computed: Span,
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
    let words = [residual.step.0, residual.computed.0, residual.values.len() as u64];
    let header: Vec<u8> = words.into_iter().flat_map(u64::to_le_bytes).collect();
    sender.send_chunk(epoch.0, Bytes::from(header)).await?;
    for values in residual.values.chunks(CHUNK_VALUES) {
        sender.send_chunk(epoch.0, Bytes::from(bytes_of(values))).await?;
    }
    Ok(())
}

/// `None`: the stage before has finished.
pub async fn receive(
    receiver: &mut FrameReceiver,
    expected: Epoch,
) -> Result<Option<Residual>, ResidualError> {
    let mut header = [0; HEADER_BYTES];
    let Some(found) = receiver.next_into(&mut header).await? else {
        return Ok(None);
    };
    if found != expected.0 {
        let expected = expected.0;
        return Err(ResidualError::Epoch { found, expected });
    }
    let word = |place: usize| {
        let bytes = header[place * 8..][..8].try_into().expect("eight bytes");
        u64::from_le_bytes(bytes)
    };
    let values = word(2);
    if values > VALUES_MAX {
        return Err(ResidualError::TooMany { values });
    }
    Ok(Some(Residual {
        step: StepId(word(0)),
        computed: Span(word(1)),
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
