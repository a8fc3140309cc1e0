//! Which results go, and why: a pure function of what is there, the policy, the time and the need.

use std::time::Duration;

use uuid::Uuid;

use crate::model::{Bytes, DeletionReason, EvictFirst, Pin, Timestamp};

/// One result on the shelf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Item {
    /// Its execution.
    pub execution: Uuid,
    /// What it occupies.
    pub size: Bytes,
    /// When it was published.
    pub created: Timestamp,
    /// How long it is kept, if its job said so.
    pub retention: Option<Duration>,
    /// A user's word that it stays.
    pub pin: Option<Pin>,
    /// Somebody reads it now.
    pub in_use: bool,
    /// Somebody has downloaded it whole.
    pub fetched: bool,
    /// Its date is of a clock that was wrong: it has no age yet.
    pub undated: bool,
}

/// What the node's owner wants kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// `Results.Retention`: how long results are kept whose job says nothing; 0 is for ever.
    pub retention: Duration,
    /// `Results.MaxCount`: how many are kept.
    pub max_count: u32,
    /// `Results.EvictFirst`: which go first when room is needed.
    pub evict_first: EvictFirst,
}

/// What must become free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// This much room.
    pub room: Bytes,
    /// Places for so many more results.
    pub places: u32,
    /// Why room is needed: what the results that go for it are told.
    pub reason: DeletionReason,
}

impl Need {
    /// No need: only what is to go anyway goes.
    pub const NONE: Self = Self { room: Bytes::ZERO, places: 0, reason: DeletionReason::Quota };
}

/// A result that is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pick {
    /// Its execution.
    pub execution: Uuid,
    /// What it frees.
    pub size: Bytes,
    /// Why it goes.
    pub reason: DeletionReason,
}

/// What is to go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// In this order.
    pub deletions: Vec<Pick>,
    /// What they free together.
    pub freed: Bytes,
    /// Whether that meets the need. If not, nothing goes for its sake: `deletions` holds only what goes anyway.
    pub enough: bool,
}

impl Item {
    /// Whether it must stay for now. A pin that ends counts as one that does not while nobody knows the time.
    fn is_held(&self, now: Option<Timestamp>) -> bool {
        let pinned = self.pin.is_some_and(|pin| match (pin.until, now) {
            (Some(until), Some(now)) => until > now,
            _ => true,
        });
        pinned || self.in_use
    }

    /// When its retention ends, if ever.
    #[must_use]
    pub fn expires(&self, policy: &Policy) -> Option<Timestamp> {
        let retention = self.retention.unwrap_or(policy.retention);
        (!retention.is_zero()).then(|| self.created.plus(retention))
    }

    fn is_expired(&self, policy: &Policy, now: Option<Timestamp>) -> bool {
        // A result from the future (the clock was wrong then, or is now) ends still later, so it is not.
        !self.undated && now.is_some_and(|now| self.expires(policy).is_some_and(|end| end <= now))
    }
}

/// What goes: first what has outlived its retention (if the time is known: `now`), then what exceeds the count, then,
/// if and only if that meets the need, the first in the order of eviction. Nothing that is pinned or in use goes.
#[must_use]
pub fn plan(items: &[Item], policy: &Policy, now: Option<Timestamp>, need: &Need) -> Plan {
    let mut plan = Plan::default();
    let mut stay = Vec::new();
    for item in by_age(items, now) {
        if item.is_expired(policy, now) {
            plan.add(item, DeletionReason::Expired);
        } else {
            stay.push(item);
        }
    }
    stay.sort_by_key(|item| eviction_order(item, policy));
    let count = |plan: &Plan| items.len() - plan.deletions.len();
    let max_count = policy.max_count as usize;
    let mut stay = stay.into_iter();
    while count(&plan) > max_count {
        let Some(item) = stay.next() else { break };
        plan.add(item, DeletionReason::Count);
    }
    let anyway = plan.deletions.len();
    loop {
        let room = plan.freed >= need.room;
        let places = need.places == 0 || count(&plan) + need.places as usize <= max_count;
        plan.enough = room && places;
        if plan.enough {
            return plan;
        }
        let Some(item) = stay.next() else { break };
        plan.add(item, if room { DeletionReason::Count } else { need.reason });
    }
    plan.deletions.truncate(anyway);
    plan.freed = sum(plan.deletions.iter().map(|pick| pick.size));
    plan
}

