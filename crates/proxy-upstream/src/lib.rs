//! Clusters: endpoint sets, load balancing, pools, DNS.
