//! What a guest boots with: the kernel, and an initramfs of programs, the modules they need, and a system of packages where they need one.
//!
//! Must not know: what the programs do.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use super::archive;

/// Where the guest finds its modules, named so that their order is the one to load them in.
pub(super) const MODULE_DIR: &str = "/modules";

/// The kernel in an unpacked package.
pub(super) fn kernel_image(packages: &[PathBuf]) -> Result<PathBuf> {
    find(packages, &|name| {
        name == "vmlinuz" || name.starts_with("vmlinuz-")
    })?
    .context("the package holds no vmlinuz")
}

/// A program in a guest.
#[derive(Clone, Debug)]
pub(super) struct Program {
    path: String,
    from: PathBuf,
}

impl Program {
    /// One that is linked statically, which goes to `/`.
    pub(super) fn alone(from: &Path) -> Result<Self> {
        let name = from.file_name().context("a program has a name")?;
        Ok(Self {
            path: format!("/{}", name.display()),
            from: from.to_owned(),
        })
    }

    /// One that is linked dynamically, which goes to `/usr/sbin`, with what it is linked with.
    pub(super) fn with_libraries(from: &Path) -> Result<Vec<Self>> {
        let output = Command::new("ldd").arg(from).output();
        let output = output.context("cannot start ldd")?;
        ensure!(
            output.status.success(),
            "ldd cannot read {}",
            from.display()
        );
        let libraries = String::from_utf8_lossy(&output.stdout);
        let libraries = libraries.split_whitespace();
        let libraries = libraries.filter(|word| word.starts_with('/'));
        let mut all: Vec<_> = libraries
            .map(|path| Self {
                path: path.to_owned(),
                from: path.into(),
            })
            .collect();
        let program = Self::alone(from)?;
        all.push(Self {
            path: format!("/usr/sbin{}", program.path),
            ..program
        });
        Ok(all)
    }
}

/// What goes into an initramfs.
#[derive(Debug)]
pub(super) struct Contents<'a> {
    pub(super) programs: &'a [Program],
    /// Unpacked packages of the kernel, and the names of modules that are taken from them.
    pub(super) kernel: &'a [PathBuf],
    pub(super) modules: &'a [&'a str],
    /// Unpacked packages that are taken whole.
    pub(super) system: &'a [PathBuf],
}

/// Writes an initramfs.
pub(super) fn write(to: &Path, contents: &Contents<'_>) -> Result<()> {
    let Contents {
        programs,
        kernel,
        modules,
        system,
    } = *contents;
    let mut loaded = Vec::new();
    for module in modules {
        module_and_needed(kernel, module, &mut loaded)?;
    }
    let file = fs::File::create(to).with_context(|| format!("cannot create {}", to.display()))?;
    let mut archive = Archive {
        to: io::BufWriter::new(file),
        inode: 0,
        directories: Vec::new(),
    };
    archive.directory(Path::new(MODULE_DIR))?;
    archive.directory(Path::new("/dev"))?;
    if !system.is_empty() {
        for name in MERGED {
            archive.entry(&format!("/{name}"), LINK, format!("usr/{name}").as_bytes())?;
        }
    }
    for package in system {
        archive.tree(package, package)?;
    }
    for Program { path, from } in programs {
        let bytes = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        archive.directory(Path::new(path).parent().context("a program is a file")?)?;
        archive.entry(path, PROGRAM, &bytes)?;
    }
    for (index, (name, bytes)) in loaded.iter().enumerate() {
        archive.entry(
            &format!("{MODULE_DIR}/{index:02}-{name}.ko"),
            PROGRAM,
            bytes,
        )?;
    }
    cpio::newc::trailer(archive.to)?.flush()?;
    Ok(())
}

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_777;

/// Links to the same below `/usr`, where systemd demands to find it; packages of old suites have directories there.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];
/// For people.
const UNREAD: &str = "usr/share";

struct Archive {
    to: io::BufWriter<fs::File>,
    inode: u32,
    /// Those that it has.
    directories: Vec<PathBuf>,
}

impl Archive {
    /// Makes a directory after those that it is in; not the root, which is there.
    fn directory(&mut self, path: &Path) -> Result<()> {
        let Some(parent) = path.parent() else {
            return Ok(());
        };
        if self.directories.iter().any(|made| made == path) {
            return Ok(());
        }
        self.directory(parent)?;
        self.entry(path.to_str().context("a plain path")?, DIRECTORY, &[])?;
        self.directories.push(path.to_owned());
        Ok(())
    }

