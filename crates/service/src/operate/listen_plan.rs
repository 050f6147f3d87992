//! Makes the list of listeners from the configuration: each address with its protocols.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::config::Config;
use crate::http::listeners::Protocols;

/// The listeners to open. The same address in several lists is one listener; port 0 is a new one each time.
pub fn plan(config: &Config) -> Vec<(SocketAddr, Protocols)> {
    type List<'a> = (&'a [SocketAddr], fn(&mut Protocols));
    let lists: [List<'_>; 5] = [
        (&config.http.listen.0, |it| it.http = true),
        (&config.amqp.listen.0, |it| it.amqp = true),
        (&config.http.tls_listen.0, |it| it.https = true),
        (&config.amqp.tls_listen.0, |it| it.amqps = true),
        (&config.metrics.listen.0, |it| it.metrics = true),
    ];
    let mut listeners: Vec<(SocketAddr, Protocols)> = Vec::new();
    let mut known = BTreeMap::new();
    for (addresses, speak) in lists {
        for &address in addresses {
            let at = match address.port() {
                0 => listeners.len(),
                _ => *known.entry(address).or_insert(listeners.len()),
            };
            if at == listeners.len() {
                listeners.push((address, Protocols::default()));
            }
            speak(&mut listeners[at].1);
        }
    }
    listeners
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operate::config::Addresses;

    #[test]
    fn the_same_address_is_one_listener() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let mut config = Config::default();
        config.http.tls_listen = Addresses(vec![at("0.0.0.0:443")]);
        config.amqp.tls_listen = Addresses(vec![at("0.0.0.0:443"), at("[::1]:443")]);
        let listeners = plan(&config);
        assert_eq!(listeners.len(), 4);
        assert_eq!(
            listeners[2],
            (at("0.0.0.0:443"), Protocols { https: true, amqps: true, ..Protocols::default() })
        );
        assert_eq!(listeners[3], (at("[::1]:443"), Protocols { amqps: true, ..Protocols::default() }));

        config.http.listen = Addresses(vec![at("127.0.0.1:0")]);
        config.amqp.listen = Addresses(vec![at("127.0.0.1:0")]);
        assert_eq!(plan(&config).len(), 4, "port 0 is a free one each time");
    }
}
