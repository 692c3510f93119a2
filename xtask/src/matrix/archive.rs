//! Fetches packages from Debian's archive: the newest of its kind, or one with what it is linked with; verified, unpacked, kept.
//!
//! The archive is where this machine's apt gets its packages from, and apt's own helper does the
//! fetching, so that proxies and mirrors are those that are configured. What is fetched is trusted
//! because its suite's `InRelease` file is signed by a key that this machine has, names the checksum of the
//! list of packages, which names the checksum of the package. Must not know: what a package is for.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::workspace::find_program;

const HELPER: &str = "/usr/lib/apt/apt-helper";
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
const INDEX: &str = "main/binary-amd64/Packages.xz";

/// A suite of the archive, as it is today.
#[derive(Debug)]
pub(super) struct Suite {
    base: String,
    /// The list of its packages.
    packages: String,
    cache: PathBuf,
}

/// A package as the list describes it.
#[derive(Debug, PartialEq, Eq)]
struct Package<'a> {
    name: &'a str,
    file: &'a str,
    sha256: &'a str,
}

impl<'a> Package<'a> {
    fn described(paragraph: &'a str) -> Option<Self> {
        Some(Self {
            name: field(paragraph, "Package")?,
            file: field(paragraph, "Filename")?,
            sha256: field(paragraph, "SHA256")?,
        })
    }
}

impl Suite {
    /// Looks the suite up; `cache` keeps what never changes.
    pub(super) fn look_up(name: &str, cache: &Path) -> Result<Self> {
        fs::create_dir_all(cache).with_context(|| format!("cannot create {}", cache.display()))?;
        let release = cache.join(format!("{name}.InRelease"));
        let base = bases()?
            .into_iter()
            .find(|base| fetch(&format!("{base}/dists/{name}/InRelease"), &release, None).is_ok());
        let base = base
            .with_context(|| format!("no archive that apt knows here has Debian's suite {name}"))?;
        let text = signed(&release)?;
        ensure!(
            text.lines().any(|line| line == format!("Codename: {name}")),
            "{} is of another suite",
            release.display()
        );
        let sha256 = checksum_of(&text, INDEX)
            .with_context(|| format!("the suite {name} has no {INDEX}"))?;
        let index = cache.join(format!("{sha256}.xz"));
        if !index.is_file() {
            let url = format!("{base}/dists/{name}/{INDEX}");
            fetch(&url, &index, Some(sha256))?;
        }
        let packages = unpacked(&index)?;
        Ok(Self {
            base,
            packages: String::from_utf8(packages).context("the list of packages")?,
            cache: cache.to_owned(),
        })
    }

    /// The newest package whose name has this beginning and end, unpacked: its name and directory.
    pub(super) fn unpacked(&self, begin: &str, end: &str) -> Result<(String, PathBuf)> {
        let package = newest(&self.packages, begin, end)
            .with_context(|| format!("the archive has no package {begin}*{end}"))?;
        Ok((package.name.to_owned(), self.unpack(&package)?))
    }

    /// The package of this name and those of the libraries that its programs are linked with, unpacked.
    pub(super) fn with_libraries(&self, name: &str) -> Result<Vec<PathBuf>> {
        let packages = with_libraries(&self.packages, name);
        ensure!(!packages.is_empty(), "the archive has no package {name}");
        packages.iter().map(|one| self.unpack(one)).collect()
    }

    fn unpack(&self, package: &Package<'_>) -> Result<PathBuf> {
        let directory = self.cache.join(package.sha256);
        if !directory.is_dir() {
            let file = self.cache.join(format!("{}.deb", package.sha256));
            eprintln!("xtask: fetching {}", package.name);
            let url = format!("{}/{}", self.base, package.file);
            fetch(&url, &file, Some(package.sha256))?;
            // Under its name only when it is whole.
            let partial = tempfile::tempdir_in(&self.cache)?;
            output(
                Command::new("dpkg-deb")
                    .arg("-x")
                    .arg(&file)
                    .arg(partial.path()),
            )?;
            fs::rename(partial.keep(), &directory)?;
            fs::remove_file(&file)?;
        }
        Ok(directory)
    }
}

/// Where apt gets packages from, Debian's archives among them.
fn bases() -> Result<Vec<String>> {
    ensure!(
        Path::new(HELPER).is_file(),
        "the kernels come from Debian's archive by way of apt, which this machine does not have"
    );
    let sites = output(Command::new("apt-get").args(["indextargets", "--format", "$(SITE)"]))?;
    let mut bases: Vec<_> = String::from_utf8_lossy(&sites)
        .lines()
        .map(|site| site.trim_end_matches('/').to_owned())
        .collect();
    bases.sort();
    bases.dedup();
    Ok(bases)
}

/// What is in a file that is packed in one of the ways that apt knows.
pub(super) fn unpacked(path: &Path) -> Result<Vec<u8>> {
    output(Command::new(HELPER).arg("cat-file").arg(path))
}

fn fetch(url: &str, to: &Path, sha256: Option<&str>) -> Result<()> {
    let mut helper = Command::new(HELPER);
    // Root's downloads are made by a user who cannot write to our directory.
    helper.args(["-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=3"]);
    helper.arg("download-file").arg(url).arg(to);
    helper.args(sha256.map(|sha256| format!("SHA256:{sha256}")));
    output(&mut helper).with_context(|| format!("cannot fetch {url}"))?;
    Ok(())
}

