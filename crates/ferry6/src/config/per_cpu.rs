//! `child.per_cpu_sas`: several Child SAs for one tunnel (RFC 9611).

use super::reader::Section;
use super::tunnel::Tunnel;
use ferry6_ike::config::PerResource;
use ferry6_tun_router::DeviceKind;

/// The most that a connection asks for.
const MOST: usize = 16;

/// What the key says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PerCpu {
    Auto,
    Off,
    Exactly(usize),
}

fn parse(text: &str) -> Result<PerCpu, String> {
    match text {
        "auto" => Ok(PerCpu::Auto),
        "off" => Ok(PerCpu::Off),
        number => {
            number.parse().ok().filter(|n| (2..=MOST).contains(n)).map(PerCpu::Exactly).ok_or_else(|| {
                format!("expected \"auto\", \"off\" or a number from 2 to {MOST}, found {text:?}")
            })
        }
    }
}

pub(super) fn read(child: &Section<'_>, tunnel: &Tunnel) -> PerResource {
    let found = child.scalar("per_cpu_sas", "\"auto\", \"off\" or a number", parse);
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    let workers = if tunnel.workers == 0 { cores() } else { tunnel.workers };
    // All packets of a device with one queue come to one worker.
    let usable = if tunnel.kind == DeviceKind::TunTap { 1 } else { workers };
    per_resource(found.map_or(PerCpu::Auto, |f| f.value), workers, usable)
}

/// Each worker has two threads, one for each direction, so a tunnel fills two cores without this: `auto` asks for one Child SA
/// to every two workers. RFC 9611 section 6 wants a responder to allow twice the number of its cores.
fn per_resource(wanted: PerCpu, workers: usize, usable: usize) -> PerResource {
    let limit = |wanted: usize| 2 * wanted.max(workers).min(MOST);
    match wanted {
        PerCpu::Off => PerResource::default(),
        PerCpu::Auto => {
            let wanted = (usable / 2).clamp(1, MOST);
            PerResource { wanted, limit: limit(wanted) }
        }
        PerCpu::Exactly(wanted) => PerResource { wanted, limit: limit(wanted) },
    }
}

/// As `--check` shows it.
pub(super) fn show(per_resource: PerResource) -> String {
    match per_resource {
        PerResource { limit: 0 | 1, .. } => "one SA".to_owned(),
        PerResource { wanted: 0 | 1, limit } => format!("one SA, a peer may have {limit}"),
        PerResource { wanted, limit } => format!("{wanted} SAs, a peer may have {limit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_numbers() {
        assert_eq!(parse("auto"), Ok(PerCpu::Auto));
        assert_eq!(parse("off"), Ok(PerCpu::Off));
        assert_eq!(parse("16"), Ok(PerCpu::Exactly(16)));
        for wrong in ["0", "1", "17", "-2", "on", "", "2.5"] {
            let error = parse(wrong).unwrap_err();
            assert_eq!(
                error,
                format!("expected \"auto\", \"off\" or a number from 2 to 16, found {wrong:?}")
            );
        }
    }

    #[test]
    fn what_a_machine_asks_for_and_allows() {
        let of = |wanted, workers, usable| {
            let PerResource { wanted, limit } = per_resource(wanted, workers, usable);
            (wanted, limit)
        };
        assert_eq!(of(PerCpu::Off, 8, 8), (0, 0));
        // Two cores are full with one; what the peer asks for is granted.
        assert_eq!(of(PerCpu::Auto, 1, 1), (1, 2));
        assert_eq!(of(PerCpu::Auto, 2, 2), (1, 4));
        assert_eq!(of(PerCpu::Auto, 4, 4), (2, 8));
        assert_eq!(of(PerCpu::Auto, 8, 1), (1, 16));
        assert_eq!(of(PerCpu::Auto, 256, 256), (16, 32));
        assert_eq!(of(PerCpu::Exactly(4), 2, 2), (4, 8));
        assert_eq!(of(PerCpu::Exactly(2), 8, 8), (2, 16));
        assert_eq!(show(per_resource(PerCpu::Off, 8, 8)), "one SA");
        assert_eq!(show(per_resource(PerCpu::Auto, 2, 2)), "one SA, a peer may have 4");
        assert_eq!(show(per_resource(PerCpu::Auto, 8, 8)), "4 SAs, a peer may have 16");
    }
}
