//! The line of a connection. Most went well, so how such a line ends is one text.
//!
//! Must not know: where a value came from, where it is written to.

use schemars::JsonSchema;
use serde::{Serialize, Serializer, ser::SerializeStruct as _};

use super::{
    Bytes, Cause, ConnectionType, Endpoint, Evidence, Family, Flag, Id, Layer, Process, ProxyWords,
    Reset, Role, Schema, Step, Timestamp, Verdict, spelling::Verbatim,
};

/// One finished connection.
#[derive(Clone, Copy, Debug, JsonSchema)]
pub struct Connection<'a> {
    pub schema: Schema,
    #[schemars(rename = "type")]
    pub kind: ConnectionType,
    /// When it ended.
    pub time: Timestamp,
    /// Number of this line in this run.
    pub seq: u64,
    pub id: Id,
    /// Inode number of the network namespace.
    pub netns: Option<u32>,
    pub family: Family,
    pub local: Endpoint,
    pub remote: Endpoint,
    pub role: Role,
    /// Owner of the socket.
    pub process: Option<Process<'a>>,
    /// Owner of the other end, where that is on this node.
    pub peer: Option<Process<'a>>,
    /// Null where the connection is older than the tracer.
    pub started: Option<Timestamp>,
    /// From the start; from the first sight where `started` is null.
    pub duration_us: u64,
    /// In kernel order.
    pub timeline: &'a [Step],
    pub bytes: Bytes,
    /// From the last payload either way to the end, to a jiffy; null where there was none.
    pub idle_us: Option<u64>,
    /// The kernel's smoothed round-trip time at the end.
    pub rtt_us: Option<u64>,
    /// Segments retransmitted.
    pub retransmits: Option<u32>,
    /// What the application was told.
    pub errno: Option<&'static str>,
    pub reset: Option<Reset<'a>>,
    pub verdict: Verdict,
    pub flag: Option<Flag>,
    /// The root cause; null for `ok`, and where what is known carries none.
    pub cause: Option<Cause>,
    /// Where it lies; null for `ok`.
    pub layer: Option<Layer>,
    /// What else is known of why it failed; null where nothing is.
    pub evidence: Option<Evidence<'a>>,
    pub proxy: Option<ProxyWords<'a>>,
    /// What it means and the next thing to check; null for `ok`.
    pub hint: Option<&'a str>,
    /// False where events were lost or it began before the tracer.
    pub complete: bool,
}

/// What follows the name `errno` where all went well and all of it was seen.
const WENT_WELL: &str = concat!(
    r#"null,"reset":null,"verdict":"ok","flag":null,"cause":null,"layer":null,"#,
    r#""evidence":null,"proxy":null,"hint":null,"complete":true"#
);

impl Connection<'_> {
    /// Whether [`WENT_WELL`] is what its last fields say.
    fn went_well(&self) -> bool {
        self.verdict == Verdict::Ok
            && self.complete
            && self.errno.is_none()
            && self.reset.is_none()
            && self.flag.is_none()
            && self.cause.is_none()
            && self.layer.is_none()
            && self.evidence.is_none()
            && self.proxy.is_none()
            && self.hint.is_none()
    }
}

impl Serialize for Connection<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let spelled = !serializer.is_human_readable() && self.went_well();
        // One that is left out below is an unused variable.
        let Self {
            schema,
            kind,
            time,
            seq,
            id,
            netns,
            family,
            local,
            remote,
            role,
            process,
            peer,
            started,
            duration_us,
            timeline,
            bytes,
            idle_us,
            rtt_us,
            retransmits,
            errno,
            reset,
            verdict,
            flag,
            cause,
            layer,
            evidence,
            proxy,
            hint,
            complete,
        } = self;
        let mut line = serializer.serialize_struct("Connection", 29)?;
        macro_rules! fields {
            ($($name:literal: $field:ident),* $(,)?) => { $(line.serialize_field($name, $field)?;)* };
        }
        fields! {
            "schema": schema, "type": kind, "time": time, "seq": seq, "id": id, "netns": netns, "family": family,
            "local": local, "remote": remote, "role": role, "process": process, "peer": peer,
            "started": started, "duration_us": duration_us, "timeline": timeline, "bytes": bytes,
            "idle_us": idle_us, "rtt_us": rtt_us, "retransmits": retransmits,
        }
        if spelled {
            line.serialize_field("errno", &Verbatim(WENT_WELL.as_bytes()))?;
        } else {
            fields! {
                "errno": errno, "reset": reset, "verdict": verdict, "flag": flag, "cause": cause, "layer": layer,
                "evidence": evidence, "proxy": proxy, "hint": hint, "complete": complete,
            }
        }
        line.end()
    }
}
