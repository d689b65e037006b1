//! A name server that knows what the world says (RFC 1035, A records only; everything else has no answer).

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result};
use tokio::net::UdpSocket;

/// Where it listens inside the namespace.
pub(crate) const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 53);

/// The longest message over UDP.
const MAX_MESSAGE_BYTES: usize = 512;

/// Bytes of the header that every message has.
const HEADER_BYTES: usize = 12;

/// Seconds that an answer may be kept.
const TIME_TO_LIVE_SECONDS: u32 = 5;

const TYPE_A: u16 = 1;
const CODE_NAME_ERROR: u8 = 3;

/// Starts the name server on a task of the current runtime.
pub(crate) async fn start(names: BTreeMap<String, Vec<Ipv4Addr>>) -> Result<()> {
    let socket = UdpSocket::bind(ADDRESS)
        .await
        .with_context(|| format!("name server on {ADDRESS}"))?;
    tokio::spawn(async move {
        let mut query = [0; MAX_MESSAGE_BYTES];
        while let Ok((length, peer)) = socket.recv_from(&mut query).await {
            if let Some(answer) = answer(&query[..length], &names) {
                // A resolver that is gone does not need its answer.
                let _ = socket.send_to(&answer, peer).await;
            }
        }
    });
    Ok(())
}

/// The answer to a query; `None` when it is no query.
fn answer(query: &[u8], names: &BTreeMap<String, Vec<Ipv4Addr>>) -> Option<Vec<u8>> {
    let (name, end) = question_name(query)?;
    let question = query.get(HEADER_BYTES..end + 4)?;
    let record_type = u16::from_be_bytes([query[end], query[end + 1]]);
    let known = names.get(&name.to_ascii_lowercase());
    let addresses: &[Ipv4Addr] = match record_type {
        TYPE_A => known.map(Vec::as_slice).unwrap_or_default(),
        _ => &[],
    };
    let code = if known.is_some() { 0 } else { CODE_NAME_ERROR };
    let mut answer = Vec::with_capacity(MAX_MESSAGE_BYTES);
    answer.extend(&query[..2]);
    // A response, authoritative, recursion as asked and available.
    answer.extend([0x84 | (query[2] & 1), 0x80 | code, 0, 1]);
    answer.extend(u16::try_from(addresses.len()).ok()?.to_be_bytes());
    answer.extend([0, 0, 0, 0]);
    answer.extend(question);
    for address in addresses {
        // The name by reference to the question, type A, class IN.
        answer.extend([0xc0, HEADER_BYTES as u8, 0, 1, 0, 1]);
        answer.extend(TIME_TO_LIVE_SECONDS.to_be_bytes());
        answer.extend([0, 4]);
        answer.extend(address.octets());
    }
    (answer.len() <= MAX_MESSAGE_BYTES).then_some(answer)
}

/// The name that is asked for, and where its type begins.
fn question_name(query: &[u8]) -> Option<(String, usize)> {
    let mut labels = Vec::new();
    let mut at = HEADER_BYTES;
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(std::str::from_utf8(query.get(at..at + length)?).ok()?);
        at += length;
    }
    query.get(at + 3)?;
    Some((labels.join("."), at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(name: &str, record_type: u8) -> Vec<u8> {
        let mut query = vec![7, 8, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            query.push(label.len() as u8);
            query.extend(label.as_bytes());
        }
        query.extend([0, 0, record_type, 0, 1]);
        query
    }

    #[test]
    fn a_known_name_has_its_addresses() {
        let names = BTreeMap::from([("api.test".to_owned(), vec![Ipv4Addr::new(1, 2, 3, 4)])]);
        let reply = answer(&query("API.test", 1), &names).expect("answer");
        assert_eq!((reply[3] & 0xf, reply[7]), (0, 1));
        assert!(reply.ends_with(&[0, 4, 1, 2, 3, 4]));
        let no_ipv6 = answer(&query("api.test", 28), &names).expect("answer");
        assert_eq!((no_ipv6[3] & 0xf, no_ipv6[7]), (0, 0));
        let unknown = answer(&query("other.test", 1), &names).expect("answer");
        assert_eq!((unknown[3] & 0xf, unknown[7]), (CODE_NAME_ERROR, 0));
        assert_eq!(answer(&[1, 2, 3], &names), None);
    }
}
