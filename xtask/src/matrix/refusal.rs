//! Makes the guest's kernel refuse fentry and fexit, so that the tracer has to take kprobes: a program at the LSM hook of bpf(2).
//!
//! A few instructions by hand, because nothing else of xtask needs a compiler for BPF. Must not know: the tracer.

use std::{
    fs, io,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use anyhow::{Context as _, Result};

use crate::types::Types;

/// The parameter without which the hook is not called; it asks for the refusal as well.
pub(super) const PARAMETER: &str = "lsm=lockdown,bpf";
const COMMAND_LINE: &str = "/proc/cmdline";

/// `bpf_attr` of `BPF_PROG_LOAD`, `include/uapi/linux/bpf.h`, as far as it is needed.
#[repr(C)]
#[derive(Default)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log: [u32; 2],
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u64; 2],
    prog_ifindex: u32,
    expected_attach_type: u32,
    prog_btf_fd: u32,
    func_info_rec_size: u32,
    func_info: u64,
    func_info_cnt: u32,
    line_info_rec_size: u32,
    line_info: u64,
    line_info_cnt: u32,
    attach_btf_id: u32,
}

/// The same of `BPF_RAW_TRACEPOINT_OPEN`, which attaches by what the program was loaded for.
#[repr(C)]
#[derive(Default)]
struct Open {
    name: u64,
    prog_fd: u32,
    reserved: u32,
}

const BPF_PROG_LOAD: u8 = 5;
const BPF_RAW_TRACEPOINT_OPEN: u8 = 17;
const BPF_PROG_TYPE_TRACING: i32 = 26;
const BPF_PROG_TYPE_LSM: u32 = 29;
const BPF_TRACE_FENTRY: i32 = 24;
const BPF_TRACE_FEXIT: i32 = 25;
const BPF_LSM_MAC: u32 = 27;
/// Of `expected_attach_type` in [`Load`].
const ATTACH_TYPE: i16 = 68;

/// `struct bpf_insn`: code, registers (destination low), offset, number.
const fn instruction(code: u8, registers: u8, offset: i16, number: i32) -> u64 {
    code as u64
        | (registers as u64) << 8
        | (offset.cast_unsigned() as u64) << 16
        | (number.cast_unsigned() as u64) << 32
}

/// `BPF_LDX | BPF_MEM`, eight and four bytes.
const LOAD_LONG: u8 = 0x79;
const LOAD_WORD: u8 = 0x61;
/// `BPF_JMP32 | BPF_JEQ | BPF_K`, the same with `BPF_JNE`: of an `int` argument the upper half may be anything.
const IF_EQUAL: u8 = 0x16;
const IF_OTHER: u8 = 0x56;
/// `BPF_ALU64 | BPF_MOV | BPF_K`.
const SET: u8 = 0xb7;
const EXIT: u8 = 0x95;

/// `int bpf(int cmd, union bpf_attr *attr, unsigned int size, ...)`: the arguments lie where r1 points to.
const REFUSES: [u64; 11] = [
    instruction(SET, 0, 0, 0),
    instruction(LOAD_LONG, 0x12, 0, 0),
    instruction(IF_OTHER, 2, 7, BPF_PROG_LOAD as i32),
    instruction(LOAD_LONG, 0x13, 8, 0),
    instruction(LOAD_WORD, 0x34, 0, 0),
    instruction(IF_OTHER, 4, 4, BPF_PROG_TYPE_TRACING),
    instruction(LOAD_WORD, 0x34, ATTACH_TYPE, 0),
    instruction(IF_EQUAL, 4, 1, BPF_TRACE_FENTRY),
    instruction(IF_OTHER, 4, 1, BPF_TRACE_FEXIT),
    instruction(SET, 0, 0, -libc::EPERM),
    instruction(EXIT, 0, 0, 0),
];

/// Where the kernel was booted with [`PARAMETER`], as long as the result lives.
pub(super) fn if_asked() -> Result<Option<[OwnedFd; 2]>> {
    is_asked()?.then(of_trampolines).transpose()
}

/// Whether the kernel was booted with [`PARAMETER`].
pub(super) fn is_asked() -> Result<bool> {
    let asked = fs::read_to_string(COMMAND_LINE)?;
    Ok(asked.split_whitespace().any(|one| one == PARAMETER))
}

fn of_trampolines() -> Result<[OwnedFd; 2]> {
    let hook = Types::read()?
        .function("bpf_lsm_bpf")
        .context("a kernel without BPF at LSM hooks")?;
    let load = Load {
        prog_type: BPF_PROG_TYPE_LSM,
        insn_cnt: u32::try_from(REFUSES.len())?,
        insns: REFUSES.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        expected_attach_type: BPF_LSM_MAC,
        attach_btf_id: hook.id,
        ..Load::default()
    };
    let program = bpf(BPF_PROG_LOAD, &load).context("cannot load the refusal")?;
    let open = Open {
        prog_fd: u32::try_from(program.as_raw_fd())?,
        ..Open::default()
    };
    let link = bpf(BPF_RAW_TRACEPOINT_OPEN, &open).context("cannot attach the refusal")?;
    Ok([program, link])
}

/// One of the commands that return a descriptor.
fn bpf<T>(command: u8, attr: &T) -> io::Result<OwnedFd> {
    let size = size_of::<T>();
    // SAFETY: `attr` and what its addresses lead to outlive the call, which only reads them.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, libc::c_long::from(command), attr, size) };
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so this is a new descriptor, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