    /// All that is below `directory`, where it is below `root`.
    fn tree(&mut self, root: &Path, directory: &Path) -> Result<()> {
        let entries = fs::read_dir(directory)
            .with_context(|| format!("cannot read {}", directory.display()))?;
        for entry in entries {
            let from = entry?.path();
            let below = from.strip_prefix(root)?;
            if below == Path::new(UNREAD) {
                continue;
            }
            let to = if MERGED.iter().any(|name| below.starts_with(name)) {
                Path::new("/usr").join(below)
            } else {
                Path::new("/").join(below)
            };
            let about = fs::symlink_metadata(&from)?;
            if about.is_dir() {
                self.directory(&to)?;
                self.tree(root, &from)?;
                continue;
            }
            let (mode, bytes) = if about.is_symlink() {
                let target = fs::read_link(&from)?;
                (LINK, target.into_os_string().into_encoded_bytes())
            } else {
                let bytes = fs::read(&from);
                let bytes = bytes.with_context(|| format!("cannot read {}", from.display()))?;
                (FILE | about.permissions().mode() & 0o7777, bytes)
            };
            self.entry(to.to_str().context("a plain path")?, mode, &bytes)?;
        }
        Ok(())
    }

    fn entry(&mut self, path: &str, mode: u32, bytes: &[u8]) -> Result<()> {
        self.inode += 1;
        let size = u32::try_from(bytes.len()).with_context(|| format!("{path} is too large"))?;
        let mut entry = cpio::NewcBuilder::new(path.trim_start_matches('/'))
            .ino(self.inode)
            .nlink(1)
            .mode(mode)
            .write(&mut self.to, size);
        entry.write_all(bytes)?;
        entry.finish()?;
        Ok(())
    }
}

/// Adds a module after those that it needs.
fn module_and_needed(
    packages: &[PathBuf],
    name: &str,
    loaded: &mut Vec<(String, Vec<u8>)>,
) -> Result<()> {
    if loaded.iter().any(|(other, _)| other == name) {
        return Ok(());
    }
    let of_module = |file: &str| {
        let stem = file.split(".ko").next().unwrap_or_default();
        file.contains(".ko") && stem.replace('-', "_") == name
    };
    let Some(path) = find(packages, &of_module)? else {
        ensure!(is_built_in(packages, name)?, "no kernel module {name}");
        return Ok(());
    };
    let bytes = plain(&path)?;
    for needed in needed_by(&bytes) {
        module_and_needed(packages, &needed, loaded)?;
    }
    loaded.push((name.to_owned(), bytes));
    Ok(())
}

/// Whether the kernel has it without a module.
fn is_built_in(packages: &[PathBuf], name: &str) -> Result<bool> {
    let list = find(packages, &|file| file == "modules.builtin")?.context("no modules.builtin")?;
    let list =
        fs::read_to_string(&list).with_context(|| format!("cannot read {}", list.display()))?;
    Ok(list
        .lines()
        .filter_map(|line| line.rsplit('/').next()?.strip_suffix(".ko"))
        .any(|module| module.replace('-', "_") == name))
}

/// A module as the kernel takes it.
fn plain(path: &Path) -> Result<Vec<u8>> {
    match path.extension().and_then(|end| end.to_str()) {
        Some("ko") => fs::read(path).with_context(|| format!("cannot read {}", path.display())),
        Some("xz") => archive::unpacked(path),
        _ => bail!("{} is packed in an unknown way", path.display()),
    }
}

/// Names of the modules that one says it needs: a line of its section `.modinfo`.
fn needed_by(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"depends=";
    let line = module
        .split(|&byte| byte == 0)
        .find_map(|line| line.strip_prefix(KEY));
    String::from_utf8_lossy(line.unwrap_or_default())
        .split(',')
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('-', "_"))
        .collect()
}

/// A file with such a name below any of these directories.
fn find(below: &[PathBuf], wanted: &dyn Fn(&str) -> bool) -> Result<Option<PathBuf>> {
    let mut pending = below.to_vec();
    while let Some(directory) = pending.pop() {
        let entries = fs::read_dir(&directory)
            .with_context(|| format!("cannot read {}", directory.display()))?;
        for entry in entries {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                pending.push(entry.path());
            } else if kind.is_file() && entry.file_name().to_str().is_some_and(wanted) {
                return Ok(Some(entry.path()));
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_names_what_it_needs() {
        let module = b"\x7fELF\0license=GPL\0depends=nf-tables,nfnetlink\0name=x\0";
        assert_eq!(needed_by(module), ["nf_tables", "nfnetlink"]);
        assert_eq!(needed_by(b"\0depends=\0"), [""; 0]);
        assert_eq!(needed_by(b"\0license=GPL\0"), [""; 0]);
    }
}
