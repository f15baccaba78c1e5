//! Instructions per packet, counted by valgrind: a check that a noisy machine does not disturb.
//!
//! `cargo bench --bench instructions` compares with `instructions.txt` and fails where a count is more than 3 % higher;
//! `-- --update` writes the file anew. What is lower by as much is told, so that the file can follow.
//!
//! What is counted is our own code around the cipher: the keys here encrypt nothing, because which code a real cipher runs
//! depends on the processor. The same goes for libc's `memcpy`, and for what another compiler makes of it all: the file's
//! first line says what it was counted with, and where that is something else, counts are told and not judged.

use ferry6_benches::databases::Clients;
use ferry6_benches::workers::{Rig, Traffic};
use ferry6_crypto::{Cipher, CipherSuite, CryptoError, OpeningKey, SealingKey};
use ferry6_esp::ipcomp::{Compressor, Decompressor, Deflater, Inflater};
use ferry6_esp::next_header::IPV6;
use ferry6_esp::replay::ReplayWindow;
use std::fmt::Write as _;
use std::hint::black_box;
use std::path::Path;
use std::process::{Command, ExitCode};

/// What may come on top, in percent.
const TOLERANCE: f64 = 3.0;
/// Rounds that are counted, after as many that are not.
const ROUNDS: usize = 16;
/// The environment variable that tells this program that it runs under valgrind.
const CHILD: &str = "FERRY6_COUNT_INSTRUCTIONS";

/// A cipher that does nothing.
struct Null(CipherSuite);

impl SealingKey for Null {
    fn suite(&self) -> CipherSuite {
        self.0
    }
    fn write_iv(&mut self, counter: u64, iv: &mut [u8]) {
        iv.copy_from_slice(&counter.to_be_bytes());
    }
    fn seal(
        &mut self,
        _: &[u8],
        _: &[u8],
        text: &mut [u8],
        _: &[u8],
        icv: &mut [u8],
    ) -> Result<(), CryptoError> {
        black_box(text);
        icv.fill(7);
        Ok(())
    }
}

impl OpeningKey for Null {
    fn suite(&self) -> CipherSuite {
        self.0
    }
    fn open(&mut self, _: &[u8], _: &[u8], text: &mut [u8], _: &[u8], icv: &[u8]) -> Result<(), CryptoError> {
        black_box(text);
        if icv == [7; 16] { Ok(()) } else { Err(CryptoError::Integrity) }
    }
}

/// Counting begins when this function is entered, and ends when it is left.
#[inline(never)]
fn measured_by_callgrind(work: &mut dyn FnMut()) {
    black_box(work)();
}

struct Case {
    name: String,
    /// Packets, or calls, of one round.
    units: usize,
    /// One round, prepared and counted.
    round: Box<dyn FnMut()>,
}

fn case(name: &str, units: usize, round: impl FnMut() + 'static) -> Case {
    Case { name: name.to_owned(), units, round: Box::new(round) }
}

fn cases() -> Vec<Case> {
    let suite = CipherSuite::new(Cipher::Aes128Gcm16, None).expect("there is this suite");
    let rig = move |traffic| Rig::new(Box::new(Null(suite)), Box::new(Null(suite)), traffic);
    let mut cases = Vec::new();
    for traffic in Traffic::ALL {
        let mut out = rig(traffic);
        cases.push(case(&format!("tun_to_udp {traffic}"), traffic.packets(), move || {
            measured_by_callgrind(&mut || out.tun_to_udp());
        }));
        let (mut sender, mut inward) = (rig(traffic), rig(traffic));
        cases.push(case(&format!("udp_to_tun {traffic}"), traffic.packets(), move || {
            let mut datagrams = sender.sealed();
            measured_by_callgrind(&mut || inward.udp_to_tun(&mut datagrams));
            assert!(inward.written() > 0, "nothing came out");
        }));
    }
    let (mut window, mut low) = (ReplayWindow::new(1024, true), 0_u32);
    cases.push(case("replay window", 64, move || {
        measured_by_callgrind(&mut || {
            for _ in 0..64 {
                low += 1;
                let candidate = window.check(black_box(low)).expect("it is fresh");
                assert!(window.accept(candidate));
            }
        });
    }));
    let (spd, order) = (Clients(1000).spd(), Clients(1000).order(1));
    cases.push(case("SPD lookup of 1000", 64, move || {
        measured_by_callgrind(&mut || {
            for client in &order[..64] {
                black_box(spd.lookup(&Clients::flow(*client)));
            }
        });
    }));
    let ((mut sad, spis), order) = (Clients(1000).sad(), Clients(1000).order(1));
    cases.push(case("SAD lookup of 1000", 64, move || {
        measured_by_callgrind(&mut || {
            for client in &order[..64] {
                black_box(sad.get_mut(spis[*client as usize]).map(std::ptr::from_mut));
            }
        });
    }));
    // Compression is in no hurry with a processor's features.
    let packet = ferry6_benches::text(1400);
    let (mut deflater, mut compressor) = (Deflater::with_level(1), Compressor::new(1000));
    let (mut inflater, mut decompressor) = (Inflater::new(), Decompressor::new(1000));
    let (mut small, mut back) = (vec![0; 1400], vec![0; 1400]);
    cases.push(case("IPComp there and back", 1, move || {
        measured_by_callgrind(&mut || {
            let len =
                compressor.compress(&mut deflater, &packet, IPV6, &mut small).expect("text gets smaller");
            decompressor.decompress(&mut inflater, &small[..len], &mut back).expect("it is whole");
        });
    }));
    cases
}

