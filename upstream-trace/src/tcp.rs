//! The kernel's TCP vocabulary that userspace needs: states and errno names.
//!
//! Must not know: events, records, I/O.

use schemars::JsonSchema;
use serde::Serialize;
use upstream_trace_common::tcp::state;

macro_rules! states {
    ($($variant:ident = $number:ident, $text:literal;)*) => {
        /// `enum tcp_state`, `include/net/tcp_states.h`; the numbers are kernel ABI since `INET_DIAG`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, JsonSchema)]
        #[repr(u8)]
        pub enum State { $(#[serde(rename = $text)] $variant = state::$number),* }

        impl State {
            /// Every state, in the order of their numbers, which begin with 1.
            pub const ALL: [Self; Self::COUNT] = [$(Self::$variant),*];
            pub const COUNT: usize = [$(state::$number),*].len();

            /// The state with this kernel number.
            pub const fn from_kernel(number: u8) -> Option<Self> {
                match number { $(state::$number => Some(Self::$variant),)* _ => None }
            }

            /// The kernel's name without `TCP_`.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }
        }
    };
}

states! {
    Established = ESTABLISHED, "ESTABLISHED";
    SynSent = SYN_SENT, "SYN_SENT";
    SynRecv = SYN_RECV, "SYN_RECV";
    FinWait1 = FIN_WAIT1, "FIN_WAIT1";
    FinWait2 = FIN_WAIT2, "FIN_WAIT2";
    TimeWait = TIME_WAIT, "TIME_WAIT";
    Close = CLOSE, "CLOSE";
    CloseWait = CLOSE_WAIT, "CLOSE_WAIT";
    LastAck = LAST_ACK, "LAST_ACK";
    Listen = LISTEN, "LISTEN";
    Closing = CLOSING, "CLOSING";
    NewSynRecv = NEW_SYN_RECV, "NEW_SYN_RECV";
}

impl State {
    /// This end's FIN is on its way, or has arrived.
    pub const fn has_sent_fin(self) -> bool {
        matches!(
            self,
            Self::FinWait1 | Self::FinWait2 | Self::Closing | Self::LastAck | Self::TimeWait
        )
    }
}

/// Those that tell how a connection ended, as `sk_err` has them.
pub mod errno {
    /// A timer gave up.
    pub const ETIMEDOUT: u32 = libc::ETIMEDOUT.cast_unsigned();
    /// `tcp_abort`, an administrator's kill.
    pub const ECONNABORTED: u32 = libc::ECONNABORTED.cast_unsigned();
    /// A reset, or an ICMP error, answered the SYN.
    pub const ECONNREFUSED: u32 = libc::ECONNREFUSED.cast_unsigned();
    /// A reset came.
    pub const ECONNRESET: u32 = libc::ECONNRESET.cast_unsigned();
    /// The same after the peer's FIN; or what a BPF sockmap was to pass on came to nothing (`sk_psock_backlog`).
    pub const EPIPE: u32 = libc::EPIPE.cast_unsigned();
    /// TLS in the kernel could not decrypt a record (`tls_err_abort`).
    pub const EBADMSG: u32 = libc::EBADMSG.cast_unsigned();

    /// What the kernel makes of an ICMP "destination unreachable", the same in 5.10 to 7.2: `icmp_err_convert`
    /// (`net/ipv4/icmp.c`), `icmpv6_err_convert` and `tab_unreach` (`net/ipv6/icmp.c`).
    pub const fn of_unreachable(is_v4: bool, kind: u8, code: u8) -> Option<&'static str> {
        Some(match (is_v4, kind, code) {
            (true, 3, 0 | 6 | 9 | 11) | (false, 1, 0) => "ENETUNREACH",
            (true, 3, 1 | 10 | 12..=15) | (false, 1, 2 | 3) => "EHOSTUNREACH",
            (true, 3, 2) => "ENOPROTOOPT",
            (true, 3, 3) | (false, 1, 4) => "ECONNREFUSED",
            (true, 3, 4) => "EMSGSIZE",
            (true, 3, 5) => "EOPNOTSUPP",
            (true, 3, 7) => "EHOSTDOWN",
            (true, 3, 8) => "ENONET",
            (false, 1, 1 | 5 | 6) => "EACCES",
            _ => return None,
        })
    }
}

macro_rules! names {
    ($(#[$doc:meta])* $function:ident: $($name:ident)*) => {
        $(#[$doc])*
        pub const fn $function(number: u32) -> Option<&'static str> {
            $(const $name: u32 = libc::$name.cast_unsigned();)*
            match number {
                $($name => Some(stringify!($name)),)*
                _ => None,
            }
        }
    };
}

names! {
    /// The name of an errno that TCP reports; `None` for 0 and for numbers it never uses.
    errno_name:
    EPERM EINTR EIO ENOMEM EACCES EINVAL EPIPE EPROTO EMSGSIZE ENOPROTOOPT EOPNOTSUPP EADDRINUSE
    EADDRNOTAVAIL ENETDOWN ENETUNREACH ECONNABORTED ECONNRESET ENOBUFS EISCONN ENOTCONN ETIMEDOUT
    ECONNREFUSED EHOSTDOWN EHOSTUNREACH ENONET ENODEV EBADMSG
}

names! {
    /// The name of a signal that can end a process; `None` for 0 and for those without a name of their own.
    signal_name:
    SIGHUP SIGINT SIGQUIT SIGILL SIGTRAP SIGABRT SIGBUS SIGFPE SIGKILL SIGUSR1 SIGSEGV SIGUSR2 SIGPIPE
    SIGALRM SIGTERM SIGSTKFLT SIGXCPU SIGXFSZ SIGVTALRM SIGPROF SIGIO SIGPWR SIGSYS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_the_kernels() {
        assert_eq!(State::from_kernel(1), Some(State::Established));
        assert_eq!(State::from_kernel(12), Some(State::NewSynRecv));
        assert_eq!(State::from_kernel(0), None);
        assert_eq!(State::from_kernel(13), None);
        assert_eq!(errno_name(111), Some("ECONNREFUSED"));
        assert_eq!(errno_name(0), None);
        assert_eq!(errno::of_unreachable(true, 3, 13), Some("EHOSTUNREACH"));
        assert_eq!(errno::of_unreachable(false, 1, 1), Some("EACCES"));
        assert_eq!(errno::of_unreachable(true, 11, 0), None);
        assert_eq!(signal_name(9), Some("SIGKILL"));
        assert_eq!(signal_name(0), None);
    }
}
