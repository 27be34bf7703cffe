//! Endpoints are named by clients, so a request to one must not reach what only the operator's machines can reach:
//! the addresses of a name are looked at after it was looked up, and only public ones are connected to.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::names::Names;

/// Looks names up and keeps the public addresses.
#[derive(Default)]
pub(super) struct PublicOnly(Names);

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        let names = self.0.clone();
        Box::pin(async move {
            let found = names.addresses(name.as_str()).await?.into_iter();
            let public: Vec<SocketAddr> = found.filter(|found| is_public(found.ip())).collect();
            if public.is_empty() {
                return Err("the name has no public address".into());
            }
            Ok(Box::new(public.into_iter()) as Addrs)
        })
    }
}

/// Whether the host is a name, which is looked up by [`PublicOnly`], or a public address.
pub(super) fn may_be_public(url: &Url) -> bool {
    match url.host_str().map(|host| host.trim_matches(['[', ']']).parse::<IpAddr>()) {
        Some(Ok(address)) => is_public(address),
        Some(Err(_)) => true,
        None => false,
    }
}

fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// Not in the registry of special addresses (RFC 6890 and its successors).
fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let special = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || a == 0
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (18..20).contains(&b))
        || a >= 224;
    !special
}

/// Global unicast, and none of the ranges that stand for an address of version 4.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    let special =
        (a == 0x2001 && (b < 0x200 || b == 0xdb8)) || a == 0x2002 || (a == 0x3fff && b < 0x1000);
    (0x2000..0x4000).contains(&a) && !special
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_inner_networks_are_refused_in_every_spelling() {
        let inner = [
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f.1",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
            "224.0.0.1",
            "255.255.255.255",
            "198.18.0.1",
            "[::1]",
            "[::]",
            "[::ffff:127.0.0.1]",
            "[fe80::1]",
            "[fd00::1]",
            "[64:ff9b::7f00:1]",
            "[2002:7f00:1::]",
            "[2001:db8::1]",
            "[2001::1]",
        ];
        for host in inner {
            let url = Url::parse(&format!("https://{host}/push")).unwrap();
            assert!(!may_be_public(&url), "{host}");
        }
        for host in ["push.example", "9.9.9.9", "[2620:fe::fe]"] {
            let url = Url::parse(&format!("https://{host}/push")).unwrap();
            assert!(may_be_public(&url), "{host}");
        }
    }

    #[tokio::test]
    async fn name_of_this_machine_resolves_to_nothing() {
        assert!(PublicOnly::default().resolve("localhost".parse().unwrap()).await.is_err());
    }
}
