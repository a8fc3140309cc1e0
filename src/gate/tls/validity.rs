//! From when until when a certificate is valid: the one field of it that is looked at here (RFC 5280, 4.1).

use crate::model::Timestamp;

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// First and last moment of the certificate's validity; `None` if they are not found.
pub fn of(mut certificate: &[u8]) -> Option<(Timestamp, Timestamp)> {
    let mut certificate = element(&mut certificate, SEQUENCE)?;
    let mut signed = element(&mut certificate, SEQUENCE)?;
    // Absent from certificates of version 1.
    let _ = element(&mut signed, VERSION);
    // Serial number, algorithm, issuer.
    for tag in [INTEGER, SEQUENCE, SEQUENCE] {
        element(&mut signed, tag)?;
    }
    let mut validity = element(&mut signed, SEQUENCE)?;
    Some((time(&mut validity)?, time(&mut validity)?))
}

/// Takes an element off the front if it has that tag, and gives what it holds.
fn element<'a>(der: &mut &'a [u8], wanted: u8) -> Option<&'a [u8]> {
    let (&tag, rest) = der.split_first()?;
    let (&short, mut rest) = rest.split_first()?;
    let length = match short {
        0..=0x7f => usize::from(short),
        0x81..=0x84 => {
            let (bytes, after) = rest.split_at_checked(usize::from(short & 0x7f))?;
            rest = after;
            bytes.iter().try_fold(0_usize, |n, byte| n.checked_mul(256)?.checked_add(usize::from(*byte)))?
        }
        _ => return None,
    };
    let (value, after) = rest.split_at_checked(length)?;
    (tag == wanted).then(|| {
        *der = after;
        value
    })
}

/// `YYMMDDHHMMSSZ` or, for years from 2050 on, `YYYYMMDDHHMMSSZ`.
fn time(der: &mut &[u8]) -> Option<Timestamp> {
    let text = match element(der, UTC_TIME) {
        Some(text) => {
            let century = if text.first()? < &b'5' { "20" } else { "19" };
            format!("{century}{}", std::str::from_utf8(text).ok()?)
        }
        None => std::str::from_utf8(element(der, GENERALIZED_TIME)?).ok()?.to_owned(),
    };
    let part = |range: std::ops::Range<usize>| text.get(range);
    let text = format!(
        "{}-{}-{}T{}:{}:{}Z",
        part(0..4)?,
        part(4..6)?,
        part(6..8)?,
        part(8..10)?,
        part(10..12)?,
        part(12..14)?
    );
    humantime::parse_rfc3339(&text).ok().map(Timestamp::from_system)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A certificate as far as it is looked at.
    fn certificate(version: bool, from: &str, until: &str) -> Vec<u8> {
        let wrap = |tag: u8, value: &[u8]| {
            let length = u16::try_from(value.len()).unwrap().to_be_bytes();
            [&[tag, 0x82], &length[..], value].concat()
        };
        let time =
            |text: &str| wrap(if text.len() == 13 { UTC_TIME } else { GENERALIZED_TIME }, text.as_bytes());
        let validity = wrap(SEQUENCE, &[time(from), time(until)].concat());
        let version = if version { wrap(VERSION, &wrap(INTEGER, &[2])) } else { Vec::new() };
        let before =
            [wrap(INTEGER, &[7; 20]), wrap(SEQUENCE, b"algorithm"), wrap(SEQUENCE, &[0; 300])].concat();
        wrap(SEQUENCE, &wrap(SEQUENCE, &[version, before, validity, b"more".to_vec()].concat()))
    }

    #[test]
    fn both_forms_of_time_are_read() {
        let shown = |version, from, until| {
            let (from, until) = of(&certificate(version, from, until)).unwrap();
            (from.to_string(), until.to_string())
        };
        assert_eq!(
            shown(true, "240229235959Z", "990101000000Z"),
            ("2024-02-29T23:59:59Z".into(), "1999-01-01T00:00:00Z".into())
        );
        assert_eq!(
            shown(false, "491231235959Z", "20500101000000Z"),
            ("2049-12-31T23:59:59Z".into(), "2050-01-01T00:00:00Z".into())
        );
        assert_eq!(
            of(&certificate(true, "700101000000Z", "99991231235959Z")).unwrap().1,
            Timestamp(i64::MAX)
        );
        assert_eq!(of(&certificate(true, "240230000000Z", "240101000000Z")), None);
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0_usize..400, flip in 0_usize..400) {
            let _ = of(&bytes);
            let mut good = certificate(true, "240229235959Z", "20500101000000Z");
            let flip = flip % good.len();
            good[flip] ^= 1 << (cut % 8);
            let _ = of(&good);
            let _ = of(&good[..cut.min(good.len())]);
        }
    }
}
