//! `ferry6 broker init`: a broker from nothing but its address and its prefix.

use super::site::{Offer, Site};
use super::{make_directory, usage};
use crate::config;
use crate::config::values::{self, Host};
use crate::pki::store::write_public;
use crate::pki::{Authority, Name, Profile, Validity};
use anyhow::Context as _;
use ferry6_ike::Prefix6;
use nix::ifaddrs::getifaddrs;
use std::fmt::Write as _;
use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  ferry6 broker init                                asks what it needs
  ferry6 broker init --address tunnel.my.domain --prefix 2a00::100/120
  ferry6 broker init --address 5.6.7.8 --prefix 2a00::100/120 --interface eth0 --proxy-ndp
  ferry6 broker init --address 5.6.7.8 --prefix 2a00::100/120 --prefixes 2a00:0:0:1000::/52
  ferry6 broker init --dir ./site --address 5.6.7.8 --prefix 2a00::100/120 --no-unit";

/// Days of validity of the CA and of the broker's certificate.
const DAYS: u32 = 3650;
/// Days of validity of the CRL; each `revoke` makes a new one, and an old one is not a fault (`remote.revocation = "ifuri"`).
pub(super) const CRL_DAYS: u32 = 3650;
const UNIT: &str = "/etc/systemd/system/ferry6-broker.service";
/// Where the package puts it.
const PACKAGED_UNIT: &str = "/usr/lib/systemd/system/ferry6-broker.service";
const PACKAGED: &str = include_str!("../../../../packaging/systemd/ferry6-broker.service");

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The broker's name or public IPv4 address, as clients reach it.
    #[arg(long, value_name = "HOST")]
    address: Option<String>,
    /// The IPv6 addresses to lease: a prefix that is routed to this machine, or a part of one.
    #[arg(long, value_name = "PREFIX")]
    prefix: Option<String>,
    /// Whole prefixes for users (`invite --prefix auto`) are taken from this one, which is routed to this machine, too.
    #[arg(long, value_name = "PREFIX")]
    prefixes: Option<Prefix6>,
    /// The length of the prefix that each of them gets.
    #[arg(long, value_name = "BITS", default_value_t = 64, requires = "prefixes", value_parser = clap::value_parser!(u8).range(16..=128))]
    prefix_length: u8,
    /// The interface towards the IPv6 internet; the one of the default IPv6 route where it is left out.
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,
    /// Answer neighbour solicitations for the clients on that interface: where the prefix is on-link, not routed here.
    #[arg(long)]
    proxy_ndp: bool,
    /// Domain of the users' identities: alice becomes alice@DOMAIN. The broker's name where it is left out.
    #[arg(long, value_name = "DOMAIN")]
    domain: Option<String>,
    /// UDP port of IKE as clients reach it.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// UDP port of IKE and ESP as clients reach it.
    #[arg(long, default_value_t = 4500, value_parser = clap::value_parser!(u16).range(1..))]
    nat_port: u16,
    /// The broker's directory.
    #[arg(long, value_name = "DIR", default_value = super::DIRECTORY)]
    dir: PathBuf,
    /// Do not write a systemd unit.
    #[arg(long)]
    no_unit: bool,
}

/// What was found out about the machine and asked of its operator.
struct Plan {
    offer: Offer,
    name: Name,
    prefix: String,
    /// Where whole prefixes come from, and their length.
    prefixes: Option<(Prefix6, u8)>,
    interface: Option<String>,
    proxy_ndp: bool,
}

/// Makes the broker's directory. On an error nothing stays.
///
/// # Errors
/// Wrong arguments, a broker that is there already, or what the system refused.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let site = Site::new(&args.dir);
    if let Some(there) = files(&site).into_iter().find(|f| f.symlink_metadata().is_ok()) {
        return Err(usage(format!(
            "there is a broker in {} already ({} exists); nothing was changed. Another one: --dir",
            args.dir.display(),
            there.display()
        )));
    }
    let plan = plan(args)?;
    let made = !args.dir.exists();
    make_directory(&args.dir, 0o755)?;
    if let Err(error) = make(&site, &plan) {
        for file in files(&site) {
            let _ = std::fs::remove_file(file);
        }
        let _ = std::fs::remove_dir(site.users_directory());
        if made {
            let _ = std::fs::remove_dir(&args.dir);
        }
        return Err(error);
    }
    let unit = unit(args, &site)?;
    print!("{}", report(&site, &plan, unit));
    Ok(ExitCode::SUCCESS)
}

