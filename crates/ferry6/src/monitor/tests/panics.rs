//! A real terminal, made by script(1) of util-linux, after a panic of this test in it.

use super::super::{on_terminal, show};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

/// Who shall panic, in the process inside of the terminal.
const WHO: &str = "FERRY6_TEST_WHO_PANICS";

fn inside(who: &str) {
    let result = on_terminal(|terminal| {
        let (_told, news) = channel();
        let (stopped, stop) = channel();
        terminal.draw(|frame| frame.render_widget("drawn-on-purpose", frame.area()))?;
        if who == "thread" {
            // One that asks a daemon, say; this one goes on.
            std::thread::spawn(|| {
                std::thread::sleep(Duration::from_millis(200));
                panic!("on purpose");
            });
            // So that this test fails, and does not hang.
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_secs(10));
                let _ = stopped.send(());
            });
            return show(terminal, &["/nonexistent".into()], &news, &stop);
        }
        panic!("on purpose");
    });
    println!("ENDED {:#}", result.expect_err("nothing else ends it"));
}

/// All that came out of the terminal, with how it was before and after in the words of `stty -a`.
fn terminal(who: &str) -> String {
    let test = "monitor::tests::panics::the_terminal_is_given_back";
    let exe = std::env::current_exe().unwrap();
    let line = format!(
        "stty rows 24 cols 80; stty -a; echo BEGIN; '{}' --exact {test} --nocapture; echo EXIT=$?; stty -a",
        exe.display()
    );
    let mut script = Command::new("script");
    script
        .args(["-qec", &line, "/dev/null"])
        .env(WHO, who)
        .env("TERM", "xterm-256color")
        .env("SHELL", "/bin/sh");
    // An stdin that does not end: the end of it is typed into the terminal.
    let mut script =
        script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("util-linux has script");
    let typed = script.stdin.take();
    let output = script.wait_with_output().unwrap();
    drop(typed);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_terminal_is_given_back() {
    if let Ok(who) = std::env::var(WHO) {
        return inside(&who);
    }
    for who in ["drawer", "thread"] {
        let all = terminal(who);
        let (before, rest) = all.split_once("BEGIN").expect(&all);
        let (during, after) = rest.rsplit_once("EXIT=").expect(&all);
        // It was taken, drawn on, given back; then it was told why.
        let mut rest = during;
        let steps = ["\x1b[?1049h", "drawn-on-purpose", "\x1b[?1049l", "panicked at", "on purpose"];
        for step in steps {
            rest = rest.split_once(step).unwrap_or_else(|| panic!("no {step:?} in its place: {all:?}")).1;
        }
        assert!(!rest.contains("\x1b[?1049h"), "taken again: {all:?}");
        assert!(rest.contains("\x1b[?25h"), "the cursor stays hidden: {all:?}");
        if who == "thread" {
            assert!(rest.contains("ENDED a part of the monitor failed"), "{all:?}");
            // Nothing was drawn on a terminal that is somebody else's again.
            assert!(!rest.contains("ferry6 daemon"), "{all:?}");
        }
        assert!(after.starts_with(if who == "thread" { "0" } else { "101" }), "{all:?}");
        let settings = |text: &str| {
            let words: Vec<String> =
                text.split_whitespace().map(|w| w.trim_end_matches(';').to_owned()).collect();
            let from = words.iter().position(|w| w == "speed").expect("stty says something");
            words[from..].to_vec()
        };
        assert!(
            settings(before).iter().any(|w| w == "icanon") && settings(before).iter().any(|w| w == "echo")
        );
        assert_eq!(settings(before), settings(after), "{all:?}");
    }
}
