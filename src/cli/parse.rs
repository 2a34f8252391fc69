//! What flags may look like. Errors say what is wrong with the text and show one that is right.

use std::time::Duration;

use pombo::Multiaddr;

/// A header, `NAME:VALUE`. Spaces around the value do not belong to it, as in HTTP.
pub(super) fn header(text: &str) -> Result<(String, String), String> {
    let example = "write it as NAME:VALUE, such as tenant:acme";
    let (name, value) = text.split_once(':').ok_or_else(|| format!("there is no colon: {example}"))?;
    let name = name.trim();
    if name.is_empty() {
        return Err(format!("the name is empty: {example}"));
    }
    Ok((name.to_owned(), value.trim().to_owned()))
}

/// A length of time with its unit, such as `500ms`, `2s` or `1m`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = |_| "it is no length of time: write a number and its unit, such as 500ms, 2s or 1m".to_owned();
    humantime::parse_duration(text).map_err(wrong)
}

/// Where a node can listen.
pub(super) fn listen(text: &str) -> Result<Multiaddr, String> {
    let address = address(text, "/ip4/0.0.0.0/tcp/7662", false)?;
    if is_socket(&address.protocol_stack().collect::<Vec<_>>()) {
        return Ok(address);
    }
    Err(format!("a node cannot listen there: write it as /ip4/0.0.0.0/tcp/7662{}", or_quic("0.0.0.0")))
}

/// Where a node can be found.
pub(super) fn peer(text: &str) -> Result<Multiaddr, String> {
    let address = address(text, "/ip4/192.168.1.20/tcp/7662", true)?;
    let mut stack: Vec<_> = address.protocol_stack().collect();
    stack.pop_if(|last| *last == "p2p");
    if stack.first() == Some(&"dnsaddr") {
        return Err("dnsaddr records are not looked up: name a host, such as /dns/shop.example/tcp/7662".to_owned());
    }
    if text.split('/').skip_while(|part| !matches!(*part, "tcp" | "udp")).nth(1) == Some("0") {
        return Err("nobody can be reached at port 0: give the one that the node prints when it starts".to_owned());
    }
    if stack.first().is_some_and(|first| first.starts_with("dns")) {
        stack[0] = "ip4";
        let right =
            || format!("no node can be there: write it as /dns/shop.example/tcp/7662{}", or_quic("192.168.1.20"));
        return if is_socket(&stack) { Ok(address) } else { Err(right()) };
    }
    if is_socket(&stack) {
        return Ok(address);
    }
    Err(format!("no node can be there: write it as /ip4/192.168.1.20/tcp/7662{}", or_quic("192.168.1.20")))
}

/// An address in the form of libp2p.
fn address(text: &str, example: &str, names: bool) -> Result<Multiaddr, String> {
    let right = match text.parse::<std::net::SocketAddr>() {
        Ok(socket) => {
            let family = if socket.is_ipv4() { "ip4" } else { "ip6" };
            format!("/{family}/{}/tcp/{}", socket.ip(), socket.port())
        }
        Err(_) => named(text).filter(|_| names).unwrap_or_else(|| example.to_owned()),
    };
    let wrong = match text.parse::<Multiaddr>() {
        Ok(address) if !address.is_empty() => return Ok(address),
        Ok(_) => "it is empty".to_owned(),
        Err(_) if !text.starts_with('/') => "it does not begin with a slash, as addresses of libp2p do".to_owned(),
        Err(error) => match text.split('/').find(|part| is_no_port(part)) {
            Some(port) => format!("{port} is no port, which are at most 65535"),
            None => error.to_string(),
        },
    };
    Err(format!("{wrong}: write it as {right}"))
}

/// A host's name and a port, as many write them, in the form of libp2p.
fn named(text: &str) -> Option<String> {
    let (host, port) = text.split_once(':')?;
    let port: u16 = port.parse().ok()?;
    let is_name = !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte));
    is_name.then(|| format!("/dns/{host}/tcp/{port}"))
}

/// Whether it is a number that is too large for a port.
fn is_no_port(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_err()
}

/// Whether these protocols lead to a port that a node can have.
fn is_socket(stack: &[&str]) -> bool {
    matches!(stack, ["ip4" | "ip6", "tcp"])
        || (cfg!(feature = "quic") && matches!(stack, ["ip4" | "ip6", "udp", "quic-v1"]))
}

