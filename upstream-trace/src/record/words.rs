//! The words that lines are made of: closed sets, each an enum with its text in the output and on the command line.
//!
//! Must not know: lines.

/// One closed set of words: the enum, its text in output and on the command line.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        pub enum $name { $($(#[$vdoc])* #[serde(rename = $text)] $variant),* }

        impl $name {
            /// Every value, in the order of the contract.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The word in the output.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }
        }
    };
}

pub(crate) use words;

words!(
    /// Address family; a v4-mapped v6 socket is `ipv4`.
    Family {
        V4 = "ipv4",
        V6 = "ipv6",
    }
);
words!(
    /// Which end of the handshake this socket was.
    #[derive(Default)]
    Role {
        Client = "client",
        Server = "server",
        #[default]
        Unknown = "unknown",
    }
);
impl Role {
    /// That of the other end.
    #[must_use]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
            Self::Unknown => Self::Unknown,
        }
    }
}

words!(
    /// How the owner of a socket was found, best first.
    Attribution {
        /// Taken in the owner's own connect or accept.
        Exact = "exact",
        /// The process that holds the socket's inode.
        Inode = "inode",
        /// The process seen closing it.
        Closer = "closer",
        /// Owner of the listening socket.
        Listener = "listener",
        /// Found by the scan at start-up.
        Snapshot = "snapshot",
        /// Nothing names the owner.
        None = "none",
    }
);
words!(
    /// Which way a reset went, seen from this socket.
    Direction {
        Sent = "sent",
        Received = "received",
    }
);
words!(
    /// Where the reason of a reset comes from.
    ReasonSource {
        /// The kernel gave it.
        Kernel = "kernel",
        /// Concluded from what else was seen.
        Derived = "derived",
        Unknown = "unknown",
    }
);
words!(
    /// Whose stack sent a reset.
    Origin {
        /// This socket's own stack.
        Local = "local",
        /// The other end, which is on this node.
        PeerOnNode = "peer_on_node",
        /// Somewhere beyond this node.
        OffNode = "off_node",
        /// Neither end's stack: a firewall or middlebox.
        InPath = "in_path",
        Unknown = "unknown",
    }
);
words!(
    /// How sure the origin of a reset is.
    Confidence {
        /// The stacks on this node told.
        Certain = "certain",
        /// It was concluded: from the reset's packet, from what listens on this node, or because a filter of this node dropped what may
        /// be a copy of the SYN.
        Likely = "likely",
    }
);
words!(
    /// What became of a connection.
    Verdict {
        Ok = "ok",
        Refused = "refused",
        ConnectTimeout = "connect_timeout",
        ConnectCanceled = "connect_canceled",
        Unreachable = "unreachable",
        NoLocalPort = "no_local_port",
        NeverAccepted = "never_accepted",
        ResetBeforePayload = "reset_before_payload",
        Probe = "probe",
        ResetBeforeResponse = "reset_before_response",
        ResetMidStream = "reset_mid_stream",
        ResetIdle = "reset_idle",
        ClosedBeforeResponse = "closed_before_response",
        Timeout = "timeout",
        LocalAbort = "local_abort",
    }
);
words!(
    /// Resets that no application asked for: before any payload, or before the response.
    Flag {
        ResetBeforePayload = "reset_before_payload",
        ResetBeforeResponse = "reset_before_response",
    }
);
words!(
    /// The root cause of a failure, where what is known carries one.
    Cause {
        /// Nothing listens there.
        NoListener = "no_listener",
        /// A firewall or policy refused it.
        Firewall = "firewall",
        /// TLS: versions, ALPN, SNI, certificates.
        TlsMismatch = "tls_mismatch",
        /// A pool, a queue, sockets or ports are used up.
        Exhaustion = "exhaustion",
        /// The server could not do its work: it crashed, stopped, is stuck or forgot the connection.
        UnhealthyEndpoint = "unhealthy_endpoint",
        /// The ends do not speak the same protocol.
        ProtocolMismatch = "protocol_mismatch",
        /// Packets were lost, not answered or reset on the way, or the other host is dead.
        Network = "network",
        /// A kept connection was closed or dropped by one end while the other still used it.
        IdleClose = "idle_close",
        /// The client waited no longer.
        ClientGaveUp = "client_gave_up",
    }
);
words!(
    /// Where a failure lies.
    Layer {
        Tcp = "tcp",
        Tls = "tls",
        /// The application above TCP, whatever it speaks.
        Http = "http",
        /// None of these, or it cannot be told.
        None = "none",
    }
);
words!(
    /// What happened at a step of a connection's life.
    StepKind {
        Connect = "connect",
        State = "state",
        SynRetransmit = "syn_retransmit",
        Accept = "accept",
        ResetSent = "reset_sent",
        ResetReceived = "reset_received",
        Error = "error",
    }
);
