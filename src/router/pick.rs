//! Choosing a dyno.

use std::sync::Arc;

use crate::config::limits::LEAST_MAX;
use crate::model::{Balance, Hundredths};
use crate::router::clock::Tick;
use crate::router::random::Random;
use crate::table::{Dyno, Lease, Lineup};

/// What choosing came to.
pub(crate) enum Pick {
    /// A slot on the chosen dyno.
    Leased(Lease),
    /// Every dyno that this request has not tried is quarantined, the first until this tick.
    Quarantined(Tick),
    /// This request has tried every dyno there is (or there is none).
    Exhausted,
}

/// How a dyno is chosen.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choice {
    pub(crate) balance: Balance,
    /// Whether the share of those that have just come up is a part of that of the others.
    pub(crate) slow_start: bool,
}

/// Chooses among the routable dynos, without those that `tried` names by id and those in quarantine. The canary is
/// drawn for before all others, by its share alone; where it alone is left it has the request whatever that is.
pub(crate) fn pick(
    lineup: &Lineup,
    choice: Choice,
    tried: &[u64],
    now: Tick,
    random: &Random,
) -> Pick {
    let usable = |dyno: &Arc<Dyno>| dyno.quarantined_until() <= now && !tried.contains(&dyno.id());
    let Some(canary) = &lineup.canary else {
        return pick_equal(&lineup.dynos, choice, usable, tried, random);
    };
    let lease_canary = || Some(&canary.dyno).filter(|dyno| usable(dyno)).and_then(Dyno::lease);
    let is_drawn = random.below(Hundredths::ALL.0 as usize) < canary.share.0 as usize;
    if let Some(lease) = is_drawn.then(lease_canary).flatten() {
        return Pick::Leased(lease);
    }
    match pick_equal(&lineup.dynos, choice, usable, tried, random) {
        leased @ Pick::Leased(_) => leased,
        none => lease_canary().map_or(none, Pick::Leased),
    }
}

/// The same among those of which each is as good as the others.
fn pick_equal(
    dynos: &[Arc<Dyno>],
    choice: Choice,
    usable: impl Fn(&Arc<Dyno>) -> bool,
    tried: &[u64],
    random: &Random,
) -> Pick {
    let balanced = || choose(dynos, choice.balance, &usable, random);
    let drawn = if choice.slow_start {
        slowly(dynos, choice.balance, &usable, random).or_else(balanced)
    } else {
        balanced()
    };
    // A dyno that was closed since the line-up was read gives no lease; any other one will do.
    let others = || dynos.iter().filter(|dyno| usable(dyno)).find_map(Dyno::lease);
    match drawn.and_then(Dyno::lease).or_else(others) {
        Some(lease) => Pick::Leased(lease),
        None => {
            let untried =
                dynos.iter().filter(|dyno| !dyno.is_closed() && !tried.contains(&dyno.id()));
            let until = untried.map(|dyno| dyno.quarantined_until()).min();
            until.map_or(Pick::Exhausted, Pick::Quarantined)
        }
    }
}

fn choose<'a>(
    dynos: &'a [Arc<Dyno>],
    balance: Balance,
    usable: impl Fn(&Arc<Dyno>) -> bool,
    random: &Random,
) -> Option<&'a Arc<Dyno>> {
    match balance {
        Balance::P2c => two_choices(dynos, usable, random),
        Balance::Random => one_choice(dynos, usable, random),
        Balance::Least => least(dynos, usable, random),
    }
}

/// A dyno drawn at random if it is fresh, and its share says so; else one of the warm ones. `None`: none of these.
///
/// A fresh dyno is idle, so that whoever counts requests in flight would send it all there are. It gets its
/// share of an equal part instead, whatever the others hold.
fn slowly<'a>(
    dynos: &'a [Arc<Dyno>],
    balance: Balance,
    usable: impl Fn(&Arc<Dyno>) -> bool,
    random: &Random,
) -> Option<&'a Arc<Dyno>> {
    let is_warm = |dyno: &Arc<Dyno>| dyno.share() >= Dyno::FULL_SHARE;
    let drawn = dynos.get(random.below(dynos.len().max(1)))?;
    if !is_warm(drawn)
        && usable(drawn)
        && random.below(Dyno::FULL_SHARE as usize) < drawn.share() as usize
    {
        return Some(drawn);
    }
    choose(dynos, balance, |dyno| is_warm(dyno) && usable(dyno), random)
}

