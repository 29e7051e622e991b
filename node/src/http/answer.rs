//! An answer in one piece.

use super::dialect::WholeChoice;
use super::error::ApiError;
use super::session::{Session, What};
use axum::Json;
use axum::response::{IntoResponse, Response};

/// Waits for every choice. When the client goes away, so does this future, and the session with it.
pub async fn whole(mut session: Session) -> Result<Response, ApiError> {
    let mut choices: Vec<WholeChoice> = Vec::new();
    choices.resize_with(session.choices(), WholeChoice::default);
    while let Some(news) = session.next().await {
        for news in news? {
            match news.what {
                What::Opened => {}
                What::Fragment(fragment) => choices[news.choice as usize].add(fragment),
            }
        }
    }
    Ok(Json(session.whole(&choices)).into_response())
}
