//! `address`: where the engine listens and where nodes connect, as users write it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs as _, UdpSocket};

use serde::Deserialize;

/// A literal address, or a way to find one on the machine that starts the engine.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Address {
    Literal(IpAddr),
    Finder(AddressFinder),
}

/// Upstream's functions that find an address, by their names.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum AddressFinder {
    /// The IPv4 address of a network interface.
    AddressByInterface { ifname: String },
    /// What this machine's name resolves to.
    AddressByHostname {},
    /// The address from which packets leave for the internet; none is sent.
    AddressByRoute {},
    /// Asks a server on the internet; refused when the engine starts.
    AddressByQuery {
        #[serde(default)]
        timeout: Option<serde_json::Number>,
    },
}

/// Where the engine listens, and where nodes connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListenAddress {
    pub(crate) listen: IpAddr,
    /// Never empty; nodes try all of them.
    pub(crate) advertise: Vec<IpAddr>,
}

impl ListenAddress {
    fn only(address: IpAddr) -> Self {
        Self { listen: address, advertise: vec![address] }
    }
}

/// Without an `address`, only nodes on this machine can connect.
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Finds the addresses.
pub(crate) fn resolve(address: Option<&Address>) -> io::Result<ListenAddress> {
    let finder = match address {
        None => return Ok(ListenAddress::only(HERE)),
        Some(Address::Literal(address)) if address.is_unspecified() => {
            let mut advertise = interface_addresses(|_| true)?;
            advertise.retain(|found| found.is_ipv4() || address.is_ipv6());
            if advertise.is_empty() {
                advertise.push(HERE);
            }
            return Ok(ListenAddress { listen: *address, advertise });
        }
        Some(Address::Literal(address)) => return Ok(ListenAddress::only(*address)),
        Some(Address::Finder(finder)) => finder,
    };
    let none = |what: String| io::Error::new(io::ErrorKind::AddrNotAvailable, what);
    let found = match finder {
        AddressFinder::AddressByInterface { ifname } => interface_addresses(|name| name == ifname)?
            .into_iter()
            .find(IpAddr::is_ipv4)
            .ok_or_else(|| none(format!("the interface {ifname} has no IPv4 address here")))?,
        AddressFinder::AddressByHostname {} => {
            let name = nix::unistd::gethostname()?.to_string_lossy().into_owned();
            (name.as_str(), 0)
                .to_socket_addrs()?
                .map(|address| address.ip())
                .find(IpAddr::is_ipv4)
                .ok_or_else(|| none(format!("this machine's name {name} has no IPv4 address")))?
        }
        AddressFinder::AddressByRoute {} => {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.connect((Ipv4Addr::new(8, 8, 8, 8), 80))?; // chooses a route; no packet leaves
            socket.local_addr()?.ip()
        }
        AddressFinder::AddressByQuery { .. } => {
            return Err(none(
                "address_by_query would ask a server on the internet; write the address itself".into(),
            ));
        }
    };
    Ok(ListenAddress::only(found))
}

/// The addresses of the interfaces that `wanted` picks, those that other machines can reach first.
fn interface_addresses(wanted: impl Fn(&str) -> bool) -> io::Result<Vec<IpAddr>> {
    let mut found: Vec<IpAddr> = nix::ifaddrs::getifaddrs()?
        .filter(|interface| wanted(&interface.interface_name))
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
        })
        // A link-local address means nothing without the name of its interface, which differs on each machine.
        .filter(|address| !matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local()))
        .collect();
    found.sort_by_key(IpAddr::is_loopback);
    found.dedup();
    Ok(found)
}

/// Each address with the port that is listened on.
pub(crate) fn with_port(addresses: &[IpAddr], port: u16) -> Vec<SocketAddr> {
    addresses.iter().map(|&address| SocketAddr::new(address, port)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: serde_json::Value) -> Address {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_engine_listens_on_loopback_unless_an_address_is_configured() {
        assert_eq!(resolve(None).unwrap(), ListenAddress::only(HERE));
        assert_eq!(
            resolve(Some(&read(json!("127.0.0.9")))).unwrap().advertise,
            ["127.0.0.9".parse::<IpAddr>().unwrap()]
        );
        let everywhere = resolve(Some(&read(json!("0.0.0.0")))).unwrap();
        assert!(everywhere.listen.is_unspecified());
        assert_eq!(everywhere.advertise.last(), Some(&HERE), "tried, too, after what others can reach");
    }

    #[test]
    fn functions_of_the_original_find_an_address() {
        let by_interface = read(json!({"type": "address_by_interface", "ifname": "lo"}));
        assert_eq!(resolve(Some(&by_interface)).unwrap(), ListenAddress::only(HERE));
        let missing = read(json!({"type": "address_by_interface", "ifname": "no0"}));
        assert!(resolve(Some(&missing)).unwrap_err().to_string().contains("no0"));
        let query = read(json!({"type": "address_by_query", "timeout": 30}));
        assert!(resolve(Some(&query)).unwrap_err().to_string().contains("write the address itself"));
        for name in ["address_by_route", "address_by_hostname"] {
            // Whether there is one depends on the machine; that it is asked for does not.
            let _ = resolve(Some(&read(json!({"type": name}))));
        }
        assert!(serde_json::from_value::<Address>(json!("login1")).is_err());
    }
}
