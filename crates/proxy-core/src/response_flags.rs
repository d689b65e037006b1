//! Why a response was not simply the upstream's: Envoy's response flags (`%RESPONSE_FLAGS%`,
//! `StreamInfo::CoreResponseFlag`), with their short and long names.

/// Declares the flags with their short names.
macro_rules! response_flags {
    ($($flag:ident = $short:literal, $doc:literal;)*) => {
        /// One reason. The long name is the variant's name.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        pub enum ResponseFlag {
            $(#[doc = $doc] $flag,)*
        }

        impl ResponseFlag {
            /// Every flag, by index.
            pub const ALL: &'static [ResponseFlag] = &[$(ResponseFlag::$flag,)*];

            /// The short name, as `%RESPONSE_FLAGS%` prints it.
            pub const fn short(self) -> &'static str {
                match self { $(ResponseFlag::$flag => $short,)* }
            }

            /// The long name, as `%RESPONSE_FLAGS_LONG%` prints it.
            pub const fn long(self) -> &'static str {
                match self { $(ResponseFlag::$flag => stringify!($flag),)* }
            }
        }
    };
}

response_flags! {
    FailedLocalHealthCheck = "LH", "The local service failed its health check.";
    NoHealthyUpstream = "UH", "The cluster has no healthy host.";
    UpstreamRequestTimeout = "UT", "The route's or the try's timeout ran out.";
    LocalReset = "LR", "The connection was reset locally.";
    UpstreamRemoteReset = "UR", "The upstream reset the stream.";
    UpstreamConnectionFailure = "UF", "No connection to the upstream could be made.";
    UpstreamConnectionTermination = "UC", "The upstream closed the connection.";
    UpstreamOverflow = "UO", "A circuit breaker was open.";
    NoRouteFound = "NR", "No route, or no filter chain, matched.";
    DelayInjected = "DI", "A fault delayed the request.";
    FaultInjected = "FI", "A fault aborted the request.";
    RateLimited = "RL", "The rate limit said no.";
    UnauthorizedExternalService = "UAEX", "External authorisation said no.";
    RateLimitServiceError = "RLSE", "The rate limit service failed.";
    DownstreamConnectionTermination = "DC", "The client closed the connection.";
    UpstreamRetryLimitExceeded = "URX", "All tries were used up.";
    StreamIdleTimeout = "SI", "The stream was idle for too long.";
    InvalidEnvoyRequestHeaders = "IH", "A strictly checked x-envoy header was invalid.";
    DownstreamProtocolError = "DPE", "The client broke the protocol.";
    UpstreamMaxStreamDurationReached = "UMSDR", "The upstream stream lasted too long.";
    ResponseFromCacheFilter = "RFCF", "The answer came from a cache.";
    NoFilterConfigFound = "NFCF", "A filter's configuration did not arrive in time.";
    DurationTimeout = "DT", "The stream or connection lasted too long.";
    UpstreamProtocolError = "UPE", "The upstream broke the protocol.";
    NoClusterFound = "NC", "The route's cluster does not exist.";
    OverloadManagerTerminated = "OM", "The overload manager ended the request.";
    DnsResolutionFailed = "DF", "The host's name did not resolve.";
    DropOverload = "DO", "The endpoint assignment's drop policy dropped the request.";
    DownstreamRemoteReset = "DR", "The client reset the stream.";
    UnconditionalDropOverload = "UDO", "The endpoint assignment drops everything.";
}

/// Most flags that one stream can have; more are forgotten. No stream has been seen with more than four.
const MOST_FLAGS: usize = 12;

/// Bits that hold one flag in the order of setting.
const FLAG_BITS: u32 = 5;

/// The [`ResponseFlag`]s of a stream, in the order in which they were set: so Envoy prints them.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ResponseFlags {
    set: u32,
    /// Indexes of the flags, [`FLAG_BITS`] each, the first in the lowest bits.
    order: u64,
    count: u8,
}

const _: () = assert!(ResponseFlag::ALL.len() <= 1 << FLAG_BITS, "an index must fit");
const _: () = assert!(MOST_FLAGS as u32 * FLAG_BITS <= u64::BITS, "the indexes must fit");

impl ResponseFlags {
    /// No flag.
    pub const NONE: ResponseFlags = ResponseFlags {
        set: 0,
        order: 0,
        count: 0,
    };

    /// Adds a flag.
    pub fn set(&mut self, flag: ResponseFlag) {
        if !self.contains(flag) && usize::from(self.count) < MOST_FLAGS {
            self.set |= 1 << flag as u8;
            self.order |= (flag as u64) << (u32::from(self.count) * FLAG_BITS);
            self.count += 1;
        }
    }

    /// True when the flag is set.
    pub const fn contains(self, flag: ResponseFlag) -> bool {
        self.set & (1 << flag as u8) != 0
    }

    /// True when no flag is set.
    pub const fn is_empty(self) -> bool {
        self.count == 0
    }

    /// The flags in the order in which they were set.
    pub fn iter(self) -> impl Iterator<Item = ResponseFlag> {
        (0..u32::from(self.count)).map(move |position| {
            let index = (self.order >> (position * FLAG_BITS)) & ((1 << FLAG_BITS) - 1);
            ResponseFlag::ALL[index as usize]
        })
    }
}

impl From<ResponseFlag> for ResponseFlags {
    fn from(flag: ResponseFlag) -> Self {
        let mut flags = ResponseFlags::NONE;
        flags.set(flag);
        flags
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_in_the_order_of_setting_and_once() {
        let mut flags = ResponseFlags::from(ResponseFlag::UpstreamRetryLimitExceeded);
        flags.set(ResponseFlag::UpstreamConnectionFailure);
        flags.set(ResponseFlag::UpstreamRetryLimitExceeded);
        let names: Vec<_> = flags.iter().map(|flag| (flag.short(), flag.long())).collect();
        assert_eq!(
            names,
            [
                ("URX", "UpstreamRetryLimitExceeded"),
                ("UF", "UpstreamConnectionFailure")
            ]
        );
        assert!(flags.contains(ResponseFlag::UpstreamConnectionFailure));
        assert!(!flags.is_empty() && ResponseFlags::NONE.is_empty());
    }
}