/// Under valgrind: each round of each case is one dump. Then a line that tells the processor that valgrind plays.
fn count() {
    for mut case in cases() {
        for _ in 0..2 * ROUNDS {
            (case.round)();
        }
    }
}

/// What the counts depend on beside our code.
fn circumstances() -> Result<String, String> {
    let first_line = |program: &str| -> Result<String, String> {
        let output =
            Command::new(program).arg("--version").output().map_err(|e| format!("{program}: {e}"))?;
        Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned())
    };
    let rustc = first_line("rustc")?;
    let libc = first_line("ldd").unwrap_or_default();
    let libc = libc.rsplit(' ').next().unwrap_or_default().to_owned();
    #[cfg(target_arch = "x86_64")]
    let memcpy = [is_x86_feature_detected!("avx2"), is_x86_feature_detected!("ermsb")];
    #[cfg(not(target_arch = "x86_64"))]
    let memcpy = "";
    Ok(format!("{rustc}, {}, libc {libc}, AVX2 and ERMSB {memcpy:?}", std::env::consts::ARCH))
}

/// Runs this program under valgrind; instructions per unit, in the order of the cases.
fn run_valgrind(dir: &Path) -> Result<Vec<f64>, String> {
    let program = std::env::current_exe().map_err(|e| e.to_string())?;
    let output = Command::new("valgrind")
        .args([
            "--tool=callgrind",
            "--toggle-collect=instructions::measured_by_callgrind",
            "--dump-after=instructions::measured_by_callgrind",
        ])
        .arg(format!("--callgrind-out-file={}", dir.join("out").display()))
        .arg(&program)
        .env(CHILD, "1")
        .output()
        .map_err(|e| format!("cannot start valgrind (Debian: valgrind): {e}"))?;
    if !output.status.success() {
        return Err(format!("valgrind: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let mut counts = Vec::new();
    for number in 1.. {
        let Ok(text) = std::fs::read_to_string(dir.join(format!("out.{number}"))) else { break };
        let total =
            text.lines().find_map(|line| line.strip_prefix("totals: ").or(line.strip_prefix("summary: ")));
        counts.push(total.and_then(|total| total.trim().parse::<f64>().ok()).ok_or("a dump has no total")?);
    }
    let cases = cases();
    if counts.len() < cases.len() * 2 * ROUNDS {
        return Err(format!("{} dumps of {}", counts.len(), cases.len() * 2 * ROUNDS));
    }
    let counted = cases.iter().zip(counts.chunks(2 * ROUNDS));
    Ok(counted
        .map(|(case, rounds)| rounds[ROUNDS..].iter().sum::<f64>() / (ROUNDS * case.units) as f64)
        .collect())
}

fn check(update: bool) -> Result<bool, String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.txt");
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    let here = circumstances()?;
    let counts = run_valgrind(dir.path())?;
    let mut text = format!("{here}\n");
    for (case, count) in cases().iter().zip(&counts) {
        let _ = writeln!(text, "{:<24} {count:>9.1}", case.name);
    }
    if update {
        std::fs::write(&file, &text).map_err(|e| format!("{}: {e}", file.display()))?;
        println!("{text}written to {}", file.display());
        return Ok(true);
    }
    let known = std::fs::read_to_string(&file).map_err(|e| format!("{}: {e}", file.display()))?;
    let mut lines = known.lines();
    let there = lines.next().unwrap_or_default();
    let judged = there == here;
    if !judged {
        println!("!!! NOT JUDGED: counted with\n    {here}\nand the file with\n    {there}");
    }
    let known: Vec<(&str, f64)> = lines
        .filter_map(|line| line.trim_end().rsplit_once(' '))
        .filter_map(|(name, count)| Some((name.trim(), count.parse().ok()?)))
        .collect();
    let mut well = true;
    println!("{:<24} {:>9} {:>9} {:>8}", "instructions per packet", "now", "before", "");
    for (case, count) in cases().iter().zip(&counts) {
        let Some((_, before)) = known.iter().find(|(name, _)| *name == case.name) else {
            println!("{:<24} {count:>9.1} {:>9}  is not in the file: --update", case.name, "-");
            well = false;
            continue;
        };
        let change = (count / before - 1.0) * 100.0;
        let verdict = if change > TOLERANCE {
            well = well && !judged;
            "  MORE"
        } else if change < -TOLERANCE {
            "  less: --update"
        } else {
            ""
        };
        println!("{:<24} {count:>9.1} {before:>9.1} {change:>+7.1}%{verdict}", case.name);
    }
    Ok(well)
}

fn main() -> ExitCode {
    if std::env::var_os(CHILD).is_some() {
        count();
        return ExitCode::SUCCESS;
    }
    match check(std::env::args().any(|arg| arg == "--update")) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
