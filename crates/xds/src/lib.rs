//! ADS client and server as state machines without I/O, and a thin gRPC shell.