fn files(site: &Site) -> Vec<PathBuf> {
    let (ca, own) = (site.ca(), site.credential());
    vec![
        site.configuration(),
        site.offer_file(),
        ca.certificate(),
        ca.key(),
        ca.index(),
        ca.crl(),
        own.certificate(),
        own.key(),
    ]
}

fn plan(args: &Args) -> anyhow::Result<Plan> {
    let address = match &args.address {
        Some(text) => text.clone(),
        None => ask("public name or IPv4 address of this broker", "--address")?,
    };
    let host = values::host(&address).map_err(|e| usage(format!("--address: {e}")))?;
    let name = match &host {
        Host::Name(name) => Name::Dns(name.trim_end_matches('.').to_owned()),
        Host::Address(address) => Name::Ip((*address).into()),
    };
    let prefix = match &args.prefix {
        Some(text) => text.clone(),
        None => ask("IPv6 prefix for the clients (like 2a00::100/120)", "--prefix")?,
    };
    let range = values::range6(&prefix).map_err(|e| usage(format!("--prefix: {e}")))?;
    if range.first == range.last {
        return Err(usage(format!("--prefix: {prefix} is a single address: no room for a client")));
    }
    if let Some(from) = args.prefixes {
        let length = args.prefix_length;
        let fault = if from.len > length {
            Some(format!("{from} has no room for a /{length} (--prefix-length)"))
        } else if range.overlaps(from.into()) {
            Some(format!("{from} overlaps with the addresses of --prefix, {prefix}"))
        } else {
            config::prefix_fault(from)
        };
        if let Some(fault) = fault {
            return Err(usage(format!("--prefixes: {fault}")));
        }
    }
    let interface = match &args.interface {
        Some(name) => {
            if nix::net::if_::if_nametoindex(name.as_str()).is_err() {
                return Err(usage(format!(
                    "--interface: there is no interface {name} on this machine (ip link)"
                )));
            }
            Some(name.clone())
        }
        None => default_interface(),
    };
    if args.proxy_ndp && interface.is_none() {
        return Err(usage("--proxy-ndp: on which --interface? There is no default IPv6 route to tell it"));
    }
    let domain = args.domain.clone().unwrap_or_else(|| match &name {
        Name::Dns(name) => name.clone(),
        _ => "ferry6".to_owned(),
    });
    format!("email:user@{domain}")
        .parse::<Name>()
        .map_err(|_| usage(format!("--domain: {domain:?} is no domain")))?;
    let offer =
        Offer { address, identity: name.to_string(), domain, port: args.port, nat_port: args.nat_port };
    let prefixes = args.prefixes.map(|from| (from, args.prefix_length));
    Ok(Plan { offer, name, prefix, prefixes, interface, proxy_ndp: args.proxy_ndp })
}

/// Asks on a terminal; elsewhere says which flag answers the question.
fn ask(question: &str, flag: &str) -> anyhow::Result<String> {
    let missing = || usage(format!("{flag} is missing: the {question}"));
    if !std::io::stdin().is_terminal() {
        return Err(missing());
    }
    loop {
        eprint!("{question}: ");
        std::io::stderr().flush()?;
        let mut line = String::new();
        if std::io::stdin().lock().read_line(&mut line)? == 0 {
            return Err(missing());
        }
        if !line.trim().is_empty() {
            return Ok(line.trim().to_owned());
        }
    }
}

/// The interface of the default IPv6 route, else of the default IPv4 route.
fn default_interface() -> Option<String> {
    let v6 = std::fs::read_to_string("/proc/net/ipv6_route").ok().and_then(|text| {
        text.lines().find_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let default =
                fields.get(1) == Some(&"00") && fields.first().is_some_and(|f| f.bytes().all(|b| b == b'0'));
            fields.get(9).filter(|name| default && **name != "lo").map(|name| (*name).to_owned())
        })
    });
    v6.or_else(|| {
        let text = std::fs::read_to_string("/proc/net/route").ok()?;
        text.lines().skip(1).find_map(|line| {
            let mut fields = line.split_whitespace();
            let (name, destination) = (fields.next()?, fields.next()?);
            (destination == "00000000").then(|| name.to_owned())
        })
    })
}

