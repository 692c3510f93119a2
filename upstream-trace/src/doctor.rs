//! What a survey found, told: to people, as JSON, and in short where a run starts.
//!
//! Must not know: how it was found out.

use std::fmt::{self, Write as _};

use schemars::JsonSchema;
use serde::{Serialize, Serializer};
use upstream_trace_common::field::{ABSENT, FIELDS, Field};

use crate::{
    exit::{Code, Failure},
    output::text::Harmless,
    privilege::{Capabilities, Capability},
    probe::catalog::{CATALOG, Entry},
    record::{Schema, constant},
    survey::Survey,
};

constant!(
    /// `type` of a [`Report`].
    ReportType = "doctor"
);

/// How much of what happens is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// All that the tracer knows to tell.
    Full,
    /// `limits` says what is not.
    Degraded,
    /// Nothing; `errors` says why.
    CannotRun,
}

/// What this host lets the tracer see. Printed by `upstream-trace doctor --json`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub struct Report {
    pub schema: Schema,
    #[serde(rename = "type")]
    pub kind: ReportType,
    pub outcome: Outcome,
    /// As this command ends, or a run that cannot start.
    #[serde(rename = "exit_code", serialize_with = "number")]
    #[schemars(with = "u8")]
    pub code: Code,
    /// Of the tracer.
    pub version: &'static str,
    /// As `uname -r` says.
    pub kernel: String,
    /// `none`, `integrity` or `confidentiality`; null where the kernel does not show it.
    pub lockdown: Option<&'static str>,
    /// The file that the kernel's types were read from; null where they could not be.
    pub btf: Option<String>,
    pub capabilities: Held,
    pub roles: Vec<RoleReport>,
    pub fields: Vec<FieldReport>,
    /// What will be invisible or less precise.
    pub limits: Vec<String>,
    /// Why nothing can be traced; a run says the first.
    pub errors: Vec<String>,
}

/// Capabilities of the tracer, as far as it has a use for them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Held {
    pub held: Vec<&'static str>,
    /// Without which nothing can be traced.
    pub missing: Vec<&'static str>,
    /// Not given up once the hooks are attached; null where they are not.
    pub kept: Option<Vec<&'static str>>,
}

/// Something that has to be seen, and by what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct RoleReport {
    pub role: &'static str,
    /// False where something else had ended the attempt before.
    pub tried: bool,
    /// Kind and target; null: none.
    pub hook: Option<String>,
    /// The better ones.
    pub refused: Vec<RefusedHook>,
    /// What is lost where there is none; null: everything.
    pub without: Option<&'static str>,
}

/// A hook that was not to be had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct RefusedHook {
    pub hook: String,
    /// The kernel's own words.
    pub why: String,
}

/// A kernel struct member that the tracer reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FieldReport {
    /// The struct.
    pub of: &'static str,
    /// The member's path.
    pub path: &'static str,
    /// Null where the kernel's types could not be read.
    pub found: Option<bool>,
    /// What is lost without; null: everything.
    pub without: Option<&'static str>,
}

impl Report {
    /// Of what was found.
    pub fn new(survey: &Survey) -> Self {
        let limits = survey.limits();
        let (outcome, code) = match survey.obstacles.first() {
            Some(failure) => (Outcome::CannotRun, failure.code),
            None if limits.is_empty() => (Outcome::Full, Code::Ok),
            None => (Outcome::Degraded, Code::Degraded),
        };
        Self {
            schema: Schema,
            kind: ReportType,
            outcome,
            code,
            version: env!("CARGO_PKG_VERSION"),
            kernel: survey.host.release.clone(),
            lockdown: survey.host.lockdown.name(),
            btf: survey.types.clone(),
            capabilities: Held {
                held: names(survey.capabilities),
                missing: survey
                    .capabilities
                    .missing()
                    .map(Capability::name)
                    .collect(),
                kept: survey.attached.map(|attached| names(attached.kept)),
            },
            roles: roles(survey),
            fields: fields(survey),
            limits,
            errors: survey.obstacles.iter().map(Failure::to_string).collect(),
        }
    }

    /// What a run says when it starts.
    pub fn short(&self) -> Vec<String> {
        let hooks: Vec<_> = self.hooks().collect();
        let mut lines = vec![format!("attached {}", hooks.join(", "))];
        let refused: Vec<_> = self.refused_by_reason().collect();
        if !refused.is_empty() {
            lines.push(format!("refused {}", refused.join("; ")));
        }
        lines.extend(self.limits.iter().cloned());
        lines
    }

    /// One object, for machines.
    pub fn json(&self) -> String {
        // Nothing in it can fail to be spelled.
        let text = serde_json::to_string_pretty(self).unwrap_or_default();
        format!("{text}\n")
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // A `String` takes everything.
        let _done: fmt::Result = self.write(&mut text);
        text
    }

    fn hooks(&self) -> impl Iterator<Item = &str> {
        self.roles.iter().filter_map(|role| role.hook.as_deref())
    }

