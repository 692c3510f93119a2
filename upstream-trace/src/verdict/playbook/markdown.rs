//! The playbook as a table in Markdown.
//!
//! Must not know: whether a row holds.

use std::fmt::Write as _;

use super::{
    Meaning, Shown,
    rows::{ROWS, STRAY_ROWS, UNSEEN_ROWS},
};

/// The whole table in Markdown, as docs/output.md shows it.
pub fn table() -> String {
    let mut text = String::from(
        "| what became of it | what is known besides | `cause` | `layer` | Envoy | Envoy before | NGINX | `hint` | shown by |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    let code = |text: &str| format!("`{text}`");
    for (verdicts, rows) in ROWS {
        let verdicts: Vec<_> = verdicts
            .iter()
            .map(|verdict| code(verdict.as_str()))
            .collect();
        let verdicts = verdicts.join(", ");
        for row in *rows {
            let known = row.condition.words();
            line(&mut text, &verdicts, &known, &row.meaning, row.shown);
        }
    }
    for row in STRAY_ROWS {
        line(
            &mut text,
            "`reset` line",
            row.words,
            &row.meaning,
            row.shown,
        );
    }
    for row in UNSEEN_ROWS {
        line(
            &mut text,
            "-",
            row.words,
            &row.meaning,
            Shown::NotInTheKernel,
        );
    }
    text
}

fn line(text: &mut String, what: &str, known: &str, meaning: &Meaning, shown: Shown) {
    let code = |text: &str| format!("`{text}`");
    let cause = meaning
        .cause
        .map_or("-".to_owned(), |cause| code(cause.as_str()));
    let [envoy, before, nginx] = meaning.proxy.map_or(["-"; 3].map(str::to_owned), |proxy| {
        let mut envoy = format!("{} {}", code(proxy.envoy_flag), proxy.envoy_reason);
        if let (Some(flag), Some(reason)) = (proxy.envoy_flag_other, proxy.envoy_reason_other) {
            // Writing into a string cannot fail.
            let _ = write!(envoy, ", or {} {reason}", code(flag));
        }
        let mut nginx = proxy.nginx_error.to_owned();
        if let Some(other) = proxy.nginx_error_other {
            let _ = write!(nginx, ", or {other}");
        }
        [envoy, proxy.envoy_reason_old.to_owned(), nginx]
    });
    let shown = match shown {
        Shown::Played(names) => names.join(", "),
        Shown::FromData => "data only".to_owned(),
        Shown::NotInTheKernel => "not visible in the kernel".to_owned(),
    };
    let layer = code(meaning.layer.as_str());
    let hint = meaning.hint;
    let _ = writeln!(
        text,
        "| {what} | {known} | {cause} | {layer} | {envoy} | {before} | {nginx} | {hint} | {shown} |"
    );
}
