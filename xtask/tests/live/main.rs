//! Tests of the real tracer on the running kernel with real sockets; they need root.
//!
//! A machine where the tracer cannot trace fails them all, and says so. A scenario whose kernel lacks what it needs is ignored, by
//! name.
//! `UPSTREAM_TRACE_REPS` sets how often each scenario is played in random order,
//! `UPSTREAM_TRACE_SEED` replays an order, `UPSTREAM_TRACE_ONLY` plays only those named (commas
//! between), `UPSTREAM_TRACE_STARTS` sets how often it is started and stopped for what may be left behind,
//! `UPSTREAM_TRACE_BINARY` names another tracer.

mod accounting;
mod command_line;
mod container;
mod degraded;
mod leftovers;
mod lifetime;
mod output;
mod playbook;
mod privileges;
mod scenarios;
mod selection;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use libtest_mimic::{Arguments, Failed, Trial};
use xtask::scenario::{self, check::Line, feature::Features};
use xtask::tracer::{self, Tracer};

/// The first of the ports that the tests use; below the range that the kernel chooses from.
const PORT: u16 = 18440;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // What a test sees in the kernel is everybody's.
    arguments.test_threads = Some(1);
    if !arguments.list
        && let Err(error) = can_trace()
    {
        eprintln!("the live tests need a machine that can be traced: {error:#}");
        return ExitCode::FAILURE;
    }
    if let Err(error) = scenario::prepare() {
        eprintln!("no process can be forked: {error:#}");
        return ExitCode::FAILURE;
    }
    let kernel = match Features::here() {
        Ok(kernel) => kernel,
        Err(error) => {
            eprintln!("this kernel does not tell its types: {error}");
            return ExitCode::FAILURE;
        }
    };
    libtest_mimic::run(&arguments, trials(kernel)).exit_code()
}

type Test = fn() -> Result<()>;

/// In the order in which they run, after the scenarios.
const TESTS: &[(&str, Test)] = &[
    ("start_says_what_it_does", command_line::duration_zero),
    ("bad_input_is_one_clear_line", command_line::bad_input),
    ("few_descriptors_are_told", command_line::few_descriptors),
    ("too_large_a_ring_is_told", command_line::little_memory),
    ("without_proc_it_traces", command_line::no_proc),
    ("without_devices_it_traces", command_line::no_devices),
    (
        "a_pipe_that_nobody_reads_is_an_error",
        command_line::unread_pipe,
    ),
    (
        "a_start_for_nothing_keeps_the_file",
        command_line::output_is_kept,
    ),
    (
        "a_start_can_be_interrupted",
        command_line::interrupted_start,
    ),
    (
        "output_that_cannot_be_written_is_told",
        command_line::full_device,
    ),
    ("a_full_disk_leaves_whole_lines", command_line::full_disk),
    ("a_file_that_is_cut_goes_on", command_line::cut_output),
    (
        "no_privilege_names_the_capability",
        command_line::no_privilege,
    ),
    (
        "doctor_foretells_the_run",
        degraded::doctor_foretells_the_run,
    ),
    ("degraded_by_privileges", degraded::privileges),
    ("degraded_by_refused_hooks", degraded::refused_hooks),
    (
        "degraded_by_hidden_file_systems",
        degraded::hidden_file_systems,
    ),
    (
        "degraded_by_paranoid_perf_events",
        degraded::paranoid_perf_events,
    ),
    ("degraded_by_hidden_types", degraded::hidden_types),
    (
        "root_gives_up_what_it_does_not_need",
        privileges::root_gives_up_what_it_does_not_need,
    ),
    (
        "nobody_traces_with_two_capabilities",
        privileges::nobody_traces_with_two_capabilities,
    ),
    (
        "in_a_container_it_traces_as_on_the_node",
        container::traces_as_on_the_node,
    ),
    (
        "skipped_hooks_are_counted",
        privileges::skipped_hooks_are_counted,
    ),
    ("two_at_once_are_both_right", leftovers::two_at_once),
    ("killed_it_leaves_nothing", leftovers::killed),
    (
        "many_starts_and_stops_leave_nothing",
        leftovers::started_and_stopped_many_times,
    ),
    ("sigint_and_sigterm_end_it_in_order", command_line::signals),
    ("a_closed_pipe_ends_it_quietly", command_line::closed_pipe),
    ("a_closed_pipe_ends_it_at_rest", command_line::hang_up),
    ("every_line_fits_the_schema", output::schema),
    ("seq_has_no_gap", output::sequence),
    ("a_record_comes_within_100_ms", output::latency),
    ("text_reads_well", output::text),
    ("filter_by_port", selection::ports),
    ("filter_by_network", selection::networks),
    ("filter_by_pid", selection::pids),
    ("filter_by_cgroup_and_container", || {
        xtask::cgroups::are_filters(PORT)
    }),
    ("choose_by_verdict_and_flag", selection::records),
    (
        "every_row_of_the_playbook_is_played",
        playbook::every_row_is_played,
    ),
    (
        "connections_older_than_the_tracer",
        lifetime::older_than_the_tracer,
    ),
    ("connections_of_mptcp_older_than_the_tracer", || {
        xtask::older::multipath_are_found(PORT)
    }),
    (
        "connections_younger_than_the_tracer",
        lifetime::still_open_at_the_end,
    ),
    ("a_stop_amid_traffic_invents_nothing", || {
        xtask::stopped::amid_traffic(PORT)
    }),
    (
        "a_small_ring_loses_nothing_silently",
        accounting::small_ring,
    ),
    ("a_full_table_is_counted", accounting::full_table),
    ("a_paused_reader_blocks_nobody", accounting::paused_reader),
    ("20000_healthy_connections_are_ok", accounting::healthy),
    (
        "right_verdicts_in_random_order_under_load",
        scenarios::random_order,
    ),
];

fn trials(kernel: Features) -> Vec<Trial> {
    let others = TESTS.iter().map(|&(name, test)| trial(name, test));
    scenarios::each(kernel).into_iter().chain(others).collect()
}

fn can_trace() -> Result<()> {
    let binary = tracer::binary()?;
    let output = tracer::command(&binary, ["--duration", "0"]).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{}: {}",
        output.status,
        said.trim()
    );
    Ok(())
}

fn trial(name: &str, test: Test) -> Trial {
    Trial::test(name, move || {
        test().map_err(|error| Failed::from(format!("{error:#}")))
    })
}

/// Waits until `count` lines have come that `wanted` counts, and returns all.
fn wait_for(tracer: &Tracer, count: usize, wanted: impl Fn(&Line) -> bool) -> Result<Vec<Line>> {
    for _ in 0..100 {
        let lines = tracer.so_far()?;
        if lines.iter().filter(|line| wanted(line)).count() >= count {
            return Ok(lines);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let lines = tracer.so_far()?;
    let found = lines.iter().filter(|line| wanted(line)).count();
    anyhow::bail!(
        "{found} lines instead of {count} came within 2 s, of {} in all",
        lines.len()
    )
}

/// A number from the environment.
fn setting(name: &str) -> Result<Option<u64>> {
    let Ok(text) = std::env::var(name) else {
        return Ok(None);
    };
    Ok(Some(
        text.parse().with_context(|| format!("{name}={text}"))?,
    ))
}