    /// The hooks that were refused, each reason once.
    fn refused_by_reason(&self) -> impl Iterator<Item = String> {
        let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
        for RefusedHook { hook, why } in self.roles.iter().flat_map(|role| &role.refused) {
            match reasons.iter_mut().find(|(known, _)| known == why) {
                Some((_, hooks)) => hooks.push(hook),
                None => reasons.push((why, vec![hook])),
            }
        }
        let reasons = reasons.into_iter();
        reasons.map(|(why, hooks)| format!("{} ({why})", hooks.join(", ")))
    }

    fn write(&self, to: &mut String) -> fmt::Result {
        let outcome = match self.outcome {
            Outcome::Full => "all is seen on this host",
            Outcome::Degraded => "this host can be traced, but not all is seen",
            Outcome::CannotRun => "this host cannot be traced",
        };
        writeln!(to, "upstream-trace {}: {outcome}", self.version)?;
        for error in &self.errors {
            writeln!(to, "  ! {error}")?;
        }
        for limit in &self.limits {
            writeln!(to, "  - {limit}")?;
        }
        writeln!(to, "\nkernel        {}", self.kernel)?;
        writeln!(to, "lockdown      {}", self.lockdown.unwrap_or("not told"))?;
        let types = self.btf.as_deref().unwrap_or("none");
        writeln!(to, "types         {}", Harmless(types))?;
        self.write_capabilities(to)?;
        writeln!(to, "\nhooks")?;
        let widths = self.roles.iter().map(|role| role.role.len());
        let width = widths.max().unwrap_or_default();
        for role in &self.roles {
            role.write(to, width)?;
        }
        self.write_fields(to)
    }

    fn write_capabilities(&self, to: &mut String) -> fmt::Result {
        let Held {
            held,
            missing,
            kept,
        } = &self.capabilities;
        write!(to, "capabilities  {}", list(held))?;
        if !missing.is_empty() {
            write!(to, "; missing {}", list(missing))?;
        }
        if let Some(kept) = kept {
            write!(to, "; kept once attached: {}", list(kept))?;
        }
        writeln!(to)
    }

    fn write_fields(&self, to: &mut String) -> fmt::Result {
        let found = self
            .fields
            .iter()
            .filter(|one| one.found == Some(true))
            .count();
        writeln!(to, "\nfields        {found} of {} found", self.fields.len())?;
        let widths = self.fields.iter().map(|one| one.of.len());
        let width = widths.max().unwrap_or_default();
        let mut told = Vec::new();
        for FieldReport { of, .. } in &self.fields {
            if told.contains(of) {
                continue;
            }
            told.push(of);
            let members = self.fields.iter().filter(|one| one.of == *of);
            let paths: Vec<_> = members
                .map(|one| match one.found {
                    Some(true) => one.path.to_owned(),
                    Some(false) => format!("{} (missing)", one.path),
                    None => format!("{} (not looked for)", one.path),
                })
                .collect();
            writeln!(to, "  {of:<width$} {}", paths.join(", "))?;
        }
        Ok(())
    }
}

