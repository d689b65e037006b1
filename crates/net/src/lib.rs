//! Sockets, original destination, network namespaces, nftables, descriptor passing.
