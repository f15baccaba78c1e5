//! Runs the cases, each in a process of its own, some at a time, and tells what came out.

use crate::cases::{self, Case};
use crate::{Cli, soak};
use anyhow::{Context, Result, bail};
use ferry6::lab;
use std::collections::VecDeque;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What became of a case.
enum Outcome {
    Passed,
    Failed(String),
    Skipped(String),
}

struct Row {
    number: usize,
    outcome: Outcome,
    took: Duration,
    /// What was wrong the first time, where it passed by itself.
    first: Option<String>,
}

/// As many failed cases are run again, each by itself: beside others a machine can be too busy for a case's patience. More of
/// them are no accident.
const SECOND_TRIES: usize = 4;

/// Runs all cases that the filter lets through. `Ok(true)`: none failed.
pub fn all(cli: &Cli) -> Result<bool> {
    let mut cases = cases::all();
    if !cli.filter.is_empty() {
        cases.retain(|c| cli.filter.iter().any(|f| c.name.contains(f.as_str())));
    }
    if cli.list {
        for case in &cases {
            println!("{:<44} {:<18} ferry6 is {:<7} {}", case.name, case.peer, case.role, case.feature);
        }
        return Ok(true);
    }
    if cases.is_empty() {
        bail!("no case has {} in its name; --list shows them", cli.filter.join(" or "));
    }
    let ferry6 = ferry6_binary(cli)?;
    let logs = std::path::absolute(&cli.logs)?;
    fs::create_dir_all(&logs).with_context(|| logs.display().to_string())?;
    println!("{} cases, {} at a time; program under test: {}", cases.len(), cli.jobs, ferry6.display());

    let queue: Mutex<VecDeque<usize>> = Mutex::new((0..cases.len()).collect());
    let rows = Mutex::new(Vec::new());
    std::thread::scope(|s| {
        for _ in 0..cli.jobs.clamp(1, 16) {
            s.spawn(|| {
                loop {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                    let Some(number) = next else { return };
                    let begin = Instant::now();
                    let outcome = attempt(cli, &cases[number], &ferry6, &logs)
                        .unwrap_or_else(|error| Outcome::Failed(format!("{error:#}")));
                    let row = Row { number, outcome, took: begin.elapsed(), first: None };
                    tell(&cases[number], &row, &logs);
                    rows.lock().unwrap_or_else(PoisonError::into_inner).push(row);
                }
            });
        }
    });
    let mut rows = rows.into_inner().unwrap_or_else(PoisonError::into_inner);
    rows.sort_by_key(|r| r.number);
    again(cli, &cases, &ferry6, &logs, &mut rows);
    summary(cli, &cases, &rows)
}

/// Runs what failed once more, with the machine for itself. What passes then is told as such.
fn again(cli: &Cli, cases: &[Case], ferry6: &Path, logs: &Path, rows: &mut [Row]) {
    let mut failed: Vec<_> = rows.iter_mut().filter(|r| matches!(r.outcome, Outcome::Failed(_))).collect();
    if failed.is_empty() || failed.len() > SECOND_TRIES || cases.len() == 1 || cli.hold {
        return;
    }
    println!("{} failed: once more, each by itself", failed.len());
    for row in &mut failed {
        let case = &cases[row.number];
        // The logs of the first try stay.
        let (dir, kept) = (logs.join(&case.name), logs.join(format!("{}.first", case.name)));
        let _ = fs::remove_dir_all(&kept);
        let _ = fs::rename(&dir, &kept);
        let begin = Instant::now();
        let outcome =
            attempt(cli, case, ferry6, logs).unwrap_or_else(|error| Outcome::Failed(format!("{error:#}")));
        let first = std::mem::replace(&mut row.outcome, outcome);
        if let (Outcome::Passed, Outcome::Failed(why)) = (&row.outcome, first) {
            row.first = Some(why);
        }
        row.took = begin.elapsed();
        tell(case, row, logs);
    }
}

fn ferry6_binary(cli: &Cli) -> Result<PathBuf> {
    let path = match &cli.ferry6 {
        Some(path) => std::path::absolute(path)?,
        None => std::env::current_exe()?.with_file_name("ferry6"),
    };
    if !path.is_file() {
        bail!(
            "{} is not there: build it (cargo build --release -p ferry6) or name it with --ferry6",
            path.display()
        );
    }
    Ok(path)
}

/// One case in a process of its own, with an end.
fn attempt(cli: &Cli, case: &Case, ferry6: &Path, logs: &Path) -> Result<Outcome> {
    if let Some(why) = case.missing() {
        // Where a person runs it, that is a skip that is said aloud; nothing may be left out silently in CI.
        return Ok(if std::env::var_os("CI").is_some() {
            Outcome::Failed(why)
        } else {
            Outcome::Skipped(why)
        });
    }
    let dir = logs.join(&case.name);
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir_all(&dir)?;
    let log = File::create(dir.join("case.log"))?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--one").arg(&case.name).arg("--logs").arg(&dir).arg("--ferry6").arg(ferry6);
    if cli.hold {
        command.arg("--hold");
    }
    let show = cli.hold;
    command.stdin(Stdio::null());
    if !show {
        command.stdout(log.try_clone()?).stderr(log);
    }
    let mut child = command.spawn()?;
    let end = Instant::now() + if cli.hold { Duration::MAX / 4 } else { case.timeout };
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > end {
            // Its laboratory dies with it.
            child.kill()?;
            child.wait()?;
            return Ok(Outcome::Failed(format!("not done within {} s", case.timeout.as_secs())));
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    if status.success() {
        if !cli.keep {
            fs::remove_dir_all(&dir)?;
        }
        return Ok(Outcome::Passed);
    }
    let text = fs::read(dir.join("case.log")).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).trim().to_owned();
    Ok(Outcome::Failed(if text.is_empty() { format!("ended with {status}") } else { text }))
}

