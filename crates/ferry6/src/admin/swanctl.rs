//! An invitation for a strongSwan client: what belongs into its /etc/swanctl.

use super::invitation::{Invitation, certificates};
use super::make_directory;
use super::profiles::{bare, identity_of};
use crate::pki::store::{write_public, write_secret};
use ferry6_ike::Prefix6;
use std::net::Ipv6Addr;
use std::path::Path;

/// Makes the directory. On an error nothing of it stays.
///
/// # Errors
/// A file cannot be written.
pub fn write(directory: &Path, invitation: &Invitation) -> anyhow::Result<()> {
    make_directory(directory, 0o700)?;
    write_files(directory, invitation).inspect_err(|_| {
        let _ = std::fs::remove_dir_all(directory);
    })
}

fn write_files(directory: &Path, invitation: &Invitation) -> anyhow::Result<()> {
    let name = &invitation.name;
    for folder in ["conf.d", "x509", "x509ca", "private"] {
        make_directory(&directory.join(folder), 0o700)?;
    }
    write_public(&directory.join(format!("x509ca/{name}-ca.crt")), invitation.ca.as_bytes())?;
    write_public(&directory.join(format!("x509/{name}.crt")), invitation.cert.as_bytes())?;
    write_secret(
        &directory.join(format!("private/{name}.key")),
        invitation.key.as_deref().unwrap_or_default().as_bytes(),
    )?;
    let leaf = certificates(&invitation.cert)?;
    let identity = identity_of(&leaf[0]).unwrap_or_else(|| name.clone());
    let text = configuration(invitation, &identity);
    write_public(&directory.join(format!("conf.d/{name}.conf")), text.as_bytes())
}

fn configuration(invitation: &Invitation, identity: &str) -> String {
    let Invitation { name, broker, port, .. } = invitation;
    // It asks for no prefix, but has what both sides name.
    let prefix = invitation.prefix.as_ref().map_or_else(String::new, |p| format!(", {p}"));
    let hint = invitation.prefix.as_ref().and_then(|p| p.parse::<Prefix6>().ok()).map_or_else(String::new, |p| {
        let first = Ipv6Addr::from_bits(p.address.to_bits() | 1);
        format!(
            "# All of {p} is routed to this machine. With strongSwan's ESP in userspace (kernel-libipsec) it must have an address of it \
             before it connects:\n# ip -6 address add {first}/128 dev lo\n"
        )
    });
    let broker_id = bare(&invitation.broker_id);
    let port = if *port == 500 { String::new() } else { format!("        remote_port = {port}\n") };
    format!(
        "# An IPv6 tunnel to {broker}, made by `ferry6 broker invite`. swanctl --load-all, then swanctl --initiate --child {name}\n{hint}\
         connections {{\n    {name} {{\n        version = 2\n        remote_addrs = {broker}\n{port}        vips = ::\n        \
         encap = yes\n        mobike = yes\n        keyingtries = 0\n        dpd_delay = 30s\n        local {{\n            auth = pubkey\n            \
         certs = {name}.crt\n            id = {identity}\n        }}\n        remote {{\n            auth = pubkey\n            id = {broker_id}\n            \
         cacerts = {name}-ca.crt\n        }}\n        children {{\n            {name} {{\n                local_ts = dynamic{prefix}\n                \
         remote_ts = ::/0\n                dpd_action = restart\n                close_action = start\n            }}\n        }}\n    }}\n}}\n"
    )
}
