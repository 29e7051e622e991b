//! What the committed log means.