/// What would go next if room were needed, and why: at most `limit` results.
#[must_use]
pub fn next(items: &[Item], policy: &Policy, now: Option<Timestamp>, limit: usize) -> Vec<Pick> {
    let mut plan = plan(items, policy, now, &Need::NONE);
    let mut order = by_age(items, now);
    order.sort_by_key(|item| eviction_order(item, policy));
    for item in order {
        if plan.deletions.len() >= limit {
            break;
        }
        if plan.deletions.iter().all(|pick| pick.execution != item.execution) {
            plan.add(item, DeletionReason::Quota);
        }
    }
    plan.deletions.truncate(limit);
    plan.deletions
}

/// What all that may go occupies.
#[must_use]
pub fn deletable(items: &[Item], now: Option<Timestamp>) -> Bytes {
    sum(items.iter().filter(|item| !item.is_held(now)).map(|item| item.size))
}

/// What may go, oldest first; those of one instant in the order of their ids.
fn by_age(items: &[Item], now: Option<Timestamp>) -> Vec<&Item> {
    let mut free: Vec<&Item> = items.iter().filter(|item| !item.is_held(now)).collect();
    free.sort_unstable_by_key(|item| (item.created, item.execution));
    free
}

/// The lower goes sooner. Sorting by it is stable: equals stay in the order of their age.
fn eviction_order(item: &Item, policy: &Policy) -> bool {
    policy.evict_first == EvictFirst::Fetched && !item.fetched
}

fn sum(sizes: impl Iterator<Item = Bytes>) -> Bytes {
    sizes.fold(Bytes::ZERO, Bytes::plus)
}

impl Plan {
    fn add(&mut self, item: &Item, reason: DeletionReason) {
        self.deletions.push(Pick { execution: item.execution, size: item.size, reason });
        self.freed = self.freed.plus(item.size);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000_000_000);

    fn item(n: u128, size: u64, age: u64) -> Item {
        Item {
            execution: Uuid::from_u128(n),
            size: Bytes(size),
            created: Timestamp(NOW.0 - i64::try_from(age).unwrap() * 1_000_000_000),
            retention: None,
            pin: None,
            in_use: false,
            fetched: false,
            undated: false,
        }
    }

    fn policy(retention: u64, max_count: u32) -> Policy {
        Policy { retention: Duration::from_secs(retention), max_count, evict_first: EvictFirst::Oldest }
    }

    fn need(room: u64, places: u32) -> Need {
        Need { room: Bytes(room), places, reason: DeletionReason::Quota }
    }

    fn went(plan: &Plan) -> Vec<(u128, DeletionReason)> {
        plan.deletions.iter().map(|pick| (pick.execution.as_u128(), pick.reason)).collect()
    }

    #[test]
    fn expired_then_count_then_oldest() {
        use DeletionReason::{Count, Expired, Quota};
        let mut items =
            vec![item(1, 10, 50), item(2, 10, 500), item(3, 10, 40), item(4, 10, 30), item(5, 10, 20)];
        items[4].retention = Some(Duration::from_secs(5));
        let plan = plan(&items, &policy(100, 2), Some(NOW), &need(35, 0));
        assert_eq!(went(&plan), [(2, Expired), (5, Expired), (1, Count), (3, Quota)]);
        assert!(plan.enough);
        assert_eq!(plan.freed, Bytes(40));
    }

    #[test]
    fn a_place_for_one_more_takes_the_oldest() {
        let items = [item(1, 10, 1), item(2, 10, 2)];
        let one = plan(&items, &policy(0, 2), Some(NOW), &need(0, 1));
        assert_eq!(went(&one), [(2, DeletionReason::Count)]);
        // Standing at the limit is no reason for anything to go.
        assert!(plan(&items, &policy(0, 2), Some(NOW), &Need::NONE).deletions.is_empty());
        let pinned = items.map(|item| Item { pin: Some(Pin { until: None }), ..item });
        assert!(!plan(&pinned, &policy(0, 2), Some(NOW), &need(0, 1)).enough);
    }

