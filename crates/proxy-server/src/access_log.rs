//! Access logs of connections that carry no HTTP.

use std::rc::Rc;

use proxy_core::{AccessLogger, StreamInfo};
use proxy_http::RequestHead;

/// Records a TCP connection with each logger.
pub(crate) fn log(loggers: &[Rc<dyn AccessLogger>], info: &StreamInfo<'_>) {
    if loggers.is_empty() {
        return;
    }
    let no_request = RequestHead::default();
    loggers
        .iter()
        .for_each(|logger| logger.log(info, &no_request, None, None));
}
