//! Headers on their way through; no IO.

use std::net::IpAddr;

use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::routes::Scheme;

/// Headers of one connection rather than of the message (RFC 9110, 7.6.1), `Trailer` apart, which
/// announces what we do pass on.
const HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
];

const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// Every header that begins like this is ours to set.
const FORWARDED_PREFIX: &str = "x-forwarded-";

/// Takes away what belongs to the connection that a message came on.
pub(super) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
        .collect();
    for name in named {
        // A client must not have the edge drop what the guest relies on.
        if name != header::HOST && name != header::CONTENT_LENGTH && name != header::COOKIE {
            headers.remove(name);
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
    headers.remove(PROXY_CONNECTION);
}

/// The protocol that a message asks to continue in, if it asks for one properly.
pub(super) fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let asks = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|name| name.trim().eq_ignore_ascii_case("upgrade"));
    let protocol = headers.get(header::UPGRADE).filter(|_| asks)?;
    // HTTP/2 without TLS would take the connection out of our sight.
    (!protocol.as_bytes().eq_ignore_ascii_case(b"h2c")).then(|| protocol.clone())
}

/// Asks for, or confirms, the continuation in another protocol.
pub(super) fn set_upgrade(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, protocol);
}

/// Whether the client takes trailers.
pub(super) fn takes_trailers(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(header::TE).iter();
    values.any(|value| {
        value.to_str().is_ok_and(|te| {
            te.split(',')
                .any(|one| one.trim().eq_ignore_ascii_case("trailers"))
        })
    })
}

/// Says who asks, how and for what, in place of whatever the client said about that.
pub(super) fn set_forwarded(
    headers: &mut HeaderMap,
    client: IpAddr,
    scheme: Scheme,
    host: &HeaderValue,
) {
    let theirs: Vec<_> = headers
        .keys()
        .filter(|name| name.as_str().starts_with(FORWARDED_PREFIX))
        .cloned()
        .collect();
    for name in theirs {
        headers.remove(name);
    }
    headers.remove(header::FORWARDED);
    headers.remove(X_REAL_IP);
    // An address never has a character that a header may not have.
    if let Ok(address) = HeaderValue::from_str(&client.to_canonical().to_string()) {
        headers.insert(X_FORWARDED_FOR, address);
    }
    headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(scheme.as_str()));
    headers.insert(X_FORWARDED_HOST, host.clone());
}

/// HTTP/2 may split cookies over headers; HTTP/1.1 may not (RFC 9113, 8.2.3).
pub(super) fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(header::COOKIE).iter().nth(1).is_none() {
        return;
    }
    let crumbs: Vec<_> = headers
        .get_all(header::COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if let Ok(whole) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(header::COOKIE, whole);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(of: &[(&'static str, &'static str)]) -> HeaderMap {
        of.iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    #[test]
    fn headers_of_the_connection_and_those_it_names_are_taken_away() {
        let mut given = headers(&[
            ("connection", "close, X-Hop, host, cookie"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "x"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("x-hop", "1"),
            ("host", "a"),
            ("cookie", "b=c"),
            ("trailer", "x-sum"),
        ]);
        strip_hop_by_hop(&mut given);
        assert_eq!(
            given,
            headers(&[("host", "a"), ("cookie", "b=c"), ("trailer", "x-sum")])
        );
    }

    #[test]
    fn what_the_client_says_of_itself_is_replaced() {
        let mut given = headers(&[
            ("x-forwarded-for", "6.6.6.6"),
            ("x-forwarded-port", "1"),
            ("x-forwarded-prefix", "/admin"),
            ("forwarded", "for=6.6.6.6"),
            ("x-real-ip", "6.6.6.6"),
        ]);
        let host = HeaderValue::from_static("a.com:8080");
        set_forwarded(
            &mut given,
            "::ffff:10.0.0.1".parse().unwrap(),
            Scheme::Https,
            &host,
        );
        let expected = [
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "a.com:8080"),
        ];
        assert_eq!(given, headers(&expected));
    }

    #[test]
    fn an_upgrade_needs_both_headers() {
        let websocket = headers(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
        ]);
        assert_eq!(upgrade(&websocket).unwrap(), "websocket");
        assert!(upgrade(&headers(&[("upgrade", "websocket")])).is_none());
        assert!(upgrade(&headers(&[("connection", "upgrade"), ("upgrade", "h2c")])).is_none());
    }

    #[test]
    fn crumbs_become_one_cookie() {
        let mut given = HeaderMap::new();
        given.append(header::COOKIE, HeaderValue::from_static("a=1"));
        given.append(header::COOKIE, HeaderValue::from_static("b=2"));
        join_cookies(&mut given);
        assert_eq!(
            given.get_all(header::COOKIE).iter().collect::<Vec<_>>(),
            ["a=1; b=2"]
        );
    }
}
