//! The one list of kernel fields that are read, and how an absent one is written down.
//!
//! The kernel side turns each line into a read-only global that holds the field's byte offset; the
//! agent fills it from the running kernel's BTF. An offset of 0 is legal (`skc_daddr` has it), so
//! absence is [`ABSENT`].

/// The offset of a field that the running kernel does not have, or has with another size.
pub const ABSENT: u32 = u32::MAX;

/// A kernel struct member, found by name at start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Name of the read-only global in the BPF object.
    pub global: &'static str,
    /// Kernel struct.
    pub of: &'static str,
    /// Member path; anonymous structs and unions in between are not named.
    pub path: &'static str,
    /// Size in bytes of the load; a member of another size counts as absent.
    pub size: u32,
    /// What is lost without it; `None` where the tracer cannot work without it, empty where a kernel that
    /// lacks it lacks what it is about.
    pub loss: Option<&'static str>,
}

/// Calls `$with!` with one `GLOBAL: size = "struct", "path", loss;` line per field.
#[macro_export]
macro_rules! kernel_fields {
    ($with:ident) => {
        $with! {
            SK_FAMILY: 2 = "sock", "__sk_common.skc_family", None;
            SK_STATE: 1 = "sock", "__sk_common.skc_state", None;
            SK_NUM: 2 = "sock", "__sk_common.skc_num", None;
            SK_DPORT: 2 = "sock", "__sk_common.skc_dport", None;
            SK_DADDR: 4 = "sock", "__sk_common.skc_daddr", None;
            SK_RCV_SADDR: 4 = "sock", "__sk_common.skc_rcv_saddr", None;
            SK_V6_DADDR: 16 = "sock", "__sk_common.skc_v6_daddr", Some("IPv6 addresses");
            SK_V6_RCV_SADDR: 16 = "sock", "__sk_common.skc_v6_rcv_saddr", Some("IPv6 addresses");
            SK_NET: 8 = "sock", "__sk_common.skc_net.net", Some("network namespace");
            SK_PROTOCOL: 2 = "sock", "sk_protocol", None;
            SK_ERR: 4 = "sock", "sk_err", Some("errno");
            SK_FLAGS: 8 = "sock", "__sk_common.skc_flags", Some("whether a FIN was received");
            SK_SHUTDOWN: 1 = "sock", "sk_shutdown", Some("whether who shut a connection down waits for an answer");
            SK_SOCKET: 8 = "sock", "sk_socket", Some("whether a connection was accepted");
            SK_ERROR_QUEUE_LAST: 8 = "sock", "sk_error_queue.prev", Some("type and sender of ICMP errors");
            SK_ACK_BACKLOG: 4 = "sock", "sk_ack_backlog", Some("how full accept queues are");
            SK_MAX_ACK_BACKLOG: 4 = "sock", "sk_max_ack_backlog", Some("how full accept queues are");
            SK_LINGERTIME: 8 = "sock", "sk_lingertime", Some("whether a reset was sent on purpose");
            MPTCP_FIRST: 8 = "mptcp_sock", "first", Some("");
            SOCKET_SK: 8 = "socket", "sk", Some("sockets that are older than the tracer");
            FILE_INODE: 8 = "file", "f_inode", Some("sockets that are older than the tracer, on 5.10");
            FILE_PRIVATE: 8 = "file", "private_data", Some("sockets that are older than the tracer, on 5.10");
            INODE_SB: 8 = "inode", "i_sb", Some("sockets that are older than the tracer, on 5.10");
            SB_MAGIC: 8 = "super_block", "s_magic", Some("sockets that are older than the tracer, on 5.10");
            CGROUP_KN: 8 = "cgroup", "kn", Some("cgroup id");
            KN_ID: 8 = "kernfs_node", "id", Some("cgroup id");
            CGROUP_PARENT: 8 = "cgroup", "self.parent", Some("filters by cgroup and container");
            CSS_CGROUP: 8 = "cgroup_subsys_state", "cgroup", Some("filters by cgroup and container");
            NET_INUM: 4 = "net", "ns.inum", Some("network namespace");
            NET_PORT_RANGE: 4 = "net", "ipv4.ip_local_ports.range", Some("the range of local ports");
            NET_PORT_RANGE_ENDS: 8 = "net", "ipv4.ip_local_ports.range", Some("the range of local ports");
            INET_PORT_RANGE: 4 = "tcp_sock", "inet_conn.icsk_inet.local_port_range", Some("");
            INET_SPORT: 2 = "tcp_sock", "inet_conn.icsk_inet.inet_sport", None;
            TP_BYTES_RECEIVED: 8 = "tcp_sock", "bytes_received", Some("payload bytes received");
            TP_BYTES_ACKED: 8 = "tcp_sock", "bytes_acked", Some("payload bytes acknowledged");
            TP_BYTES_SENT: 8 = "tcp_sock", "bytes_sent", Some("payload bytes sent");
            TP_BYTES_RETRANS: 8 = "tcp_sock", "bytes_retrans", Some("payload bytes sent");
            TP_SEGS_OUT: 4 = "tcp_sock", "segs_out", Some("whether a SYN left");
            TP_SND_UNA: 4 = "tcp_sock", "snd_una", Some("unacknowledged bytes; the other end of a translated address");
            TP_WRITE_SEQ: 4 = "tcp_sock", "write_seq", Some("unacknowledged bytes");
            TP_RCV_NXT: 4 = "tcp_sock", "rcv_nxt", Some("unread bytes; the other end of a translated address");
            TP_COPIED_SEQ: 4 = "tcp_sock", "copied_seq", Some("unread bytes");
            TP_SRTT: 4 = "tcp_sock", "srtt_us", Some("round-trip time");
            TP_TOTAL_RETRANS: 4 = "tcp_sock", "total_retrans", Some("retransmits");
            TP_LSNDTIME: 4 = "tcp_sock", "lsndtime", Some("idle time; order of the last payloads");
            TP_LRCVTIME: 4 = "tcp_sock", "inet_conn.icsk_ack.lrcvtime", Some("idle time; order of the last payloads");
            TASK_TGID: 4 = "task_struct", "tgid", Some("name of a process that is gone at once");
            TASK_LEADER: 8 = "task_struct", "group_leader", Some("name of a process that is gone at once");
            TASK_COMM: 16 = "task_struct", "comm", Some("name of a process that is gone at once");
            TASK_START: 8 = "task_struct", "start_boottime", Some("telling a reused pid from the old one");
            TASK_CRED: 8 = "task_struct", "cred", Some("uid of a process that is gone at once");
            CRED_UID: 4 = "cred", "uid", Some("uid of a process that is gone at once");
            TASK_CGROUPS: 8 = "task_struct", "cgroups", Some("cgroup id of a process");
            CSS_SET_CGROUP: 8 = "css_set", "dfl_cgrp", Some("cgroup id of a process");
            TASK_FLAGS: 4 = "task_struct", "flags", Some("telling kernel threads from processes");
            TASK_SIGNAL: 8 = "task_struct", "signal", Some("the signal that ended a process");
            SIGNAL_EXIT_CODE: 4 = "signal_struct", "group_exit_code", Some("the signal that ended a process");
            SKB_DEV: 8 = "sk_buff", "dev", Some("network namespace of resets that belong to no socket");
            DEV_NET: 8 = "net_device", "nd_net.net", Some("network namespace of resets that belong to no socket");
            SKB_SK: 8 = "sk_buff", "sk", Some("network namespace of packets that a filter drops");
            SKB_CB: 48 = "sk_buff", "cb", Some("type and sender of ICMP errors");
            EXTERR_ORIGIN: 1 = "sock_exterr_skb", "ee.ee_origin", Some("type and sender of ICMP errors");
            EXTERR_TYPE: 1 = "sock_exterr_skb", "ee.ee_type", Some("type and sender of ICMP errors");
            EXTERR_CODE: 1 = "sock_exterr_skb", "ee.ee_code", Some("type and sender of ICMP errors");
            SKB_IIF: 4 = "sk_buff", "skb_iif", Some("that a packet came by loopback and needs no look");
            SKB_HEAD: 8 = "sk_buff", "head", Some("addresses of resets that belong to no socket");
            SKB_NETWORK: 2 = "sk_buff", "network_header", Some("addresses of resets that belong to no socket");
            SKB_TRANSPORT: 2 = "sk_buff", "transport_header", Some("addresses of resets that belong to no socket");
        }
    };
}

macro_rules! list {
    ($($global:ident: $size:literal = $of:literal, $path:literal, $loss:expr;)*) => {
        /// Every field that the kernel side reads.
        pub const FIELDS: &[Field] = &[$(Field {
            global: stringify!($global),
            of: $of,
            path: $path,
            size: $size,
            loss: $loss,
        }),*];
    };
}
kernel_fields!(list);
