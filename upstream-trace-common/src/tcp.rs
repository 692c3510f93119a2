//! Numbers of the kernel's TCP that both sides know: records carry them.
//!
//! Those of the ABI, and those that are alike on all kernels from 5.10 to 7.2.

/// `enum tcp_state`, `include/net/tcp_states.h`; ABI since `INET_DIAG`.
pub mod state {
    pub const ESTABLISHED: u8 = 1;
    pub const SYN_SENT: u8 = 2;
    pub const SYN_RECV: u8 = 3;
    pub const FIN_WAIT1: u8 = 4;
    pub const FIN_WAIT2: u8 = 5;
    pub const TIME_WAIT: u8 = 6;
    pub const CLOSE: u8 = 7;
    pub const CLOSE_WAIT: u8 = 8;
    pub const LAST_ACK: u8 = 9;
    pub const LISTEN: u8 = 10;
    pub const CLOSING: u8 = 11;
    pub const NEW_SYN_RECV: u8 = 12;
}

/// Bits in the flags byte of a TCP header.
pub mod flag {
    pub const SYN: u8 = 1 << 1;
    pub const RST: u8 = 1 << 2;
    pub const ACK: u8 = 1 << 4;
}

/// Bit number of `SOCK_DONE` in `sk_flags` (`enum sock_flags`, `include/net/sock.h`): a FIN was received.
pub const SOCK_DONE: u32 = 1;
