//! Ports that are about to become free.

use std::io;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// A process that was killed a moment ago, or one of its children, may still hold it.
const FREE_WITHIN: Duration = Duration::from_secs(1);
const TRY_AGAIN: Duration = Duration::from_millis(50);

/// What `bind` gives, tried again for a while where the port is in use.
pub async fn once_free<T>(mut bind: impl AsyncFnMut() -> io::Result<T>) -> io::Result<T> {
    let deadline = Instant::now() + FREE_WITHIN;
    loop {
        match bind().await {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                sleep(TRY_AGAIN).await;
            }
            bound => return bound,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_port_that_becomes_free_is_taken_and_another_is_not_waited_for() {
        let mut left = 5;
        let bound = once_free(async || {
            left -= 1;
            match left {
                0 => Ok("bound"),
                _ => Err(io::ErrorKind::AddrInUse.into()),
            }
        });
        assert_eq!(bound.await.unwrap(), "bound");
        let began = Instant::now();
        let refused = once_free(async || Err::<(), _>(io::ErrorKind::PermissionDenied.into())).await;
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(began.elapsed(), Duration::ZERO);
        let used = once_free(async || Err::<(), _>(io::ErrorKind::AddrInUse.into())).await;
        assert_eq!(used.unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert!(began.elapsed() >= FREE_WITHIN);
    }
}
