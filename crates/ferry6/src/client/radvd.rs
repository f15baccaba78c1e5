//! `ferry6 client radvd`: the configuration of radvd, which sends the router advertisements in router mode.

use crate::admin;
use crate::config::{self, Client};
use crate::control::{Request, Response, Status, connect};
use std::fmt::Write as _;
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  ferry6 client radvd alice | sudo tee /etc/radvd.conf
  ferry6 client radvd --config client.toml          of a tunnel that was not joined by an invitation";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The tunnel; may be left out where there is only one.
    name: Option<String>,
    /// The client's configuration, where it is no tunnel by name.
    #[arg(long, value_name = "FILE", conflicts_with = "name")]
    config: Option<PathBuf>,
    /// Directory of the tunnels.
    #[arg(long, value_name = "DIR", default_value = admin::DIRECTORY)]
    dir: PathBuf,
}

/// Prints it.
///
/// # Errors
/// No such tunnel, or one without `tunnel.lan`.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let path = match &args.config {
        Some(path) => path.clone(),
        None => admin::tunnels::configuration(&args.dir, args.name.as_deref())?,
    };
    let client = config::client(&path)?;
    if client.lan.is_empty() {
        let text = "tunnel.lan names no interface to send router advertisements on";
        return Err(crate::cli::UsageError(format!("{}: {text}", path.display())).into());
    }
    // What a running client knows goes in; without one the file is right, too.
    let status = match connect::ask(&client.control, &Request::Status) {
        Ok(Response::Status(status)) => Some(*status),
        _ => None,
    };
    print!("{}", text(&client, status.as_ref(), link_mtu));
    Ok(ExitCode::SUCCESS)
}

/// What an interface takes in one piece, where it is there.
fn link_mtu(name: &str) -> Option<u32> {
    std::fs::read_to_string(format!("/sys/class/net/{name}/mtu")).ok()?.trim().parse().ok()
}

fn text(client: &Client, status: Option<&Status>, link_mtu: impl Fn(&str) -> Option<u32>) -> String {
    let mtu = client.tunnel.sizes.mtu.or_else(|| {
        let largest = status?.router.ike_sas.iter().flat_map(|sa| &sa.children).map(|child| child.mtu);
        largest.min()
    });
    let dns: &[Ipv6Addr] = status.and_then(|s| s.client.as_ref()).map_or(&[], |c| &c.dns);
    let mut out = "# For radvd, made by `ferry6 client radvd`. The prefix is that of the interface: this file stays right with another one.\n"
        .to_owned();
    for name in &client.lan {
        // Writing to a String cannot fail.
        let _ = write!(
            out,
            "\ninterface {name}\n{{\n    AdvSendAdvert on;\n    IgnoreIfMissing on;\n    MaxRtrAdvInterval 60;\n    \
             # Lifetimes of RFC 9096 section 3.4: short, for the case that the broker gives another prefix.\n    \
             AdvDefaultLifetime 2700;\n"
        );
        // radvd sends nothing at all where this is more than the link takes.
        if let Some(mtu) = mtu.filter(|mtu| link_mtu(name).is_none_or(|link| u32::from(*mtu) < link)) {
            let _ = write!(out, "    # What fits into the tunnel.\n    AdvLinkMTU {mtu};\n");
        }
        let _ = write!(
            out,
            "    prefix ::/64\n    {{\n        AdvOnLink on;\n        AdvAutonomous on;\n        \
             AdvValidLifetime 5400;\n        AdvPreferredLifetime 2700;\n    }};\n"
        );
        if !dns.is_empty() {
            let list: Vec<String> = dns.iter().map(ToString::to_string).collect();
            let _ = write!(out, "    RDNSS {}\n    {{\n    }};\n", list.join(" "));
        }
        out.push_str("};\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::reader::Document;
    use crate::config::tests::files;

    fn client(tunnel: &str) -> Client {
        let dir = files();
        let text = format!(
            "[broker]\naddress = \"5.6.7.8\"\n[local]\ncert = \"client.crt\"\nkey = \"client.key\"\n[remote]\nca = \"ca.crt\"\n\
             [tunnel]\n{tunnel}\n"
        );
        let document = Document::new(dir.path().join("client.toml"), text);
        config::client_document(&document).unwrap_or_else(|e| panic!("{e}"))
    }

    #[test]
    fn one_part_for_each_interface() {
        let text = text(&client("lan = [\"eth1\", \"eth2\"]\nmtu = 1380"), None, |_| None);
        assert_eq!(text.matches("interface eth").count(), 2, "{text}");
        assert_eq!(text.matches("AdvLinkMTU 1380;").count(), 2, "{text}");
        assert_eq!(text.matches("prefix ::/64\n").count(), 2, "{text}");
        assert_eq!(text.matches('{').count(), text.matches("};").count(), "{text}");
        assert!(!text.contains("RDNSS"), "{text}");
        // RFC 9096 section 3.4.
        for line in ["AdvDefaultLifetime 2700;", "AdvValidLifetime 5400;", "AdvPreferredLifetime 2700;"] {
            assert_eq!(text.matches(line).count(), 2, "{text}");
        }
    }

    #[test]
    fn no_mtu_that_radvd_refuses() {
        let mtu = |name: &str| if name == "eth1" { Some(1500) } else { Some(9000) };
        let text = text(&client("lan = [\"eth1\", \"eth2\"]\nmtu = 8900"), None, mtu);
        let (first, second) = text.split_once("interface eth2").unwrap();
        assert!(!first.contains("AdvLinkMTU"), "{text}");
        assert!(second.contains("AdvLinkMTU 8900;"), "{text}");
    }
}
