//! The agent: reads events from the kernel side, joins them into connections, judges each, prints.
//!
//! [`probe`] loads and attaches the hooks and hands out their records · [`decode`] makes them events · [`join`]
//! makes events connections · [`verdict`] judges one that ended · [`printer`] and [`output`] print it.
//! [`tracer`] drives all of it, after [`app`] has made what it takes. [`survey`] finds out what this host lets
//! it see, [`doctor`] tells, [`privilege`] gives up what is not needed. [`record`] are the printed lines as
//! types, [`process`] the processes they name, [`tcp`] the kernel's vocabulary, [`account`] what was seen and
//! lost. [`explain`] holds a proxy's log against records that were printed before. ARCHITECTURE.md lists the
//! modules that do I/O; the rest is pure and cannot panic.

pub mod account;
pub mod app;
pub mod cgroup;
pub mod cli;
pub mod clock;
pub mod container;
pub mod decode;
pub mod doctor;
pub mod exit;
pub mod explain;
pub mod join;
pub mod kernel;
pub mod limits;
pub mod output;
pub mod printer;
pub mod privilege;
pub mod probe;
pub mod proc;
pub mod process;
pub mod record;
pub mod settings;
pub mod stop;
pub mod survey;
pub mod tcp;
pub mod tracer;
pub mod verdict;
