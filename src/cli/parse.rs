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
    humantime::parse_duration(text).map_err(|error| format!("{error}: write it with its unit, such as 500ms, 2s or 1m"))
}

/// An address in the form of libp2p.
pub(super) fn address(text: &str) -> Result<Multiaddr, String> {
    let right = match text.parse::<std::net::SocketAddr>() {
        Ok(socket) => {
            let family = if socket.is_ipv4() { "ip4" } else { "ip6" };
            format!("/{family}/{}/tcp/{}", socket.ip(), socket.port())
        }
        Err(_) => "/ip4/192.168.1.20/tcp/7662".to_owned(),
    };
    match text.parse::<Multiaddr>() {
        Ok(address) if !address.is_empty() => Ok(address),
        Ok(_) => Err(format!("it is empty: write it as {right}")),
        Err(error) => Err(format!("{error}: write it as {right}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(address("/ip4/127.0.0.1/tcp/80").is_ok());
        assert!(address("/ip4/127.0.0.1/udp/80/quic-v1").is_ok());
        assert!(address("10.0.0.1:80").unwrap_err().ends_with("/ip4/10.0.0.1/tcp/80"));
        assert!(address("[::1]:80").unwrap_err().ends_with("/ip6/::1/tcp/80"));
        assert!(address("").unwrap_err().contains("/ip4/"));
        assert!(address("shop").unwrap_err().contains("/ip4/"));
    }
}