/// Of two distinct dynos drawn at random, the one with fewer requests in flight.
fn two_choices<'a>(
    dynos: &'a [Arc<Dyno>],
    usable: impl Fn(&Arc<Dyno>) -> bool,
    random: &Random,
) -> Option<&'a Arc<Dyno>> {
    let less_loaded = |first: &'a Arc<Dyno>, second: &'a Arc<Dyno>| {
        if second.in_flight() < first.in_flight() { second } else { first }
    };
    if dynos.is_empty() {
        return None;
    }
    let (first, second) = random.two_below(dynos.len());
    let (first, second) = (&dynos[first], &dynos[second]);
    match (usable(first), usable(second)) {
        (true, true) => Some(less_loaded(first, second)),
        (true, false) => Some(first),
        (false, true) => Some(second),
        // Both are out: draw among those that are not.
        (false, false) => {
            let rest: Vec<_> = dynos.iter().filter(|dyno| usable(dyno)).collect();
            if rest.is_empty() {
                return None;
            }
            let (first, second) = random.two_below(rest.len());
            Some(less_loaded(rest[first], rest[second]))
        }
    }
}

/// Drawn at random among the usable ones.
fn one_choice<'a>(
    dynos: &'a [Arc<Dyno>],
    usable: impl Fn(&Arc<Dyno>) -> bool,
    random: &Random,
) -> Option<&'a Arc<Dyno>> {
    let drawn = dynos.get(random.below(dynos.len().max(1)))?;
    if usable(drawn) {
        return Some(drawn);
    }
    let rest = dynos.iter().filter(|dyno| usable(dyno));
    let count = rest.clone().count();
    rest.clone().nth(random.below(count.max(1)))
}