fn tell(case: &Case, row: &Row, logs: &Path) {
    let seconds = row.took.as_secs_f32();
    match &row.outcome {
        Outcome::Passed if row.first.is_some() => {
            println!(
                "ok      {:<44} {seconds:5.1} s  AT THE SECOND TRY, by itself; logs of the first: {}.first",
                case.name,
                logs.join(&case.name).display()
            );
        }
        Outcome::Passed => println!("ok      {:<44} {seconds:5.1} s", case.name),
        Outcome::Skipped(why) => println!("SKIPPED {:<44} {why}", case.name),
        Outcome::Failed(why) => {
            println!("FAILED  {:<44} {seconds:5.1} s  logs: {}", case.name, logs.join(&case.name).display());
            let lines: Vec<_> = why.lines().collect();
            for line in &lines[lines.len().saturating_sub(40)..] {
                println!("        | {line}");
            }
        }
    }
}

/// One line of the table, as `--json` writes it.
#[derive(serde::Serialize)]
struct Line<'a> {
    case: &'a str,
    peer: String,
    role: String,
    feature: &'a str,
    result: &'static str,
    seconds: f32,
    /// Why, where it did not pass, or not at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<&'a str>,
}

impl<'a> Line<'a> {
    fn new(case: &'a Case, row: &'a Row) -> Self {
        let (result, cause) = match &row.outcome {
            Outcome::Passed if row.first.is_some() => ("ok, 2nd", row.first.as_deref()),
            Outcome::Passed => ("ok", None),
            Outcome::Failed(why) => ("FAILED", Some(why.as_str())),
            Outcome::Skipped(why) => ("skipped", Some(why.as_str())),
        };
        Self {
            case: &case.name,
            peer: case.peer.to_string(),
            role: case.role.to_string(),
            feature: &case.feature,
            result,
            seconds: (row.took.as_secs_f32() * 10.0).round() / 10.0,
            cause,
        }
    }
}

/// The table of all cases, by peer and role of ferry6.
fn table(lines: &[Line<'_>]) -> String {
    let width = |text: fn(&Line<'_>) -> usize| lines.iter().map(text).max().unwrap_or(0);
    let (feature, case) = (width(|l| l.feature.chars().count()), width(|l| l.case.len()));
    let mut out = format!(
        "{:<18} {:<9} {:<feature$} {:<7} {:>7}  {:<case$}\n",
        "peer", "ferry6 is", "feature", "result", "seconds", "case"
    );
    let mut before = None;
    for line in lines {
        let group = (&line.peer, &line.role);
        if before.replace(group).is_some_and(|before| before != group) {
            out.push('\n');
        }
        let Line { case: name, peer, role, feature: text, result, seconds, .. } = line;
        out += &format!("{peer:<18} {role:<9} {text:<feature$} {result:<7} {seconds:>7.1}  {name}\n");
    }
    out
}

/// Prints the table, and the numbers that `./test` adds up. `Ok(true)`: none failed.
fn summary(cli: &Cli, cases: &[Case], rows: &[Row]) -> Result<bool> {
    let mut lines: Vec<_> = rows.iter().map(|row| Line::new(&cases[row.number], row)).collect();
    // Stable: within a group the cases stay in the order in which they are listed.
    lines.sort_by(|a, b| (&a.peer, &a.role).cmp(&(&b.peer, &b.role)));
    if let Some(file) = &cli.json {
        let mut text = serde_json::to_string_pretty(&lines)?;
        text.push('\n');
        fs::write(file, text).with_context(|| file.display().to_string())?;
    }
    let count = |result| lines.iter().filter(|line| line.result == result).count();
    let (passed, failed, skipped) = (count("ok") + count("ok, 2nd"), count("FAILED"), count("skipped"));
    println!("\n{}\n{passed} passed, {failed} failed, {skipped} skipped", table(&lines));
    Ok(failed == 0)
}

/// The soak, with a table at its end. `Ok(true)`: it passed.
pub fn soak(cli: &Cli) -> Result<bool> {
    let ferry6 = ferry6_binary(cli)?;
    lab::enter()?;
    soak::main(&cli.soak, &ferry6, &std::path::absolute(&cli.logs)?)
}

/// The process of one case.
pub fn one(cli: &Cli, name: &str) -> Result<()> {
    // PID 1 of a PID namespace: whatever the case starts ends with it.
    lab::enter()?;
    let case =
        cases::all().into_iter().find(|c| c.name == name).with_context(|| format!("no case {name}"))?;
    let mut env = cases::Env::new(&ferry6_binary(cli)?, &cli.logs)?;
    let result = (case.run)(&mut env);
    if cli.hold {
        match &result {
            Ok(()) => println!("{name} has passed and holds; enter its hosts with:"),
            Err(error) => println!("{name} has failed and holds: {error:?}\nenter its hosts with:"),
        }
        env.tell_hosts();
        loop {
            std::thread::park();
        }
    }
    result
}