fn or_quic(ip: &str) -> String {
    if cfg!(feature = "quic") { format!(" or /ip4/{ip}/udp/7662/quic-v1") } else { String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_an_address_is_said() {
        for (wrong, what) in [
            ("10.0.0.1:99", "write it as /ip4/10.0.0.1/tcp/99"),
            ("[::1]:5", "write it as /ip6/::1/tcp/5"),
            ("localhost:7662", "does not begin with a slash"),
            ("", "empty"),
            ("/ip4/1.2.3/tcp/5", "invalid IPv4"),
            ("/ip4/1.2.3.4/tcp/99999", "99999 is no port"),
            ("/ip4/1.2.3.4/udp/9", "write it as /ip4/"),
            ("/ip4/1.2.3.4", "write it as /ip4/"),
        ] {
            for error in [peer(wrong).unwrap_err(), listen(wrong).unwrap_err()] {
                assert!(error.contains(what) && error.contains("/tcp/"), "{wrong}: {error}");
            }
        }
        assert!(peer("shop.example:7662").unwrap_err().contains("/dns/shop.example/tcp/7662"));
        assert!(peer("http://shop:1").unwrap_err().contains("/ip4/192.168.1.20/tcp/7662"));
        assert!(peer("/ip4/1.2.3.4/tcp/0").unwrap_err().contains("port 0"));
        assert!(listen("/ip4/1.2.3.4/tcp/0").is_ok());
    }

    #[test]
    fn a_header_is_split_at_its_first_colon() {
        assert_eq!(header("a:b"), Ok(("a".into(), "b".into())));
        assert_eq!(header("url: http://x:1/ "), Ok(("url".into(), "http://x:1/".into())));
        assert_eq!(header("empty:"), Ok(("empty".into(), String::new())));
        for wrong in ["", "a", ":b", " :b"] {
            assert!(header(wrong).unwrap_err().contains("tenant:acme"), "{wrong}");
        }
    }

    #[test]
    fn a_duration_has_a_unit() {
        assert_eq!(duration("100ms"), Ok(Duration::from_millis(100)));
        assert_eq!(duration("2s"), Ok(Duration::from_secs(2)));
        assert_eq!(duration("1m"), Ok(Duration::from_secs(60)));
        for wrong in ["", "5", "s", "-1s", "5 parsecs"] {
            assert!(duration(wrong).unwrap_err().contains("500ms"), "{wrong}");
        }
    }

    #[test]
    fn a_socket_address_is_answered_with_its_right_form() {
        for parse in [listen, peer] {
            assert!(parse("/ip4/127.0.0.1/tcp/80").is_ok());
            assert_eq!(parse("/ip6/::1/udp/80/quic-v1").is_ok(), cfg!(feature = "quic"));
            assert!(parse("10.0.0.1:80").unwrap_err().ends_with("/ip4/10.0.0.1/tcp/80"));
            assert!(parse("[::1]:80").unwrap_err().ends_with("/ip6/::1/tcp/80"));
            for wrong in ["", "shop", "/ip4/10.0.0.1", "/ip4/10.0.0.1/udp/80", "/ip4/10.0.0.1/tcp/80/ws"] {
                assert!(parse(wrong).unwrap_err().contains("/ip4/"), "{wrong}");
            }
        }
    }

    #[test]
    fn a_peer_may_be_named_and_a_listener_not() {
        let named = "/ip4/10.0.0.1/tcp/80/p2p/12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X";
        assert!(peer(named).is_ok());
        assert!(listen(named).is_err());
    }

    #[test]
    fn a_peer_may_be_a_name_that_the_system_can_look_up() {
        for right in ["/dns/example.org/tcp/80", "/dns4/example.org/tcp/80", "/dns6/a/tcp/80"] {
            assert!(peer(right).is_ok(), "{right}");
            assert!(listen(right).is_err(), "{right}");
        }
        assert!(peer("/dnsaddr/example.org").unwrap_err().contains("/dns/shop.example/tcp/7662"));
        assert!(peer("/dnsaddr/example.org/tcp/80").unwrap_err().contains("dnsaddr"));
        assert!(peer("/dns4/example.org").unwrap_err().contains("/dns/shop.example/tcp/7662"));
    }
}
