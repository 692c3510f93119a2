//! `cargo xtask demo`: a healthy upstream and five that fail, which a proxy reports in nearly the same
//! words, beside what the tracer says of each.
//!
//! Real traffic on loopback, the real tracer. It succeeds only if the tracer told all six apart and
//! was right about each.

use std::collections::BTreeSet;
use std::env;
use std::io::{self, IsTerminal as _};
use std::net::{Ipv4Addr, TcpListener};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::scenario::check::{Complaint, check, lines_of, within};
use crate::scenario::feature::Features;
use crate::scenario::{self, Ctx, Played, Scenario};
use crate::tracer::Tracer;

const PORT: u16 = 8443;
/// The six, in the order in which they are shown.
const CASES: [&str; 6] = [
    "healthy",
    "refused",
    "reset_after_accept",
    "reset_after_request",
    "close_unread",
    "closed_without_answer",
];
/// How Envoy begins, whatever was wrong.
const ENVOY: &str = "upstream connect error or disconnect/reset before headers. reset reason:";
/// A record is due after 100 ms.
const PATIENCE: Duration = Duration::from_secs(2);

/// What makes one case different from another: verdict, direction and reason of the reset.
type Answer = (String, String, String);

/// Starts the tracer, plays the six cases, shows what it says of them.
pub fn run() -> Result<()> {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, PORT)).err();
    if let Some(error) = taken {
        bail!("the demo needs port {PORT} on 127.0.0.1 for itself: {error}");
    }
    let ctx = Ctx::new(PORT)?;
    println!("Starting `upstream-trace --port {PORT}` ...");
    let tracer = Tracer::start(&["--port", &PORT.to_string()])?;
    println!(
        "Playing {} upstreams on 127.0.0.1:{PORT}, all but one of them bad.",
        CASES.len()
    );

    let kernel = Features::here()?;
    let paint = Paint::for_stdout();
    let mut answers = BTreeSet::new();
    let mut wrong = Vec::new();
    for (number, name) in CASES.into_iter().enumerate() {
        let scenario = scenario::find(name).context("no such scenario")?;
        let played = scenario.play(&ctx)?;
        let (record, complaints) = explanation(&tracer, scenario, &played, kernel)?;
        println!();
        println!(
            "{}",
            paint.bold(&format!("{}. {}", number + 1, capitalised(scenario.story)))
        );
        match &record {
            Some(record) => {
                show(record, paint);
                answers.insert(answer(record));
            }
            None => println!("   the tracer says nothing"),
        }
        for complaint in &complaints {
            println!("   {} {complaint}", paint.red("wrong:"));
        }
        if !complaints.is_empty() {
            wrong.push(name);
        }
    }

    let run = tracer.stop()?;
    let stats = run.stats()?;
    println!();
    println!(
        "The tracer saw {} kernel events of {} connections and lost {}.",
        stats["events"],
        stats["connections"],
        lost(&stats)
    );
    ensure!(run.status.success(), "the tracer ended with {}", run.status);
    ensure!(
        wrong.is_empty(),
        "the tracer was wrong about {}",
        wrong.join(", ")
    );
    ensure!(
        answers.len() == CASES.len(),
        "the tracer told only {} of {} cases apart",
        answers.len(),
        CASES.len()
    );
    println!(
        "{}",
        paint.green(&format!("All {} told apart.", CASES.len()))
    );
    Ok(())
}