    #[test]
    fn what_was_fetched_goes_first_where_the_owner_wants_that() {
        use DeletionReason::{Count, Quota};
        let mut items = [item(1, 10, 50), item(2, 10, 40), item(3, 10, 30), item(4, 10, 20)];
        items[1].fetched = true;
        items[3].fetched = true;
        let oldest = policy(0, 3);
        assert_eq!(
            went(&plan(&items, &oldest, Some(NOW), &need(25, 0))),
            [(1, Count), (2, Quota), (3, Quota)]
        );
        let fetched = Policy { evict_first: EvictFirst::Fetched, ..oldest };
        assert_eq!(
            went(&plan(&items, &fetched, Some(NOW), &need(25, 0))),
            [(2, Count), (4, Quota), (1, Quota)]
        );
        let next: Vec<_> =
            super::next(&items, &fetched, Some(NOW), 4).iter().map(|p| p.execution.as_u128()).collect();
        assert_eq!(next, [2, 4, 1, 3]);
    }

    #[test]
    fn what_has_no_date_has_no_age() {
        let undated = Item { undated: true, ..item(1, 10, 1000) };
        assert!(plan(&[undated], &policy(1, 10), Some(NOW), &Need::NONE).deletions.is_empty());
        assert_eq!(
            went(&plan(&[undated], &policy(1, 10), Some(NOW), &need(5, 0))),
            [(1, DeletionReason::Quota)]
        );
    }

    #[test]
    fn without_a_trusted_clock_age_is_no_reason_and_pins_hold() {
        let mut items = [item(1, 10, 1000), item(2, 10, 900)];
        items[0].pin = Some(Pin { until: Some(Timestamp(0)) });
        assert!(plan(&items, &policy(1, 10), None, &Need::NONE).deletions.is_empty());
        assert_eq!(went(&plan(&items, &policy(1, 10), None, &need(5, 0))), [(2, DeletionReason::Quota)]);
        assert!(!plan(&items, &policy(1, 10), None, &need(15, 0)).enough);
        // With one, the pin has ended.
        assert_eq!(plan(&items, &policy(1, 10), Some(NOW), &Need::NONE).deletions.len(), 2);
    }

    #[test]
    fn a_result_from_the_future_is_not_expired() {
        let mut future = item(1, 10, 0);
        future.created = Timestamp(i64::MAX - 1);
        for now in [NOW, Timestamp(i64::MAX - 2)] {
            assert!(plan(&[future], &policy(1, 10), Some(now), &Need::NONE).deletions.is_empty());
        }
    }

    #[test]
    fn next_tells_what_goes_first() {
        let items = [item(1, 10, 10), item(2, 10, 500), item(3, 10, 20)];
        let next = next(&items, &policy(100, 10), Some(NOW), 2);
        let got: Vec<_> = next.iter().map(|pick| (pick.execution.as_u128(), pick.reason)).collect();
        assert_eq!(got, [(2, DeletionReason::Expired), (3, DeletionReason::Quota)]);
    }

    prop_compose! {
        fn any_item()(
            size in 0u64..1000,
            created in 0i64..2000,
            retention in proptest::option::of(0u64..1000),
            pin in proptest::option::weighted(0.2, proptest::option::of(0i64..2000)),
            in_use in proptest::bool::weighted(0.2),
            fetched in proptest::bool::ANY,
            undated in proptest::bool::weighted(0.1),
        ) -> Item {
            Item {
                execution: Uuid::nil(),
                size: Bytes(size),
                created: Timestamp(created),
                retention: retention.map(Duration::from_nanos),
                pin: pin.map(|until| Pin { until: until.map(Timestamp) }),
                in_use,
                fetched,
                undated,
            }
        }
    }

