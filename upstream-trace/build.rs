//! Builds the kernel side and leaves it at `$OUT_DIR/upstream-trace.bpf.o` for the agent to embed.
//!
//! Installs nothing: where a part of the toolchain is missing it names the command that does.

use std::{env, ffi::OsStr, fs, path::PathBuf, process::ExitCode};

use object::{
    build::elf::{Builder, SectionData},
    elf,
};

use bpf_toolchain::{Build, LINKER_ENV, PROVISION, Toolchain};

#[expect(
    dead_code,
    unreachable_pub,
    reason = "xtask uses more of it, and a build script has nobody to export to"
)]
#[path = "../xtask/src/bpf_toolchain.rs"]
mod bpf_toolchain;

/// All that decides what the object holds; cargo looks into directories.
const SOURCES: [&str; 8] = [
    "Cargo.toml",
    "Cargo.lock",
    "upstream-trace-ebpf/Cargo.toml",
    "upstream-trace-ebpf/src",
    "upstream-trace-common/Cargo.toml",
    "upstream-trace-common/src",
    "upstream-trace/build.rs",
    "xtask/src/bpf_toolchain.rs",
];

fn main() -> ExitCode {
    match build() {
        Ok(code) => code,
        Err(message) => {
            // Cargo shows this as one line and fails the build, without the script's other output.
            println!("cargo::error={message}");
            ExitCode::SUCCESS
        }
    }
}

fn build() -> Result<ExitCode, String> {
    let out_dir = PathBuf::from(variable("OUT_DIR")?);
    let manifest_dir = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let workspace = manifest_dir
        .parent()
        .ok_or("upstream-trace is built inside its workspace")?;
    for source in SOURCES {
        println!(
            "cargo::rerun-if-changed={}",
            workspace.join(source).display()
        );
    }
    println!("cargo::rerun-if-env-changed={LINKER_ENV}");

    let target = bpf_toolchain::target_root(&out_dir).unwrap_or_else(|| out_dir.clone());
    let mut target_dirs = vec![target.clone()];
    // The build directory may be configured to lie elsewhere than the target directory.
    target_dirs.extend(env::var_os("CARGO_TARGET_DIR").map(PathBuf::from));
    target_dirs.push(workspace.join("target"));

    let rustc = variable("RUSTC")?;
    let toolchain = Toolchain::find(OsStr::new(&rustc), &target_dirs).map_err(|missing| {
        let missing: Vec<_> = missing.iter().map(ToString::to_string).collect();
        let missing = missing.join(" and ");
        format!("building the kernel side needs {missing}; install with: {PROVISION}")
    })?;
    println!("cargo::rerun-if-changed={}", toolchain.linker().display());

    let arch = variable("CARGO_CFG_TARGET_ARCH")?;
    let target_dir = bpf_toolchain::build_dir(&target, &arch);
    let build = Build {
        workspace,
        target_dir: &target_dir,
        endian: &variable("CARGO_CFG_TARGET_ENDIAN")?,
        arch: &arch,
    };
    let cargo = variable("CARGO")?;
    // Its standard error is ours, which cargo shows in full when this script fails.
    let status = toolchain
        .cargo(OsStr::new(&cargo), "build", &build)
        .status()
        .map_err(|error| format!("cannot start {cargo}: {error}"))?;
    if !status.success() {
        return Ok(ExitCode::FAILURE);
    }
    let object = build.object();
    let built =
        fs::read(&object).map_err(|error| format!("cannot read {}: {error}", object.display()))?;
    let bare = without_debug(&built)
        .map_err(|error| format!("cannot make sense of {}: {error}", object.display()))?;
    let to = out_dir.join("upstream-trace.bpf.o");
    fs::write(&to, bare).map_err(|error| format!("cannot write {}: {error}", to.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// The object without what only a debugger or a reader of the verifier's log wants: DWARF, which the linker
/// makes BTF from, and lines of source (`.BTF.ext`). It is fourteen parts of fifteen; aya reads all sections
/// and their relocations at each start, and the kernel moves the lines with each instruction that it removes.
fn without_debug(object: &[u8]) -> object::build::Result<Vec<u8>> {
    let mut builder = Builder::read(object)?;
    for section in &mut builder.sections {
        let name: &[u8] = &section.name;
        let of = name.strip_prefix(b".rel").unwrap_or(name);
        section.delete = of.starts_with(b".debug") || of == b".BTF.ext";
    }
    builder.delete_orphans();
    // LLVM keeps sections' names among the symbols', and these are written apart.
    let names = builder.sections.add();
    names.name = ".shstrtab".into();
    names.sh_type = elf::SHT_STRTAB;
    names.sh_addralign = 1;
    names.data = SectionData::SectionString;
    let mut bare = Vec::new();
    builder.write(&mut bare)?;
    Ok(bare)
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|error| format!("{name}: {error}"))
}
