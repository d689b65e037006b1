//! HTTP/1 codec and the Headers type.