/// The one with the fewest requests in flight among the first [`LEAST_MAX`] from a random start.
fn least<'a>(
    dynos: &'a [Arc<Dyno>],
    usable: impl Fn(&Arc<Dyno>) -> bool,
    random: &Random,
) -> Option<&'a Arc<Dyno>> {
    let start = random.below(dynos.len().max(1));
    let around = dynos.iter().cycle().skip(start).take(dynos.len());
    around.filter(|dyno| usable(dyno)).take(LEAST_MAX).min_by_key(|dyno| dyno.in_flight())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::{DynoAddr, DynoName, ProcessType};
    use crate::table::{Canary, Standing};

    const BALANCES: [Balance; 3] = [Balance::P2c, Balance::Random, Balance::Least];

    fn dynos(count: u32) -> Vec<Arc<Dyno>> {
        let name = |number| DynoName { process_type: ProcessType::web(), number };
        let addr = DynoAddr::parse("127.0.0.1:1").unwrap();
        (1..=count).map(|number| Dyno::new(name(number), addr.clone(), true)).collect()
    }

    fn line_up(dynos: &[Arc<Dyno>]) -> Lineup {
        Lineup { dynos: dynos.to_vec(), canary: None, ring: None, standing: Standing::Up }
    }

    /// The last of these is the canary.
    fn with_canary(dynos: &[Arc<Dyno>], share: u32) -> Lineup {
        let (canary, others) = dynos.split_last().unwrap();
        let canary = Canary { dyno: canary.clone(), share: Hundredths(share) };
        Lineup { canary: Some(canary), ..line_up(others) }
    }

    fn at_once(balance: Balance) -> Choice {
        Choice { balance, slow_start: false }
    }

    fn leased(pick: Pick) -> Option<Lease> {
        if let Pick::Leased(lease) = pick { Some(lease) } else { None }
    }

    proptest! {
        #[test]
        fn a_pick_is_usable_and_there_is_one_if_any_is(
            states in prop::collection::vec(0..5, 0..12), seed: u64, balance in 0_usize..3, slow_start: bool,
            canary in prop::option::of(1_u32..=5000),
        ) {
            let dynos = dynos(states.len() as u32);
            let mut tried = Vec::new();
            for (dyno, state) in dynos.iter().zip(&states) {
                match state {
                    1 => dyno.quarantine(100),
                    2 => tried.push(dyno.id()),
                    3 => dyno.close(),
                    4 => dyno.set_share(1),
                    _ => {}
                }
            }
            let random = Random::from_seed(seed);
            let share = canary.filter(|_| !dynos.is_empty());
            let lineup = share.map_or_else(|| line_up(&dynos), |share| with_canary(&dynos, share));
            let pick = pick(&lineup, Choice { balance: BALANCES[balance], slow_start }, &tried, 50, &random);
            let any_usable = states.contains(&0) || states.contains(&4);
            // A canary alone is waited for as if it were gone: it soon is, or is one of them.
            let waited_for = &states[..states.len() - usize::from(share.is_some())];
            let any_quarantined = waited_for.contains(&1);
            match pick {
                Pick::Leased(lease) => {
                    let at = dynos.iter().position(|dyno| dyno.id() == lease.dyno().id()).unwrap();
                    prop_assert!([0, 4].contains(&states[at]));
                    prop_assert_eq!(dynos[at].in_flight(), 1);
                }
                Pick::Quarantined(until) => {
                    prop_assert!(!any_usable && any_quarantined);
                    prop_assert_eq!(until, 100);
                }
                Pick::Exhausted => prop_assert!(!any_usable && !any_quarantined),
            }
        }

        #[test]
        fn no_dyno_starves_and_none_is_overloaded(count in 2_u32..9, seed: u64, balance in 0_usize..3) {
            let dynos = dynos(count);
            let random = Random::from_seed(seed);
            let mut counts = vec![0_u32; count as usize];
            for _ in 0..400 * count {
                // Each lease is returned at once, so that loads are equal and only the draw decides.
                let lease = leased(pick(&line_up(&dynos), at_once(BALANCES[balance]), &[], 0, &random)).unwrap();
                counts[dynos.iter().position(|dyno| dyno.id() == lease.dyno().id()).unwrap()] += 1;
            }
            for count in &counts {
                prop_assert!((200..=640).contains(count), "of 400 expected: {counts:?}");
            }
        }
    }

    /// How many of 4000 requests the fresh one of four dynos gets. `held`: requests that the others hold.
    fn fresh_of_four(balance: Balance, share: u32, held: usize, random: &Random) -> u32 {
        let dynos = dynos(4);
        dynos[2].set_share(share);
        let warm = dynos.iter().filter(|dyno| dyno.id() != dynos[2].id());
        let _held: Vec<_> =
            warm.flat_map(|dyno| (0..held).map(|_| dyno.lease().unwrap())).collect();
        let choice = Choice { balance, slow_start: true };
        let picks =
            (0..4000).map(|_| leased(pick(&line_up(&dynos), choice, &[], 0, random)).unwrap());
        let ids: Vec<_> = picks.map(|lease| lease.dyno().id()).collect();
        for dyno in &dynos {
            assert!(ids.contains(&dyno.id()), "{dyno:?} gets nothing");
        }
        ids.iter().filter(|id| **id == dynos[2].id()).count() as u32
    }

    proptest! {
        #[test]
        fn a_fresh_dyno_gets_its_share_and_no_more_however_idle_it_is(
            seed: u64, balance in 0_usize..3, share in 50_u32..950, held in 0_usize..20,
        ) {
            // A thousand is its fair part of four thousand; eight standard deviations of it are 220.
            let count = fresh_of_four(BALANCES[balance], share, held, &Random::from_seed(seed));
            prop_assert!(count.abs_diff(share) < 220, "{count} of {share}");
        }
    }

    proptest! {
        #[test]
        fn a_canary_gets_its_share_of_all_requests_whatever_the_others_are(
            seed: u64, balance in 0_usize..3, others in 1_u32..9, share in 100_u32..=5000, held in 0_usize..20, slow: bool,
        ) {
            let dynos = dynos(others + 1);
            dynos[0].set_share(if slow { 1 } else { Dyno::FULL_SHARE });
            let _held: Vec<_> = dynos[..others as usize].iter().flat_map(|dyno| (0..held).map(|_| dyno.lease().unwrap())).collect();
            let (lineup, random) = (with_canary(&dynos, share), Random::from_seed(seed));
            let choice = Choice { balance: BALANCES[balance], slow_start: slow };
            let picks = (0..10_000).map(|_| leased(pick(&lineup, choice, &[], 0, &random)).unwrap());
            let count = picks.filter(|lease| lineup.is_canary(lease.dyno())).count() as f64;
            // Eight standard deviations of a binomial distribution.
            let part = f64::from(share) / 10_000.0;
            let bound = 8.0 * (10_000.0 * part * (1.0 - part)).sqrt();
            prop_assert!((count - f64::from(share)).abs() < bound, "{count} of {share}");
        }
    }

    #[test]
    fn who_has_tried_the_canary_gets_another_and_who_has_tried_all_others_gets_it() {
        let dynos = dynos(3);
        let lineup = with_canary(&dynos, 5000);
        let others = [dynos[0].id(), dynos[1].id()];
        for seed in 0..200 {
            let of = |tried: &[u64]| {
                leased(pick(&lineup, at_once(Balance::P2c), tried, 0, &Random::from_seed(seed)))
            };
            assert!(!lineup.is_canary(of(&[dynos[2].id()]).unwrap().dyno()));
            assert!(lineup.is_canary(of(&others).unwrap().dyno()));
        }
    }

    #[test]
    fn where_all_dynos_are_fresh_they_are_equals() {
        let dynos = dynos(4);
        for dyno in &dynos {
            dyno.set_share(1);
        }
        let random = Random::from_seed(7);
        for balance in BALANCES {
            let choice = Choice { balance, slow_start: true };
            let picks =
                (0..400).map(|_| leased(pick(&line_up(&dynos), choice, &[], 0, &random)).unwrap());
            let ids: Vec<_> = picks.map(|lease| lease.dyno().id()).collect();
            for dyno in &dynos {
                let count = ids.iter().filter(|id| **id == dyno.id()).count();
                assert!((50..=160).contains(&count), "{balance:?}: {count} of 100 expected");
            }
        }
    }

    #[test]
    fn two_choices_are_distinct_and_prefer_the_less_loaded() {
        let dynos = dynos(2);
        let _busy = dynos[0].lease().unwrap();
        for seed in 0..500 {
            // With two dynos, distinct draws always see both: the idle one must win every time.
            let lease = leased(pick(
                &line_up(&dynos),
                at_once(Balance::P2c),
                &[],
                0,
                &Random::from_seed(seed),
            ))
            .unwrap();
            assert_eq!(lease.dyno().id(), dynos[1].id());
        }
    }

    #[test]
    fn held_leases_spread_evenly() {
        for (balance, spread) in [(Balance::P2c, 4), (Balance::Least, 1)] {
            let dynos = dynos(8);
            let random = Random::from_seed(7);
            let _leases: Vec<_> = (0..800)
                .map(|_| leased(pick(&line_up(&dynos), at_once(balance), &[], 0, &random)))
                .collect();
            let loads: Vec<_> = dynos.iter().map(|dyno| dyno.in_flight()).collect();
            let (least, most) = (loads.iter().min().unwrap(), loads.iter().max().unwrap());
            assert!(most - least <= spread, "{balance:?}: {loads:?}");
        }
    }
}