    prop_compose! {
        fn any_case()(
            mut items in proptest::collection::vec(any_item(), 0..40),
            retention in prop_oneof![Just(0u64), 0u64..1500],
            max_count in 0u32..50,
            fetched_first in proptest::bool::ANY,
            now in proptest::option::of(0i64..2500),
            room in 0u64..20_000,
            places in 0u32..3,
        ) -> (Vec<Item>, Policy, Option<Timestamp>, Need) {
            for (n, item) in items.iter_mut().enumerate() {
                item.execution = Uuid::from_u128(n as u128);
            }
            let evict_first = if fetched_first { EvictFirst::Fetched } else { EvictFirst::Oldest };
            let policy = Policy { retention: Duration::from_nanos(retention), max_count, evict_first };
            (items, policy, now.map(Timestamp), need(room, places))
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn the_rules_hold((items, policy, now, need) in any_case()) {
            let plan = plan(&items, &policy, now, &need);
            let picked = |pick: &Pick| &items[pick.execution.as_u128() as usize];

            // No two alike, sizes add up, nothing held goes.
            let mut ids: Vec<_> = plan.deletions.iter().map(|pick| pick.execution).collect();
            ids.sort();
            ids.dedup();
            prop_assert_eq!(ids.len(), plan.deletions.len());
            prop_assert_eq!(plan.freed.0, plan.deletions.iter().map(|pick| picked(pick).size.0).sum::<u64>());
            for pick in &plan.deletions {
                let item = picked(pick);
                prop_assert!(!item.in_use);
                let ended = |pin: Pin| pin.until.is_some_and(|until| now.is_some_and(|now| until <= now));
                prop_assert!(item.pin.is_none_or(ended));
            }

            // Expired come first and only if the time is known; later stages go by age.
            let stage = |pick: &Pick| usize::from(pick.reason != DeletionReason::Expired);
            prop_assert!(plan.deletions.is_sorted_by_key(stage));
            for pick in plan.deletions.iter().filter(|pick| pick.reason == DeletionReason::Expired) {
                let item = picked(pick);
                let retention = item.retention.unwrap_or(policy.retention);
                prop_assert!(!retention.is_zero() && !item.undated);
                prop_assert!(now.unwrap().since(item.created) >= retention);
            }
            for stage in [DeletionReason::Count, DeletionReason::Quota] {
                let order = plan.deletions.iter().filter(|pick| pick.reason == stage).map(|pick| {
                    let item = picked(pick);
                    (policy.evict_first == EvictFirst::Fetched && !item.fetched, item.created)
                });
                prop_assert!(order.is_sorted());
            }

            // The need: met when it says so, and then nothing went for it that did not have to.
            let left = items.len() - plan.deletions.len();
            let met = |freed: u64, left: usize| {
                freed >= need.room.0
                    && (need.places == 0 || left + need.places as usize <= policy.max_count as usize)
            };
            if plan.enough {
                prop_assert!(met(plan.freed.0, left));
                if let Some(last) = plan.deletions.last() {
                    let standing = left + 1 > policy.max_count as usize;
                    if last.reason != DeletionReason::Expired && !standing {
                        prop_assert!(!met(plan.freed.0 - last.size.0, left + 1));
                    }
                }
            } else {
                // Not even everything would do, and nothing went for it.
                let free = items.iter().filter(|item| !item.is_held(now)).count();
                prop_assert!(!met(deletable(&items, now).0, items.len() - free));
                let without = super::plan(&items, &policy, now, &Need::NONE);
                prop_assert_eq!(&plan.deletions, &without.deletions);
            }

            // The count holds as far as what is held allows.
            if left > policy.max_count as usize {
                let gone: Vec<_> = plan.deletions.iter().map(|pick| pick.execution).collect();
                prop_assert!(items.iter().all(|item| item.is_held(now) || gone.contains(&item.execution)));
            }
        }

        #[test]
        fn the_order_in_which_items_are_given_does_not_matter(
            (items, policy, now, need) in any_case(),
            turn in 0usize..40,
        ) {
            let mut turned = items.clone();
            turned.rotate_left(turn % items.len().max(1));
            turned.reverse();
            prop_assert_eq!(plan(&items, &policy, now, &need), plan(&turned, &policy, now, &need));
        }

        /// When the clock goes back, nothing expires that had not.
        #[test]
        fn a_clock_that_goes_back_expires_nothing_more((items, policy, now, _) in any_case(), back in 0i64..2500) {
            let Some(now) = now else { return Ok(()) };
            let expired = |now: Timestamp| -> Vec<Uuid> {
                items
                    .iter()
                    .filter(|item| item.is_expired(&policy, Some(now)))
                    .map(|item| item.execution)
                    .collect()
            };
            let later = expired(now);
            prop_assert!(expired(Timestamp(now.0 - back)).iter().all(|id| later.contains(id)));
        }
    }
}
