//! Pages of lists, and the tokens that lead from one to the next.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;

use crate::wire::{ApiError, Code};

use super::ask::{Ask, Reply, bad};

/// Items of a page if nobody says how many, and at most.
pub const PAGE: u32 = 100;
/// Items of a page at most.
pub const PAGE_MAX: u32 = 1000;
/// A page ends early when it has become so large: one item may be as large as a submission.
pub const PAGE_BYTES: usize = 1 << 20;

/// Which part of a list is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Order.
    pub order: String,
    /// Backwards.
    pub reverse: bool,
    /// Items, at most.
    pub limit: u32,
    /// Items left out at the beginning; in a history the number of the last event seen.
    pub offset: u64,
}

impl Place {
    /// What a request asks for. A token stands above all other parameters, as it does upstream.
    ///
    /// # Errors
    /// The order is none of `orders` (the first is the default), or something is malformed.
    pub fn of(ask: &Ask, orders: &[&str]) -> Result<Self, ApiError> {
        if let Some(token) = ask.query.get("next_token") {
            let place = Self::from_token(token)
                .filter(|place| orders.contains(&place.order.as_str()))
                .ok_or_else(|| bad("next_token", token, "a token that this list has given out"))?;
            return Ok(place);
        }
        let default = orders.first().copied().unwrap_or_default();
        let order = ask.query.get("order_by").unwrap_or(default);
        if !orders.contains(&order) {
            return Err(bad("order_by", order, &format!("one of {}", orders.join(", "))));
        }
        let limit = ask.query.number("limit")?.unwrap_or(PAGE).min(PAGE_MAX);
        Ok(Self { order: order.to_owned(), reverse: ask.query.flag("reverse")?, limit, offset: 0 })
    }

    /// The token of the place `offset`, otherwise like this one.
    #[must_use]
    pub fn token(&self, offset: u64) -> String {
        let reverse = if self.reverse { 'Y' } else { 'N' };
        URL_SAFE_NO_PAD.encode(format!("{}:{reverse}:{}:{offset}", self.order, self.limit))
    }

    fn from_token(token: &str) -> Option<Self> {
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
        let mut parts = text.split(':');
        let (order, reverse) = (parts.next()?.to_owned(), parts.next()?);
        let (limit, offset) = (parts.next()?.parse::<u32>().ok()?, parts.next()?.parse().ok()?);
        let known = parts.next().is_none() && matches!(reverse, "Y" | "N") && (1..=PAGE_MAX).contains(&limit);
        known.then(|| Self { order, reverse: reverse == "Y", limit, offset })
    }

    /// How many items, as a count.
    #[must_use]
    pub fn count(&self) -> usize {
        usize::try_from(self.limit).unwrap_or(usize::MAX)
    }
}

/// `{"Items": [...], "NextToken": "..."}`, put together item by item so that only the text is held.
pub struct PageText {
    text: Vec<u8>,
    items: usize,
}

impl PageText {
    /// No items yet, under that key.
    #[must_use]
    pub fn new(key: &str) -> Self {
        Self { text: format!("{{\"{key}\":[").into_bytes(), items: 0 }
    }

    /// Appends an item.
    ///
    /// # Errors
    /// It cannot be encoded.
    pub fn push(&mut self, item: &impl Serialize) -> Result<(), ApiError> {
        if self.items > 0 {
            self.text.push(b',');
        }
        self.items += 1;
        serde_json::to_writer(&mut self.text, item).map_err(|error| {
            ApiError::new(Code::InternalError, format!("the answer cannot be encoded: {error}"))
        })
    }

    /// Whether there is room for another.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.text.len() < PAGE_BYTES
    }

    /// How many it has.
    #[must_use]
    pub const fn items(&self) -> usize {
        self.items
    }

    /// The page; tokens need no escaping.
    #[must_use]
    pub fn finish(mut self, token: &str) -> Vec<u8> {
        self.text.extend_from_slice(format!("],\"NextToken\":\"{token}\"}}").as_bytes());
        self.text
    }

    /// The page as a whole answer.
    #[must_use]
    pub fn reply(self, token: &str) -> Reply {
        Reply::text(self.finish(token))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(query: &str) -> Result<Place, ApiError> {
        Place::of(&Ask::new("GET", &format!("/?{query}")).unwrap(), &["created_at", "modified_at"])
    }

    #[test]
    fn places_and_tokens() {
        let first = place("limit=7&reverse=true&order_by=modified_at").unwrap();
        assert_eq!(
            (first.limit, first.reverse, first.order.as_str(), first.offset),
            (7, true, "modified_at", 0)
        );
        let token = first.token(14);
        assert!(token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'));
        let next = place(&format!("limit=99&next_token={token}")).unwrap();
        assert_eq!(next, Place { offset: 14, ..first });
        assert_eq!(place("next_token=&order_by=&limit=0&reverse=").unwrap().limit, PAGE);
        assert_eq!(place("limit=4000000000").unwrap().limit, PAGE_MAX);
        for bad in ["order_by=id", "limit=x", "reverse=maybe", "next_token=!", "next_token=YTpOOjE6MA"] {
            assert_eq!(place(bad).unwrap_err().status, 400, "{bad}");
        }
    }

    #[test]
    fn pages_are_json() {
        let mut page = PageText::new("Items");
        assert!(page.has_room() && page.items() == 0);
        page.push(&1).unwrap();
        page.push(&"a").unwrap();
        assert_eq!(page.finish("t"), br#"{"Items":[1,"a"],"NextToken":"t"}"#);
        assert_eq!(PageText::new("Items").finish(""), br#"{"Items":[],"NextToken":""}"#);
        let mut page = PageText::new("Items");
        page.push(&"x".repeat(PAGE_BYTES)).unwrap();
        assert!(!page.has_room());
    }
}