/// Waits for the tracer's lines about a case: the client's record, and what is wrong with all.
fn explanation(
    tracer: &Tracer,
    scenario: &Scenario,
    played: &Played,
    kernel: Features,
) -> Result<(Option<Value>, Vec<Complaint>)> {
    let began = Instant::now();
    loop {
        let lines = tracer.so_far()?;
        let near = within(&lines, played);
        let complaints = check(scenario, played, near, kernel);
        if complaints.is_empty() || began.elapsed() > PATIENCE {
            let all = lines_of(scenario, played, near);
            let record = all.into_iter().find(|line| line["role"] == "client");
            return Ok((record.cloned(), complaints));
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn answer(record: &Value) -> Answer {
    let word = |value: &Value| value.as_str().unwrap_or("none").to_owned();
    let reset = &record["reset"];
    (
        word(&record["verdict"]),
        word(&reset["direction"]),
        word(&reset["reason"]),
    )
}

fn lost(stats: &Value) -> u64 {
    let causes = stats["lost"].as_object();
    causes.map_or(0, |causes| causes.values().filter_map(Value::as_u64).sum())
}

fn show(record: &Value, paint: Paint) {
    field("a proxy says", &proxy(record));
    let verdict = record["verdict"].as_str().unwrap_or("?");
    let verdict = if verdict == "ok" {
        paint.green(verdict)
    } else {
        paint.red(&paint.bold(verdict))
    };
    field("the tracer says", &verdict);
    field("client", &process(&record["process"]));
    field("server", &process(&record["peer"]));
    let reset = &record["reset"];
    if reset.is_object() {
        let sender = if reset["sender"].is_object() {
            process(&reset["sender"])
        } else {
            "the kernel of this machine, for no process".to_owned()
        };
        field("reset sent by", &sender);
        field(
            "kernel's reason",
            reset["reason"]
                .as_str()
                .unwrap_or("not named by this kernel"),
        );
    }
    for (at, step) in record["timeline"]
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
    {
        field(if at == 0 { "timeline" } else { "" }, &rung(step));
    }
    if let Some(hint) = record["hint"].as_str() {
        let mut name = "hint";
        for line in wrapped(hint, 80) {
            field(name, &line);
            name = "";
        }
    }
}

fn field(name: &str, value: &str) {
    println!("   {name:<16} {value}");
}

fn proxy(record: &Value) -> String {
    let words = &record["proxy"];
    match words["envoy_reason"].as_str() {
        Some(reason) => {
            format!(
                "{ENVOY} {reason} ({})",
                words["envoy_flag"].as_str().unwrap_or("-")
            )
        }
        None => "nothing, the request went through".to_owned(),
    }
}

fn process(process: &Value) -> String {
    match (process["comm"].as_str(), process["pid"].as_u64()) {
        (Some(comm), Some(pid)) => format!("{comm}, pid {pid}"),
        (None, Some(pid)) => format!("pid {pid}"),
        _ => "nobody".to_owned(),
    }
}

fn rung(step: &Value) -> String {
    let micros = step["at_us"].as_u64().unwrap_or(0);
    let event = match (step["from"].as_str(), step["to"].as_str()) {
        (Some(from), Some(to)) => format!("{from} to {to}"),
        _ => step["event"].as_str().unwrap_or("?").replace('_', " "),
    };
    let errno = step["errno"]
        .as_str()
        .map(|errno| format!(" {errno}"))
        .unwrap_or_default();
    format!("{micros:>8} us  {event}{errno}")
}

/// Breaks a sentence between words.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("never empty");
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(letters).collect()
    })
}

/// Colours, for a terminal only.
#[derive(Clone, Copy, Debug)]
struct Paint {
    colours: bool,
}

impl Paint {
    fn for_stdout() -> Self {
        let refused = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            colours: io::stdout().is_terminal() && !refused,
        }
    }

    fn with(self, code: &str, text: &str) -> String {
        if self.colours {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }

    fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    fn red(self, text: &str) -> String {
        self.with("31", text)
    }

    fn green(self, text: &str) -> String {
        self.with("32", text)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_case_is_a_scenario() {
        for name in CASES {
            assert!(scenario::find(name).is_some(), "{name}");
        }
    }

    #[test]
    fn a_proxy_is_quoted_as_it_speaks() {
        let record =
            json!({"proxy": {"envoy_flag": "UC", "envoy_reason": "connection termination"}});
        assert_eq!(
            proxy(&record),
            format!("{ENVOY} connection termination (UC)")
        );
        assert_eq!(
            proxy(&json!({"proxy": null})),
            "nothing, the request went through"
        );
    }

    #[test]
    fn a_hint_is_wrapped_between_words() {
        assert_eq!(wrapped("one two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("unbreakable", 3), ["unbreakable"]);
        assert_eq!(wrapped("", 3), [""]);
    }

    #[test]
    fn no_escape_without_colours() {
        let paint = Paint { colours: false };
        assert_eq!(paint.red(&paint.bold("ok")), "ok");
    }
}
