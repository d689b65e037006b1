//! Sending to a client that may not read: for a while only, and not when the server stops.

use tokio::sync::watch;

use crate::limits::SEND_TIMEOUT;

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome<T> {
    /// The client has made room.
    Done(T),
    /// It has not within [`SEND_TIMEOUT`].
    Late,
    /// The server stops.
    Stopping,
}

/// Waits until something is sent.
pub(crate) async fn in_time<T>(
    sending: impl Future<Output = T>,
    stopping: &watch::Sender<bool>,
) -> Outcome<T> {
    let mut stopping = stopping.subscribe();
    let stopped = async {
        let _ = stopping.wait_for(|stop| *stop).await.is_ok();
    };
    tokio::select! {
        biased;
        sent = sending => Outcome::Done(sent),
        () = stopped => Outcome::Stopping,
        () = tokio::time::sleep(SEND_TIMEOUT) => Outcome::Late,
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_makes_no_room_is_waited_for_a_while_and_not_beyond_the_end() {
        let stopping = watch::Sender::new(false);
        let began = Instant::now();
        let never = in_time(std::future::pending::<()>(), &stopping).await;
        assert_eq!((never, began.elapsed()), (Outcome::Late, SEND_TIMEOUT));
        assert_eq!(in_time(async { 7 }, &stopping).await, Outcome::Done(7));
        stopping.send_replace(true);
        let never = in_time(std::future::pending::<()>(), &stopping).await;
        assert_eq!((never, began.elapsed()), (Outcome::Stopping, SEND_TIMEOUT));
    }
}
