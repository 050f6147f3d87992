//! Where a request arrived: addresses of its connection and kind of listener. The listener adds it to the request's
//! extensions.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;

use axum::http::Extensions;

/// The connection of a request.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// The address of the listener.
    pub at: SocketAddr,
    pub tls: bool,
    pub peer: SocketAddr,
    /// The listener is one for health and metrics.
    pub metrics: bool,
    /// The port on the client's own machine where its forwarder takes AMQP (`farcall connect`).
    pub forwarder: Option<NonZeroU16>,
}

impl Arrival {
    /// A connection of `peer` to the listener at `at`, without TLS. A socket for IPv6 that takes IPv4 too has both as mapped
    /// addresses (`::ffff:192.0.2.1`); clients can't use such a host in a URL.
    pub fn new(at: SocketAddr, peer: SocketAddr, metrics: bool) -> Arrival {
        Arrival { at: canonical(at), tls: false, peer: canonical(peer), metrics, forwarder: None }
    }
}

fn canonical(mut address: SocketAddr) -> SocketAddr {
    address.set_ip(address.ip().to_canonical());
    address
}

/// The address that a request comes from.
pub fn peer(request: &Extensions) -> IpAddr {
    request.get::<Arrival>().map_or(IpAddr::from([0; 4]), |arrival| arrival.peer.ip())
}

/// The address by which limits count: for IPv6 the /64 network, because single addresses cost an attacker nothing.
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) & !u128::from(u64::MAX)).into()),
        address => address,
    }
}
