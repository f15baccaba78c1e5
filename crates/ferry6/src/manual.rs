//! `ferry6 man` and `ferry6 completions`: out of the same source as `--help` and docs/configuration.md.

use crate::cli::Cli;
use crate::config::reference::{self, Reload, Role, plain};
use crate::exit;
use anyhow::Context as _;
use clap::{Command, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

const MAN_EXAMPLES: &str = "\
Examples:
  ferry6 man target/man                             writes ferry6.1, ferry6-broker.1, .., ferry6-client.toml.5
  man -l target/man/ferry6-broker.1";

const COMPLETION_EXAMPLES: &str = "\
Examples:
  ferry6 completions bash > /usr/share/bash-completion/completions/ferry6
  ferry6 completions zsh > /usr/share/zsh/vendor-completions/_ferry6
  ferry6 completions fish > /usr/share/fish/vendor_completions.d/ferry6.fish";

/// Arguments of `man`.
#[derive(Debug, clap::Args)]
#[command(after_help = MAN_EXAMPLES)]
pub struct ManArgs {
    /// Where to write them; made where it is missing.
    dir: PathBuf,
}

/// Arguments of `completions`.
#[derive(Debug, clap::Args)]
#[command(after_help = COMPLETION_EXAMPLES)]
pub struct CompletionArgs {
    /// For which shell.
    shell: Shell,
}

/// Writes all man pages.
///
/// # Errors
/// The directory can't be written.
pub fn man(args: &ManArgs) -> anyhow::Result<ExitCode> {
    std::fs::create_dir_all(&args.dir).with_context(|| format!("cannot make {}", args.dir.display()))?;
    for (name, text) in pages()? {
        let path = args.dir.join(name);
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints completions.
///
/// # Errors
/// stdout can't be written.
pub fn completions(args: &CompletionArgs) -> anyhow::Result<ExitCode> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "ferry6", &mut text);
    std::io::Write::write_all(&mut std::io::stdout(), &text).context("cannot print")?;
    Ok(ExitCode::SUCCESS)
}

/// Every page: file name and text.
///
/// # Errors
/// None: they are written to memory.
pub fn pages() -> anyhow::Result<Vec<(String, String)>> {
    let mut root = Cli::command().disable_help_subcommand(true);
    root.build();
    let mut list = Vec::new();
    command_pages(&root, &mut list)?;
    for (role, name) in [(Role::Broker, "broker"), (Role::Client, "client")] {
        list.push((format!("ferry6-{name}.toml.5"), configuration_page(role, name)));
    }
    Ok(list)
}

fn command_pages(command: &Command, list: &mut Vec<(String, String)>) -> anyhow::Result<()> {
    for inner in command.get_subcommands().filter(|c| !c.is_hide_set()) {
        command_pages(inner, list)?;
    }
    let man =
        Man::new(command.clone()).manual("ferry6").source(concat!("ferry6 ", env!("CARGO_PKG_VERSION")));
    let mut out = Vec::new();
    man.render_title(&mut out)?;
    man.render_name_section(&mut out)?;
    man.render_synopsis_section(&mut out)?;
    man.render_description_section(&mut out)?;
    man.render_options_section(&mut out)?;
    if command.get_subcommands().any(|c| !c.is_hide_set()) {
        man.render_subcommands_section(&mut out)?;
    }
    let mut text = String::from_utf8(out).context("a man page")?;
    if let Some(help) = command.get_after_help() {
        examples(&mut text, &help.to_string());
    }
    exit_status(&mut text);
    see_also(&mut text, &["ferry6(1)", "ferry6-broker.toml(5)", "ferry6-client.toml(5)"]);
    list.push((man.get_filename(), text));
    Ok(())
}

/// The text behind `--help`: what it calls examples, and the paragraphs after them.
fn examples(text: &mut String, help: &str) {
    for part in help.split("\n\n") {
        if let Some(lines) = part.strip_prefix("Examples:\n") {
            let _ = write!(text, ".SH EXAMPLES\n.nf\n{}\n.fi\n", roff(lines));
        } else if !part.starts_with("Exit codes:") {
            let _ = write!(text, ".SH NOTES\n{}\n", roff(part));
        }
    }
}

fn exit_status(text: &mut String) {
    text.push_str(".SH \"EXIT STATUS\"\n");
    for (exit, when) in exit::CODES {
        let _ = write!(text, ".TP\n{}\n{}\n", *exit as u8, roff(when));
    }
}

fn see_also(text: &mut String, pages: &[&str]) {
    let _ = write!(text, ".SH \"SEE ALSO\"\n{}\n", roff(&pages.join(", ")));
}

fn configuration_page(role: Role, name: &str) -> String {
    let (title, example) = match role {
        Role::Client => ("client", include_str!("../../../docs/examples/client.toml")),
        _ => ("broker", include_str!("../../../docs/examples/broker.toml")),
    };
    let mut text = format!(
        ".ie \\n(.g .ds Aq \\(aq\n.el .ds Aq '\n.TH ferry6-{name}.toml 5 \"\" \"ferry6 {}\" ferry6\n.SH NAME\n\
         ferry6-{name}.toml \\- configuration of a ferry6 {title}\n.SH SYNOPSIS\n/etc/ferry6/{}\n.SH DESCRIPTION\n",
        env!("CARGO_PKG_VERSION"),
        if role == Role::Client { "NAME/client.toml" } else { "broker.toml" },
    );
    let flags = format!(
        "TOML. ferry6 {name} --check reads the file and all that it names, changes nothing, and tells every fault with line and \
         key. Paths are relative to the file's directory. Durations are \"30s\", \"15m\", \"8h\", \"2d\", or \"never\"; sizes \
         \"500MB\", \"10GB\", or \"never\". docs/configuration.md tells of proposals, revocation, rights and leases at length."
    );
    let _ = writeln!(text, "{}", roff(&flags));
    for group in reference::groups().filter(|g| g.role == Role::Both || g.role == role) {
        let _ = writeln!(text, ".SH \"{}\"", roff(&plain(group.title)).to_uppercase());
        for key in group.keys {
            let reload = match key.reload {
                Reload::AtOnce => "taken by ferry6 reload at once",
                Reload::NewTunnels => "taken by ferry6 reload for new tunnels",
                Reload::Restart => "a change needs a restart",
            };
            let _ = write!(
                text,
                ".TP\n\\fB{}\\fR\n{}.\n.br\nValue: {}. Default: {}; {reload}.\n.br\nExample: {}\n",
                roff(key.key),
                roff(&plain(key.meaning)),
                roff(&plain(key.kind)),
                roff(&plain(key.default)),
                roff(&key.line())
            );
        }
    }
    let _ = write!(text, ".SH EXAMPLES\n.nf\n{}\n.fi\n", roff(example.trim_end()));
    let command = format!("ferry6-{name}(1)");
    see_also(&mut text, &[&command, "ferry6-reload(1)", "ferry6-config(1)"]);
    text
}

/// Text that roff prints as it is.
fn roff(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for (n, line) in text.lines().enumerate() {
        if n > 0 {
            out.push('\n');
        }
        // These begin a request.
        if line.starts_with(['.', '\'']) {
            out.push_str("\\&");
        }
        for c in line.chars() {
            match c {
                '\\' => out.push_str("\\e"),
                '-' => out.push_str("\\-"),
                '\'' => out.push_str("\\(aq"),
                '"' => out.push_str("\\(dq"),
                c => out.push(c),
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command as Process;

    fn walk(command: &Command, path: &str, see: &mut impl FnMut(&Command, &str)) {
        see(command, path);
        for inner in command.get_subcommands() {
            walk(inner, &format!("{path} {}", inner.get_name()), see);
        }
    }

    #[test]
    fn every_command_has_an_example() {
        let mut without = Vec::new();
        walk(&Cli::command(), "ferry6", &mut |command, path| {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            // One that can be typed: it names the command. The helpers are not for people.
            let has = help.contains("Examples:\n") && help.contains(path);
            if !has && !command.is_hide_set() {
                without.push(path.to_owned());
            }
        });
        assert_eq!(without, [""; 0]);
    }

    #[test]
    fn every_visible_command_has_a_page_and_man_takes_it() {
        let pages = pages().unwrap();
        walk(&Cli::command(), "ferry6", &mut |command, path| {
            let name = format!("{}.1", path.replace(' ', "-"));
            assert_eq!(pages.iter().any(|(n, _)| *n == name), !command.is_hide_set(), "{name}");
        });
        let page = |name: &str| &pages.iter().find(|(n, _)| n == name).unwrap().1;
        for part in [".SH NAME", ".SH EXAMPLES", "EXIT STATUS", "no daemon is running"] {
            assert!(page("ferry6-broker-init.1").contains(part), "{part}");
        }
        for key in reference::keys(Role::Broker) {
            assert!(page("ferry6-broker.toml.5").contains(&format!("\\fB{}\\fR\n", key.key)), "{}", key.key);
        }
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in &pages {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            let output = Process::new("man").args(["--warnings=w", "-E", "UTF-8", "-l"]).arg(&path).output();
            let Ok(output) = output else {
                eprintln!("SKIPPED: there is no man");
                return;
            };
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && said.trim().is_empty(), "{name}: {said}");
            assert!(String::from_utf8_lossy(&output.stdout).contains("NAME"), "{name}");
        }
    }

    #[test]
    fn completions_complete() {
        let dir = tempfile::tempdir().unwrap();
        for (shell, check) in [(Shell::Bash, "bash"), (Shell::Zsh, "zsh"), (Shell::Fish, "fish")] {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "ferry6", &mut text);
            let text = String::from_utf8(text).unwrap();
            for word in ["broker", "invite", "--config", "reload"] {
                assert!(text.contains(word.trim_start_matches("--")), "{shell}: {word}");
            }
            let path = dir.path().join(check);
            std::fs::write(&path, text).unwrap();
            match Process::new(check).arg("-n").arg(&path).output() {
                Ok(output) => assert!(output.status.success(), "{shell}: {output:?}"),
                Err(_) => eprintln!("SKIPPED: there is no {check}"),
            }
        }
        // As bash asks when a user presses the tabulator.
        let script = "source \"$1\"; COMP_WORDS=(ferry6 broker in); COMP_CWORD=2; \
                      _ferry6 ferry6 in broker; echo \"${COMPREPLY[@]}\"";
        let output =
            Process::new("bash").args(["-c", script, "x"]).arg(dir.path().join("bash")).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(said.trim(), "init invite", "{output:?}");
    }

    #[test]
    fn roff_prints_what_was_written() {
        assert_eq!(roff(".a\\b 'c' --d"), "\\&.a\\eb \\(aqc\\(aq \\-\\-d");
    }
}
