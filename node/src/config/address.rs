//! Addresses as people write them.

use serde::{Deserialize, Deserializer, de};
use std::net::{Ipv4Addr, SocketAddr};

/// An IP address and a port; `localhost` is 127.0.0.1. Other names are not looked up: which address one would get, and
/// whether it is open to the network, should not depend on a resolver.
pub fn parse(text: &str) -> Result<SocketAddr, String> {
    let port_here = text.strip_prefix("localhost:").and_then(|port| port.parse().ok());
    match port_here {
        Some(port) => Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
        None => text.parse().map_err(|_| {
            format!("{text:?} is no address: write IP:PORT, as in 127.0.0.1:8000, 0.0.0.0:8000 or [::1]:8000")
        }),
    }
}

/// The same in a file, where the setting may be left out.
pub fn in_file<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).map(Some).map_err(de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_numbers_or_this_host() {
        for (text, address) in [
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("localhost:8000", "127.0.0.1:8000"),
            ("[::1]:0", "[::1]:0"),
        ] {
            assert_eq!(parse(text).unwrap().to_string(), address);
        }
        for text in [
            "",
            "8000",
            "127.0.0.1",
            "localhost",
            "localhost:99999",
            "example.org:80",
            ":8000",
        ] {
            assert!(parse(text).unwrap_err().contains("IP:PORT"), "{text}");
        }
    }
}
