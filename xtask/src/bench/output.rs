//! What our tracer wrote about a storm.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    path::Path,
};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// Records of connections, and what the last account says was lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Records {
    pub(super) connections: u64,
    /// All causes together.
    pub(super) lost: u64,
    /// Of these what the kernel kept from the hooks.
    pub(super) missed: u64,
}

impl Records {
    pub(super) fn read(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        let mut connections = 0;
        let mut account = None;
        for line in BufReader::new(file).lines() {
            let line = line.with_context(|| format!("cannot read {}", path.display()))?;
            if line.contains(r#""type":"connection""#) {
                connections += 1;
            } else if line.contains(r#""type":"stats""#) {
                account = Some(line);
            }
        }
        let Some(account) = account else {
            bail!("the tracer ended without its `stats` line");
        };
        let account: Value =
            serde_json::from_str(&account).context("the `stats` line is no JSON")?;
        Ok(Self {
            connections,
            lost: lost(&account)?,
            missed: number(&account["lost"]["missed"])?,
        })
    }

    pub(super) fn add(&mut self, other: Self) {
        self.connections += other.connections;
        self.lost += other.lost;
        self.missed += other.missed;
    }
}

fn lost(account: &Value) -> Result<u64> {
    let causes = account["lost"]
        .as_object()
        .context("the `stats` line has no `lost`")?;
    causes.values().map(number).sum()
}

fn number(count: &Value) -> Result<u64> {
    count.as_u64().context("a count in `lost` is no number")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::lost;

    #[test]
    fn every_cause_counts() {
        let account = json!({"lost": {"ring_full": 2, "output": 3}});
        assert_eq!(lost(&account).unwrap(), 5);
        assert!(lost(&json!({"type": "stats"})).is_err());
        assert!(lost(&json!({"lost": {"output": null}})).is_err());
    }
}
