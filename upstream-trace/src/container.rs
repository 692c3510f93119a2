//! Container ids in cgroup paths: containerd, CRI-O, Docker and Podman, cgroup v1 and v2.
//!
//! Must not know: /proc.

/// Length of a container id, in hexadecimal digits.
const LENGTH: usize = 64;

/// The container id in a line of `/proc/PID/cgroup`. The innermost one, for containers in containers.
pub fn id(line: &str) -> Option<&str> {
    line.rsplit('/').find_map(|part| {
        // `cri-containerd-ID.scope`, `crio-ID.scope`, `docker-ID.scope`, `libpod-ID.scope`, or the bare id.
        let name = part.strip_suffix(".scope").unwrap_or(part);
        let id = name.rsplit(['-', ':']).next()?;
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (id.len() == LENGTH && id.bytes().all(hex)).then_some(id)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn known_runtimes() {
        let paths = [
            format!("0::/system.slice/docker-{ID}.scope"),
            format!("12:pids:/docker/{ID}"),
            format!(
                "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1234.slice/cri-containerd-{ID}.scope"
            ),
            format!("5:memory:/kubepods/besteffort/pod9c8c9f84-3f5b-4e1c-a3a9-9d2f3e6b1a11/{ID}"),
            format!("0::/kubepods.slice/kubepods-pod1234.slice:cri-containerd:{ID}"),
            format!("0::/kubepods.slice/crio-{ID}.scope/container"),
            format!(
                "0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope/container"
            ),
            format!("0::/machine.slice/libpod-{ID}.scope"),
        ];
        for path in &paths {
            assert_eq!(id(path), Some(ID), "{path}");
        }
    }

    #[test]
    fn no_container() {
        let too_short = format!("0::/docker/{}", &ID[1..]);
        for path in [
            "0::/",
            "0::/system.slice/ssh.service",
            "",
            &too_short,
            "0::/user.slice/session-1.scope",
        ] {
            assert_eq!(id(path), None, "{path}");
        }
    }
}
