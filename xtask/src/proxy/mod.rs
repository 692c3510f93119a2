//! Real proxies against upstreams broken on purpose: their own log lines, explained by the real tracer's records.
//!
//! [`programs`] starts Envoy, NGINX and HAProxy, [`grpc`] gRPC's own client and server · [`upstream`] are the servers that fail, [`worker`] those that are killed, [`talk`] what they speak, [`network`] is
//! what lies between · [`fault`] says how and what has to be said of it · [`trial`] puts both and the tracer together and collects what `upstream-trace explain` says · [`table`] shows it to a person.
//! Must not know: how the tracer works inside.

pub mod fault;
mod grpc;
pub mod healthy;
pub mod network;
pub mod programs;
pub mod table;
pub mod talk;
pub mod trial;
pub mod upstream;
pub mod worker;
