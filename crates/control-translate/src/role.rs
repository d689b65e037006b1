//! From whose point of view configuration is made.

/// The four places a filter chain, route or cluster can be for. Each feature has one path, parameterised by this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A sidecar's way in.
    SidecarInbound,
    /// A sidecar's way out.
    SidecarOutbound,
    /// A gateway.
    Gateway,
}

impl Role {
    /// Whether clients of the proxy are on the other side of the network (and not its own application).
    #[must_use]
    pub fn is_inbound(self) -> bool {
        self == Self::SidecarInbound
    }
}
