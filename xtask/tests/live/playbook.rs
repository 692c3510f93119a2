//! The playbook, as the tracer prints it, against what is printed of the scenarios that it names.

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use xtask::scenario::check::Line;
use xtask::scenario::feature::Features;
use xtask::scenario::{self, Ctx, Scenario, load};
use xtask::skipped;
use xtask::tracer::{self, Tracer};

use crate::PORT;
use crate::scenarios::LOAD_PORT;

/// Rows of the table, by cells.
fn rows() -> Result<Vec<Vec<String>>> {
    let output = tracer::command(&tracer::binary()?, ["playbook"]).output()?;
    ensure!(output.status.success(), "{}", output.status);
    let table = String::from_utf8(output.stdout)?;
    let rows = table.lines().skip(2).map(|row| {
        let cells = row.trim_matches('|').split(" | ");
        cells.map(|cell| cell.trim().to_owned()).collect()
    });
    Ok(rows.collect())
}

/// Each row that names scenarios is what is said of an end of each of them; the others say why they name none.
pub(crate) fn every_row_is_played() -> Result<()> {
    let kernel = Features::here()?;
    let ctx = Ctx::new(PORT)?;
    let mut played = 0;
    for row in rows()? {
        let [what, .., shown] = &row[..] else {
            anyhow::bail!("no cells: {row:?}");
        };
        ensure!(row.len() == 9, "{} cells: {row:?}", row.len());
        if shown == "data only" || shown == "not visible in the kernel" {
            continue;
        }
        for name in shown.split(", ") {
            let scenario = scenario::find(name).with_context(|| format!("no scenario {name}"))?;
            if !scenario.is_playable(kernel) {
                continue;
            }
            ends_in(scenario, &ctx, &row)
                .with_context(|| format!("{name} does not end in the row of {what}: {row:?}"))?;
            played += 1;
        }
    }
    println!("{played} plays");
    ensure!(played > 0, "the playbook names no scenario");
    Ok(())
}

/// Whether a line of it says what the row says.
fn ends_in(scenario: &Scenario, ctx: &Ctx, row: &[String]) -> Result<()> {
    skipped::again(|| {
        let tracer = Tracer::start(&["--port", &format!("{PORT}-{LOAD_PORT}")])?;
        scenario.play(ctx)?;
        // Longer than a record may take.
        thread::sleep(Duration::from_millis(100));
        let said = |lines: &[Line]| lines.iter().any(|line| says(line, row));
        if !said(&tracer.so_far()?) {
            load::use_memory_again(LOAD_PORT)?;
        }
        let run = tracer.stop()?;
        let (lines, stats) = (run.by_time()?, run.stats()?);
        Ok((!said(&lines)).then(|| (format!("{lines:#?}"), stats)))
    })
}

/// Whether this line says what the row says.
fn says(line: &Line, row: &[String]) -> bool {
    let value = &line.value;
    let word = |name: &str| match value[name].as_str() {
        Some(word) => format!("`{word}`"),
        None => "-".to_owned(),
    };
    let what = if line.is("connection") {
        word("verdict")
    } else {
        "`reset` line".to_owned()
    };
    row[0].split(", ").any(|verdict| verdict == what)
        && word("cause") == row[2]
        && word("layer") == row[3]
        && value["hint"] == row[7].as_str()
}
