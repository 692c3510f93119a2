//! Container ids and pod uids in cgroup paths: containerd, CRI-O, Docker and Podman, cgroup v1 and v2,
//! cgroupfs and systemd drivers.
//!
//! Must not know: /proc.

/// Length of a container id, in hexadecimal digits.
pub const LENGTH: usize = 64;

/// The container id in a line of `/proc/PID/cgroup`, or in the path alone. The innermost one, for
/// containers in containers.
pub fn id(line: &str) -> Option<&str> {
    line.rsplit('/').find_map(|part| {
        // `cri-containerd-ID.scope`, `crio-ID.scope`, `docker-ID.scope`, `libpod-payload-ID`,
        // `POD.slice:cri-containerd:ID`, or the bare id.
        let name = part.strip_suffix(".scope").unwrap_or(part);
        let id = name.rsplit(['-', ':']).next()?;
        let runtime = name.strip_suffix(id)?;
        // The monitor of a container of CRI-O or Podman has its id and is not inside.
        let inside = !runtime.ends_with("conmon-");
        (inside && id.len() == LENGTH && is_hex(id)).then_some(id)
    })
}

/// The uid of the Kubernetes pod in a line of `/proc/PID/cgroup`, as Kubernetes writes it. The innermost
/// one, for clusters in pods.
pub fn pod_uid(line: &str) -> Option<String> {
    line.rsplit('/').find_map(|part| {
        // `podUID`, `kubepods-burstable-podUID.slice`, `kubepods-podUID.slice:cri-containerd:ID`.
        let (name, _) = part.split_once('.').unwrap_or((part, ""));
        let (before, uid) = name.rsplit_once("pod")?;
        let is_pod = before.is_empty() || before.ends_with('-');
        // systemd takes `-` for a level of its own.
        (is_pod && is_uid(uid)).then(|| uid.replace('_', "-"))
    })
}

/// A UUID, or the hash that a static pod has in its place.
fn is_uid(text: &str) -> bool {
    let groups: Vec<_> = text.split(['-', '_']).collect();
    let lengths = groups.iter().map(|group| group.len());
    (lengths.clone().eq([8, 4, 4, 4, 12]) || lengths.eq([32]))
        && groups.iter().all(|group| is_hex(group))
}

/// Whether these are hexadecimal digits as runtimes print them.
pub fn is_hex(text: &str) -> bool {
    text.bytes()
        .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLES: &str = include_str!("../tests/data/cgroups.tsv");

    #[test]
    fn every_sample() {
        let known = |text: &str| (text != "-").then(|| text.to_owned());
        let lines = SAMPLES
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        let mut count = 0;
        for line in lines {
            let [path, container, pod] = line.split('\t').collect::<Vec<_>>()[..] else {
                panic!("not three columns: {line}");
            };
            assert_eq!(id(path).map(str::to_owned), known(container), "{path}");
            assert_eq!(pod_uid(path), known(pod), "{path}");
            count += 1;
        }
        assert!(count > 30, "{count} samples");
    }

    #[test]
    fn nothing_is_no_container() {
        for odd in ["", "/", "pod", "-", ":", ".scope", "0::/é", "/pod/pod-/."] {
            assert_eq!((id(odd), pod_uid(odd)), (None, None), "{odd}");
        }
    }
}
