//! `application/x-www-form-urlencoded`, in memory that wipes itself.

use form_urlencoded::byte_serialize;
use zeroize::Zeroizing;

/// The pairs as a form's body, in their order.
pub(in crate::source) fn form<K: AsRef<str>, V: AsRef<str>>(pairs: &[(K, V)]) -> Zeroizing<Vec<u8>> {
    let pieces = || {
        pairs.iter().enumerate().flat_map(|(count, (name, value))| {
            let and = if count == 0 { "" } else { "&" };
            let name = byte_serialize(name.as_ref().as_bytes());
            let value = byte_serialize(value.as_ref().as_bytes());
            [and].into_iter().chain(name).chain(["="]).chain(value)
        })
    };
    // Of its final size from the start, so that no growth leaves a copy behind.
    let mut form = Zeroizing::new(Vec::with_capacity(pieces().map(str::len).sum()));
    for piece in pieces() {
        form.extend_from_slice(piece.as_bytes());
    }
    form
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_what_a_browser_would_send() {
        assert_eq!(**form(&[("grant_type", "client_credentials")]), *b"grant_type=client_credentials");
        assert_eq!(**form(&[("a b", "c&d=e"), ("u", "\u{fc}+/"), ("", "")]), *b"a+b=c%26d%3De&u=%C3%BC%2B%2F&=");
        assert!(form::<&str, &str>(&[]).is_empty());
        let built = form(&[("k", "a&b")]);
        assert_eq!(built.len(), built.capacity());
    }
}
