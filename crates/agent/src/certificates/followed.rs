//! The content of a file as it changes.

use std::path::PathBuf;

use tokio::sync::watch;

use crate::limits::ROOTS_POLL_INTERVAL;

/// What a file holds.
#[derive(Clone, Debug)]
pub struct Followed<T>(Option<watch::Receiver<Option<T>>>);

impl<T: Clone + Default + PartialEq + Send + Sync + 'static> Followed<T> {
    /// No file.
    #[must_use]
    pub fn none() -> Self {
        Self(None)
    }

    /// What somebody tells; nothing as long as that is not known.
    #[must_use]
    pub fn of(told: watch::Receiver<Option<T>>) -> Self {
        Self(Some(told))
    }

    /// What `read` makes of a file, and the future that follows it for ever. What is refused leaves what was there, and
    /// is told once, as `what`.
    pub(super) fn of_file<E: std::error::Error + Send>(
        path: PathBuf,
        what: &'static str,
        read: impl Fn(&std::path::Path) -> Result<T, E> + Send + 'static,
    ) -> (Self, impl Future<Output = ()> + Send) {
        let (content, receiver) = watch::channel(None);
        let following = async move {
            let mut told = String::new();
            loop {
                match read(&path).map_err(|error| error.to_string()) {
                    Ok(read) => {
                        told.clear();
                        let read = Some(read);
                        content.send_if_modified(|known| {
                            let changed = *known != read;
                            *known = read;
                            changed
                        });
                    }
                    Err(error) if told != error => {
                        let never = content.borrow().is_none();
                        tracing::warn!(%error, never_read = never, "{what} is not taken");
                        told = error;
                    }
                    Err(_) => {}
                }
                tokio::time::sleep(ROOTS_POLL_INTERVAL).await;
            }
        };
        (Self(Some(receiver)), following)
    }

    /// What there is now, seen by this value from now on; [`Default`] where there is no file, or nothing good has been in
    /// it yet.
    pub(crate) fn see(&mut self) -> T {
        self.see_known().unwrap_or_default()
    }

    /// As [`Followed::see`], but nothing where there is a file and nothing good has been in it yet: what it would say is
    /// not known then.
    pub(crate) fn see_known(&mut self) -> Option<T> {
        match &mut self.0 {
            Some(content) => content.borrow_and_update().clone(),
            None => Some(T::default()),
        }
    }

    /// Waits until there is something else than was seen last.
    pub(crate) async fn changed(&mut self) {
        if let Some(content) = &mut self.0
            && content.changed().await.is_ok()
        {
            return;
        }
        std::future::pending().await
    }
}