impl RoleReport {
    fn write(&self, to: &mut String, width: usize) -> fmt::Result {
        let hook = match &self.hook {
            Some(hook) => hook,
            None if self.tried => "none",
            None => "not tried",
        };
        writeln!(to, "  {:<width$} {hook}", self.role)?;
        for RefusedHook { hook, why } in &self.refused {
            writeln!(to, "  {:<width$}   not {hook}: {why}", "")?;
        }
        Ok(())
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands it over so")]
fn number<S: Serializer>(code: &Code, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u8(*code as u8)
}

fn list(names: &[&str]) -> String {
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}

fn names(capabilities: Capabilities) -> Vec<&'static str> {
    capabilities.known().map(Capability::name).collect()
}

/// Those that this kernel needs filled or, where none was tried, all there are.
fn roles(survey: &Survey) -> Vec<RoleReport> {
    let report = |entry: &Entry| {
        let filled = survey.roles.iter().find(|one| one.entry.role == entry.role);
        let refused = filled.map(|one| one.refused.as_slice()).unwrap_or_default();
        RoleReport {
            role: entry.role.name(),
            tried: filled.is_some(),
            hook: filled.and_then(|one| one.by).map(|rung| rung.name()),
            refused: refused
                .iter()
                .map(|refusal| RefusedHook {
                    hook: refusal.rung.name(),
                    why: refusal.why.clone(),
                })
                .collect(),
            without: entry.loss,
        }
    };
    let needed = |entry: &&Entry| {
        let mut tried = survey.roles.iter();
        survey.roles.is_empty() || tried.any(|one| one.entry.role == entry.role)
    };
    CATALOG.iter().filter(needed).map(report).collect()
}

fn fields(survey: &Survey) -> Vec<FieldReport> {
    let report = |field: &Field, found| FieldReport {
        of: field.of,
        path: field.path,
        found,
        without: field.loss,
    };
    match &survey.offsets {
        Some(offsets) => {
            let mut fields: Vec<FieldReport> = Vec::new();
            for (field, &offset) in offsets.iter() {
                let found = offset != ABSENT;
                // One that the list has in several sizes is there once.
                let same =
                    |known: &&mut FieldReport| (known.of, known.path) == (field.of, field.path);
                match fields.iter_mut().find(same) {
                    Some(known) if found => known.found = Some(true),
                    Some(_) => {}
                    None => fields.push(report(field, Some(found))),
                }
            }
            fields
        }
        None => FIELDS.iter().map(|field| report(field, None)).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::schema;

    /// A host that hides one hook.
    fn report() -> Report {
        let role = |role, hook: Option<&str>| RoleReport {
            role,
            tried: true,
            hook: hook.map(str::to_owned),
            refused: Vec::new(),
            without: None,
        };
        let field = |path, found| FieldReport {
            of: "sock",
            path,
            found,
            without: Some("errno"),
        };
        let refused = RefusedHook {
            hook: "fentry tcp_connect".to_owned(),
            why: "Operation not permitted".to_owned(),
        };
        Report {
            schema: Schema,
            kind: ReportType,
            outcome: Outcome::Degraded,
            code: Code::Degraded,
            version: "1.2.3",
            kernel: "6.18.44".to_owned(),
            lockdown: None,
            btf: Some("/sys/kernel/btf/vmlinux".to_owned()),
            capabilities: Held {
                held: vec!["CAP_BPF", "CAP_PERFMON"],
                missing: Vec::new(),
                kept: Some(Vec::new()),
            },
            roles: vec![
                role("destroyed", Some("tp_btf tcp_destroy_sock")),
                RoleReport {
                    refused: vec![refused],
                    ..role("connects", None)
                },
                role("states", Some("tp_btf inet_sock_set_state")),
            ],
            fields: vec![
                field("sk_protocol", Some(true)),
                field("sk_err", Some(false)),
            ],
            limits: vec!["not seen on this host: the local port".to_owned()],
            errors: Vec::new(),
        }
    }

    #[test]
    fn people_read_first_what_they_will_miss() {
        let expected = "\
upstream-trace 1.2.3: this host can be traced, but not all is seen
  - not seen on this host: the local port

kernel        6.18.44
lockdown      not told
types         /sys/kernel/btf/vmlinux
capabilities  CAP_BPF, CAP_PERFMON; kept once attached: none

hooks
  destroyed tp_btf tcp_destroy_sock
  connects  none
              not fentry tcp_connect: Operation not permitted
  states    tp_btf inet_sock_set_state

fields        1 of 2 found
  sock sk_protocol, sk_err (missing)
";
        assert_eq!(report().text(), expected);
    }

    #[test]
    fn or_why_nothing_works() {
        let mut report = report();
        report.outcome = Outcome::CannotRun;
        report.errors = vec!["CAP_BPF missing".to_owned()];
        report.capabilities.missing = vec!["CAP_BPF"];
        report.capabilities.kept = None;
        report.btf = None;
        for role in &mut report.roles {
            role.tried = false;
            role.hook = None;
        }
        for field in &mut report.fields {
            field.found = None;
        }
        let text = report.text();
        for line in [
            "upstream-trace 1.2.3: this host cannot be traced",
            "  ! CAP_BPF missing",
            "types         none",
            "capabilities  CAP_BPF, CAP_PERFMON; missing CAP_BPF",
            "  states    not tried",
            "  sock sk_protocol (not looked for), sk_err (not looked for)",
        ] {
            assert!(text.lines().any(|one| one == line), "{line:?} in\n{text}");
        }
    }

    #[test]
    fn a_run_says_it_in_short() {
        assert_eq!(
            report().short(),
            [
                "attached tp_btf tcp_destroy_sock, tp_btf inet_sock_set_state",
                "refused fentry tcp_connect (Operation not permitted)",
                "not seen on this host: the local port",
            ]
        );
        let refuse = |hook: &str, why: &str| RefusedHook {
            hook: hook.to_owned(),
            why: why.to_owned(),
        };
        let mut many = report();
        many.roles[0].refused = vec![refuse("a", "x"), refuse("b", "y")];
        many.roles[2].refused = vec![refuse("c", "x")];
        let refused: Vec<_> = many.refused_by_reason().collect();
        let expected = [
            "a, c (x)",
            "b (y)",
            "fentry tcp_connect (Operation not permitted)",
        ];
        assert_eq!(refused, expected);
        let mut all = report();
        all.limits.clear();
        all.roles.remove(1);
        assert_eq!(all.short().len(), 1);
    }

    #[test]
    fn json_fits_the_schema() {
        let value: serde_json::Value = serde_json::from_str(&report().json()).unwrap();
        let validator = jsonschema::validator_for(&schema::schema()).unwrap();
        assert!(validator.is_valid(&value), "{value:#}");
        assert_eq!(value["exit_code"], 8);
        assert_eq!(value["outcome"], "degraded");
        let mut other = value;
        other["outcome"] = "fine".into();
        assert!(!validator.is_valid(&other));
    }
}
