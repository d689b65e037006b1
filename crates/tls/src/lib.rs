//! The one knower of rustls: server and client configurations, local CA.