/// What is signed of a suite's list of checksums, if it is by Debian.
fn signed(release: &Path) -> Result<String> {
    let gpgv = find_program("gpgv").context("gpgv is missing")?;
    ensure!(
        Path::new(KEYS).is_file(),
        "{KEYS} is missing: needs the package debian-archive-keyring"
    );
    let mut command = Command::new(gpgv);
    command.args(["--quiet", "--keyring", KEYS, "--output", "-"]);
    let text = output(command.arg(release))
        .with_context(|| format!("{} is not signed as it has to be", release.display()))?;
    String::from_utf8(text).with_context(|| format!("{} is no text", release.display()))
}

/// What a program prints; an error has what it said.
fn output(command: &mut Command) -> Result<Vec<u8>> {
    let name = command.get_program().display().to_string();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start {name}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{name}: {}: {}", output.status, said.trim());
    }
    Ok(output.stdout)
}

/// What the section `SHA256:` of a Release file says of a file.
fn checksum_of<'a>(release: &'a str, file: &str) -> Option<&'a str> {
    let (_, section) = release.split_once("\nSHA256:")?;
    section
        .lines()
        .skip(1)
        .take_while(|line| line.starts_with(' '))
        .find_map(|line| {
            let mut words = line.split_whitespace();
            let sha256 = words.next()?;
            (words.nth(1)? == file).then_some(sha256)
        })
}

/// The package of the highest version among those whose name has this beginning and end.
fn newest<'a>(packages: &'a str, begin: &str, end: &str) -> Option<Package<'a>> {
    packages
        .split("\n\n")
        .filter_map(Package::described)
        .filter(|package| package.name.starts_with(begin) && package.name.ends_with(end))
        .max_by_key(|package| numbers(package.name))
}

/// The package of this name, and in turn those that one of them depends on and that hold libraries: what else is depended
/// on is for scripts that run when it is installed. Of alternatives the first is taken.
fn with_libraries<'a>(packages: &'a str, name: &str) -> Vec<Package<'a>> {
    let described = |paragraph: &'a str| Some((field(paragraph, "Package")?, paragraph));
    let by_name: HashMap<_, _> = packages.split("\n\n").filter_map(described).collect();
    let mut all: Vec<Package<'_>> = Vec::new();
    let mut pending: Vec<_> = by_name.get(name).copied().into_iter().collect();
    while let Some(paragraph) = pending.pop() {
        let Some(package) = Package::described(paragraph) else {
            continue;
        };
        if all.contains(&package) {
            continue;
        }
        all.push(package);
        let depends = ["Pre-Depends", "Depends"].map(|name| field(paragraph, name));
        let depends = depends.into_iter().flatten().flat_map(|all| all.split(','));
        // `libc6:any (>= 2.34) | other`
        let names = depends.filter_map(|one| one.trim().split([' ', ':', '|']).next());
        let found = names.filter_map(|name| by_name.get(name).copied());
        pending.extend(found.filter(|other| field(other, "Section") == Some("libs")));
    }
    all
}

/// What a paragraph says of a package in one line.
fn field<'a>(paragraph: &'a str, name: &str) -> Option<&'a str> {
    let line = paragraph
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    line.map(str::trim)
}

/// The numbers in a name, by which versions are ordered.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|c: char| !c.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_of_the_right_section() {
        let release = "Suite: x\nMD5Sum:\n 1111 5 main/a\nSHA256:\n 2222 5 main/ab\n 3333 5 main/a\nSHA512:\n 4 5 main/b\n";
        assert_eq!(checksum_of(release, "main/a"), Some("3333"));
        assert_eq!(checksum_of(release, "main/b"), None);
        assert_eq!(checksum_of("Suite: x\n", "main/a"), None);
    }

    #[test]
    fn the_newest_is_not_the_last_in_the_alphabet() {
        let paragraphs = ["9-cloud", "10-cloud", "11-cloud-dbg", "12-other"].map(|version| {
            format!("Package: linux-6.1.0-{version}\nFilename: f{version}\nSHA256: s{version}\n")
        });
        let packages = paragraphs.join("\n") + "\nPackage: linux-6.1.0-13-cloud\n";
        let found = newest(&packages, "linux-6.1.", "-cloud").unwrap();
        assert_eq!((found.file, found.sha256), ("f10-cloud", "s10-cloud"));
        assert_eq!(newest(&packages, "linux-6.2.", "-cloud"), None);
    }

    #[test]
    fn libraries_are_followed_and_nothing_else() {
        let packages = [
            (
                "init",
                "admin",
                "Pre-Depends: libc6 (>= 2.34)\nDepends: libm:any, tools | libx, gone (= 1)\n",
            ),
            ("tools", "utils", "Depends: libx\n"),
            ("libx", "libs", ""),
            ("libm", "libs", "Depends: zlib1g | libx, libc6\n"),
            ("zlib1g", "libs", "Depends: libm\n"),
            ("libc6", "libs", "Suggests: libx\n"),
        ];
        let packages = packages.map(|(name, section, depends)| {
            format!("Package: {name}\nSection: {section}\n{depends}Filename: f-{name}\nSHA256: s-{name}\n")
        });
        let packages = packages.join("\n");
        let mut names: Vec<_> = with_libraries(&packages, "init")
            .iter()
            .map(|package| package.name)
            .collect();
        names.sort_unstable();
        assert_eq!(names, ["init", "libc6", "libm", "zlib1g"]);
        assert_eq!(with_libraries(&packages, "gone"), []);
    }
}