/// This machine's addresses on an interface: the first global IPv6 address, and the first IPv4 address.
fn own_addresses(interface: Option<&str>) -> (Option<Ipv6Addr>, Option<Ipv4Addr>) {
    let (mut v6, mut v4) = (None, None);
    for entry in getifaddrs().into_iter().flatten() {
        if interface.is_some_and(|name| name != entry.interface_name) {
            continue;
        }
        let Some(address) = entry.address else { continue };
        if let Some(a) = address.as_sockaddr_in6().map(nix::sys::socket::SockaddrIn6::ip)
            && a.segments()[0] & 0xffc0 != 0xfe80
            && !a.is_loopback()
        {
            v6 = v6.or(Some(a));
        }
        if let Some(a) = address.as_sockaddr_in().map(nix::sys::socket::SockaddrIn::ip)
            && !a.is_loopback()
        {
            v4 = v4.or(Some(a));
        }
    }
    (v6, v4)
}

fn make(site: &Site, plan: &Plan) -> anyhow::Result<()> {
    let ca_name = format!("ferry6 CA of {}", plan.offer.address);
    let ca = Authority::root(&Profile { validity: Validity::days(DAYS)?, ..Profile::new(&ca_name)? })?;
    site.ca().save(&ca, false)?;
    let own = Profile {
        names: vec![plan.name.clone()],
        validity: Validity::days(DAYS)?,
        ..Profile::new(&plan.name.value())?
    };
    let issued = ca.issue(&own)?;
    site.ca().record_issued(&issued.certificate)?;
    site.credential().save_credential(&issued, false)?;
    write_public(&site.offer_file(), toml::to_string(&plan.offer).context("invite.toml")?.as_bytes())?;
    write_public(&site.configuration(), configuration(site, plan).as_bytes())?;
    make_directory(&site.users_directory(), 0o755)?;
    // What was written is what the broker will read: with its own eyes.
    config::broker(&site.configuration()).map_err(|e| anyhow::anyhow!("the new configuration: {e}"))?;
    Ok(())
}

fn configuration(site: &Site, plan: &Plan) -> String {
    // A broker in another directory keeps to it.
    let places = if site.directory() == Path::new(super::DIRECTORY) {
        ""
    } else {
        "control = \"broker.sock\"\nstate_dir = \"state\"\n\n"
    };
    let mut text = format!(
        "# Made by `ferry6 broker init`. Every key: docs/configuration.md; check with: ferry6 broker --check\n\n{places}\
         [local]\nid = {:?}\ncert = \"broker.crt\"\nkey = \"broker.key\"\n\n\
         [remote]\nid = {:?}\nca = \"ca.crt\"\ncrl = \"ca.crl\"             # `ferry6 broker revoke` adds to it\n\n\
         [pool]\nrange = {:?}\n",
        plan.offer.identity,
        format!("*@{}", plan.offer.domain),
        plan.prefix
    );
    if let Some((from, length)) = plan.prefixes {
        let _ = write!(text, "prefixes = \"{from}\"\nprefix_length = {length}\n");
    }
    if plan.proxy_ndp {
        let _ = write!(text, "\n[tunnel]\nproxy_ndp = {:?}\n", plan.interface.as_deref().unwrap_or_default());
    }
    text
}

/// What became of the systemd unit.
enum Unit {
    Written,
    NotAsked,
    NoSystemd,
}

fn unit(args: &Args, site: &Site) -> anyhow::Result<Unit> {
    if args.no_unit {
        return Ok(Unit::NotAsked);
    }
    if !Path::new("/run/systemd/system").is_dir() {
        return Ok(Unit::NoSystemd);
    }
    let program = std::env::current_exe().context("where is this program?")?;
    let directory = std::path::absolute(site.directory())?;
    // The package has brought it.
    let standard = program == Path::new("/usr/bin/ferry6") && directory == Path::new(super::DIRECTORY);
    if standard && Path::new(PACKAGED_UNIT).exists() {
        return Ok(Unit::Written);
    }
    let text = unit_text(&program, &directory);
    write_public(Path::new(UNIT), text.as_bytes())?;
    Ok(Unit::Written)
}

