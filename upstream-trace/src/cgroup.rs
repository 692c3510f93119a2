//! The directories of cgroups: from a path, or from a container's id, to the id that the kernel knows.
//!
//! Must not know: processes.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use crate::{
    container,
    exit::{Code, Failure},
};

/// Where cgroup v2 is mounted, alone or beside v1.
const ROOTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// The root of cgroup v2; `None`: not mounted.
pub fn root() -> Option<&'static Path> {
    ROOTS.into_iter().map(Path::new).find(|root| is_v2(root))
}

/// The id of the cgroup with this directory: its inode number. `None` where it is gone.
pub fn id(directory: &Path) -> Option<u64> {
    let metadata = fs::metadata(directory).ok()?;
    Some(metadata.ino())
}

fn is_v2(directory: &Path) -> bool {
    directory.join("cgroup.controllers").exists()
}

/// The ids of all cgroups that were asked for, by directories and by ids of containers.
pub fn find(directories: &[PathBuf], containers: &[String]) -> Result<Vec<u64>, Failure> {
    let mut ids = directories
        .iter()
        .map(|directory| given(directory))
        .collect::<Result<Vec<_>, _>>()?;
    for prefix in containers {
        let root = root().ok_or_else(|| {
            let message = "--container needs cgroup v2, which is not mounted at /sys/fs/cgroup";
            Failure::new(Code::Usage, message)
        })?;
        ids.extend(of_container(root, prefix)?);
    }
    Ok(ids)
}

fn given(directory: &Path) -> Result<u64, Failure> {
    let name = directory.display();
    let wrong = |what: String| Failure::new(Code::Usage, format!("--cgroup {name}: {what}"));
    let found = fs::metadata(directory).map_err(|error| wrong(error.to_string()))?;
    if !is_v2(directory) {
        let root = root().unwrap_or(Path::new("/sys/fs/cgroup")).display();
        return Err(wrong(format!(
            "not the directory of a cgroup v2; they are below {root}"
        )));
    }
    Ok(found.ino())
}

/// The cgroups of the one container whose id begins so.
fn of_container(root: &Path, prefix: &str) -> Result<Vec<u64>, Failure> {
    let mut found = BTreeMap::new();
    search(root, prefix, &mut found);
    let wrong = |what: String| Failure::new(Code::Usage, format!("--container {prefix}: {what}"));
    if found.len() > 1 {
        let all: Vec<_> = found.into_keys().collect();
        return Err(wrong(format!("fits more than one: {}", all.join(", "))));
    }
    found.into_values().next().ok_or_else(|| {
        wrong(format!(
            "no running container has this id: nothing below {} is named so",
            root.display()
        ))
    })
}

/// Looks for directories that name such a container, by its id; what is below one belongs to it.
fn search(directory: &Path, prefix: &str, found: &mut BTreeMap<String, Vec<u64>>) {
    // What cannot be read is gone.
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    for entry in entries {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let path = entry.path();
        let name = entry.file_name();
        match container::id(&name.to_string_lossy()) {
            Some(container) if container.starts_with(prefix) => {
                let ids = found.entry(container.to_owned()).or_default();
                ids.extend(id(&path));
            }
            _ => search(&path, prefix, found),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "9687bac58d5c4d1606aa46af33d1a21c1d1652e0ac9fb3fc0fc86e3495f42869";
    const OTHER: &str = "9687bac58d5c4d1606aa46af33d1a21c1d1652e0ac9fb3fc0fc86e3495f4ffff";
    const NESTED: &str = "aff34703e5e1f89443e9a1bffcc80f43f74d4808a2dd22c8f88c08547b323934";

    #[test]
    fn containers_are_found_by_the_names_of_directories() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let make = |below: String| {
            let path = root.join(below);
            fs::create_dir_all(&path).unwrap();
            id(&path).unwrap()
        };
        let one = make(format!("machine.slice/libpod-{ONE}.scope"));
        make(format!("machine.slice/libpod-{ONE}.scope/container"));
        make(format!("machine.slice/libpod-conmon-{ONE}.scope"));
        let other = make(format!("docker/{OTHER}"));
        let nested = make(format!(
            "docker/{OTHER}/kubepods/cri-containerd-{NESTED}.scope"
        ));
        let find = |prefix: &str| of_container(root, prefix).map_err(|error| error.to_string());
        assert_eq!(find(ONE), Ok(vec![one]));
        assert_eq!(find(OTHER), Ok(vec![other]));
        assert_eq!(find("aff34703e5e1"), Ok(vec![nested]));
        let error = find("9687bac58d5c").unwrap_err();
        assert!(error.contains(ONE) && error.contains(OTHER), "{error}");
        assert!(find("0123456789ab").unwrap_err().contains("no running"));
    }

    #[test]
    fn what_is_no_cgroup_is_refused() {
        let error = |path: &str| given(Path::new(path)).unwrap_err().to_string();
        assert!(error("/nonexistent").contains("/nonexistent"));
        assert!(error("/tmp").contains("not the directory of a cgroup"));
    }
}