/// The packaged unit, with this program and this directory. A broker in another directory keeps its state there, in reach.
fn unit_text(program: &Path, directory: &Path) -> String {
    let directory = directory.display().to_string();
    let text = PACKAGED
        .replace("/usr/bin/ferry6 ", &format!("{} ", program.display()))
        .replace("/etc/ferry6/broker.toml", &format!("{directory}/broker.toml"))
        .replace("--dir /etc/ferry6", &format!("--dir {directory}"));
    if directory == super::DIRECTORY {
        return text;
    }
    text.replace("StateDirectory=ferry6\nStateDirectoryMode=0700\n", &format!("ReadWritePaths={directory}\n"))
        // It may be anywhere.
        .replace("ProtectHome=yes\n", "")
        .replace("PrivateTmp=yes\n", "")
}

fn report(site: &Site, plan: &Plan, unit: Unit) -> String {
    let (v6, v4) = own_addresses(plan.interface.as_deref());
    let offer = &plan.offer;
    let mut out = String::new();
    let _ = writeln!(out, "A broker is ready in {}.", site.directory().display());
    let _ = writeln!(out, "  reached at  {}, UDP {} and {}", offer.address, offer.port, offer.nat_port);
    let _ = writeln!(out, "  identity    {}", offer.identity);
    let _ = writeln!(out, "  clients     *@{} with addresses of {}", offer.domain, plan.prefix);
    let _ = writeln!(
        out,
        "  CA          {} (its key makes users: keep a copy in a safe place)",
        site.ca().key().display()
    );
    let _ = writeln!(out, "\nLeft to do at the firewall:");
    let behind_nat = match (&plan.name, v4) {
        (Name::Ip(public), Some(own)) => *public != std::net::IpAddr::V4(own),
        _ => false,
    };
    let to = v4.map_or_else(|| "this machine".to_owned(), |a| a.to_string());
    let verb = if behind_nat { "forward" } else { "allow" };
    let _ = writeln!(out, "  1. {verb} UDP {} and {} to {to}", offer.port, offer.nat_port);
    let _ = writeln!(
        out,
        "       nft add rule inet filter input udp dport {{ 500, 4500 }} accept    (on this machine)"
    );
    let device = plan.interface.as_deref().unwrap_or("the interface towards the internet");
    if plan.proxy_ndp {
        let _ = writeln!(out, "  2. nothing to route: neighbour solicitations are answered on {device}");
    } else {
        let via = v6.map_or_else(|| format!("this machine's IPv6 address on {device}"), |a| a.to_string());
        let _ = writeln!(out, "  2. route {} to this machine", plan.prefix);
        let _ =
            writeln!(out, "       ip -6 route add {} via {via}    (on the router before it)", plan.prefix);
    }
    if let Some((from, _)) = plan.prefixes {
        let via = v6.map_or_else(|| "this machine".to_owned(), |a| a.to_string());
        let _ = writeln!(out, "  3. route {from} to this machine\n       ip -6 route add {from} via {via}");
    }
    let _ = writeln!(out, "\nThen:");
    let command = match unit {
        Unit::Written => "systemctl enable --now ferry6-broker".to_owned(),
        Unit::NotAsked | Unit::NoSystemd => {
            format!("ferry6 broker --config {}", site.configuration().display())
        }
    };
    let _ = writeln!(out, "  {command}");
    let dir = if site.directory() == Path::new(super::DIRECTORY) {
        String::new()
    } else {
        format!(" --dir {}", site.directory().display())
    };
    let _ = writeln!(out, "  ferry6 broker invite alice{dir}");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_of_another_place() {
        assert_eq!(unit_text(Path::new("/usr/bin/ferry6"), Path::new("/etc/ferry6")), PACKAGED);
        let text = unit_text(Path::new("/opt/ferry6"), Path::new("/srv/b"));
        for line in [
            "ExecStart=/opt/ferry6 broker --config /srv/b/broker.toml",
            "ExecReload=/opt/ferry6 reload broker --dir /srv/b",
            "ConditionPathExists=/srv/b/broker.toml",
            "ReadWritePaths=/srv/b",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}: {text}");
        }
        assert!(!text.contains("/usr/bin") && !text.contains("/etc/ferry6"), "{text}");
    }
}
