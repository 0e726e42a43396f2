use super::*;

fn eni(n: u32) -> EniId {
    format!("eni-{n}").parse().unwrap()
}

fn ip(last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, last)
}

fn key(container: &str) -> AttachmentKey {
    AttachmentKey::new("enipool", container, "eth0")
}

fn at(seconds: u64) -> Timestamp {
    Timestamp(1_700_000_000_000).plus(Duration::from_secs(seconds))
}

fn ledger(enis: &[(u32, &[u8])]) -> Ledger {
    let mut ledger = Ledger::new(DEFAULT_COOLDOWN);
    for (device, addresses) in enis {
        ledger.add_eni(&eni(*device), *device);
        let addresses: Vec<_> = addresses.iter().map(|last| ip(*last)).collect();
        ledger.add_addresses(&eni(*device), &addresses).unwrap();
        ledger.set_open(&eni(*device), true);
    }
    ledger
}

fn take(ledger: &mut Ledger, container: &str, now: Timestamp) -> Option<Lease> {
    match ledger.acquire(&key(container), &PodRef::default(), now) {
        Acquired::New(lease) | Acquired::Again(lease) => Some(lease),
        Acquired::Empty => None,
    }
}

#[test]
fn the_same_add_twice_gets_the_same_answer() {
    let mut ledger = ledger(&[(0, &[5, 6])]);
    let first = take(&mut ledger, "a", at(0)).unwrap();
    let again = ledger.acquire(&key("a"), &PodRef::default(), at(9));
    assert_eq!(again, Acquired::Again(first));
    assert_eq!(ledger.totals().assigned, 1);
}

#[test]
fn a_released_address_rests_before_another_pod_has_it() {
    let mut ledger = ledger(&[(0, &[5])]);
    let lease = take(&mut ledger, "a", at(0)).unwrap();
    let (released, rest) = ledger.release(&key("a"), at(10)).unwrap();
    assert_eq!((released.address, rest.until), (lease.address, at(40)));
    assert_eq!(ledger.totals(), Counts { total: 1, cooling: 1, ..Counts::default() });
    assert_eq!(take(&mut ledger, "b", at(39)), None);
    assert_eq!(ledger.next_expiry(), Some(at(40)));
    assert_eq!(take(&mut ledger, "b", at(40)).unwrap().address, ip(5));
}

#[test]
fn deleting_what_nobody_knows_is_fine() {
    let mut ledger = ledger(&[(0, &[5])]);
    assert_eq!(ledger.release(&key("never"), at(0)), None);
}

#[test]
fn a_late_delete_of_the_old_sandbox_leaves_the_new_one_alone() {
    let mut ledger = ledger(&[(0, &[5, 6])]);
    let old = take(&mut ledger, "old", at(0)).unwrap();
    ledger.release(&key("old"), at(1)).unwrap();
    let new = take(&mut ledger, "new", at(60)).unwrap();
    assert_ne!(new.address, old.address, "the address that has rested longest goes first");
    assert_eq!(ledger.release(&key("old"), at(61)), None);
    assert_eq!(ledger.lookup(&key("new")), Some(new));
}

#[test]
fn pods_fill_the_primary_first_and_then_the_fullest_interface() {
    let mut ledger = ledger(&[(0, &[5]), (1, &[11, 12]), (2, &[21, 22])]);
    assert_eq!(take(&mut ledger, "a", at(0)).unwrap().device_index, 0);
    ledger.adopt(key("x"), PodRef::default(), ip(21), eni(2), at(0)).unwrap();
    assert_eq!(take(&mut ledger, "b", at(0)).unwrap().device_index, 2);
    assert_eq!(take(&mut ledger, "c", at(0)).unwrap().device_index, 1);
}

#[test]
fn an_interface_that_is_to_run_empty_serves_only_when_no_other_can() {
    let mut ledger = ledger(&[(1, &[11]), (2, &[21])]);
    ledger.adopt(key("x"), PodRef::default(), ip(99), eni(1), at(0)).unwrap();
    ledger.set_draining(&[eni(1)]);
    assert_eq!(take(&mut ledger, "a", at(0)).unwrap().device_index, 2);
    assert_eq!(take(&mut ledger, "b", at(0)).unwrap().device_index, 1);
}

#[test]
fn a_prefix_in_use_is_filled_before_a_fresh_one_is_touched() {
    let mut ledger = ledger(&[(0, &[])]);
    let prefixes: Vec<Prefix> = ["10.0.1.0/28", "10.0.1.16/28"].map(|text| text.parse().unwrap()).to_vec();
    ledger.add_prefixes(&eni(0), &prefixes).unwrap();
    let first = take(&mut ledger, "0", at(0)).unwrap().address;
    for n in 1..16 {
        let next = take(&mut ledger, &n.to_string(), at(0)).unwrap().address;
        assert_eq!(Prefix::containing(next), Prefix::containing(first));
    }
    let next = take(&mut ledger, "16", at(0)).unwrap().address;
    assert_ne!(Prefix::containing(next), Prefix::containing(first));
}

#[test]
fn an_address_that_is_in_use_or_rests_cannot_be_withdrawn() {
    let mut ledger = ledger(&[(0, &[5, 6, 7])]);
    let held = take(&mut ledger, "a", at(0)).unwrap().address;
    let rests = take(&mut ledger, "b", at(0)).unwrap().address;
    ledger.release(&key("b"), at(0));
    assert!(matches!(ledger.withdraw(&[held], at(1)), Err(LedgerError::Held { .. })));
    assert_eq!(ledger.withdraw(&[rests], at(1)), Err(LedgerError::Cooling(rests)));
    let free: Vec<_> = ledger.free_singles(&eni(0)).collect();
    ledger.withdraw(&free, at(1)).unwrap();
    assert_eq!(take(&mut ledger, "c", at(1)), None, "withdrawn addresses are nobody's");
    ledger.restore(&eni(0), &free);
    assert!(take(&mut ledger, "c", at(1)).is_some());
}

#[test]
fn a_pod_keeps_its_lease_when_its_address_vanishes_and_when_it_returns() {
    let mut ledger = ledger(&[(0, &[5])]);
    let lease = take(&mut ledger, "a", at(0)).unwrap();
    ledger.lose(&eni(0), &[lease.address]);
    assert_eq!(ledger.strays().count(), 1);
    assert_eq!(ledger.lookup(&key("a")), Some(lease.clone()));
    ledger.add_addresses(&eni(0), &[lease.address]).unwrap();
    assert_eq!(ledger.strays().count(), 0);
    assert_eq!(take(&mut ledger, "b", at(99)), None, "the address is still a's");
}

#[test]
fn an_address_that_comes_back_while_it_rests_goes_on_resting() {
    let mut ledger = ledger(&[(0, &[5])]);
    take(&mut ledger, "a", at(0)).unwrap();
    ledger.lose(&eni(0), &[ip(5)]);
    ledger.release(&key("a"), at(1));
    ledger.add_addresses(&eni(0), &[ip(5)]).unwrap();
    assert_eq!(take(&mut ledger, "b", at(30)), None);
    assert!(take(&mut ledger, "b", at(31)).is_some());
}

#[test]
fn a_clock_set_back_does_not_lengthen_a_rest_beyond_one_cooldown() {
    let mut ledger = ledger(&[(0, &[5])]);
    ledger.cool(ip(5), Rest { until: at(100_000), period: DEFAULT_COOLDOWN }, at(0));
    assert_eq!(ledger.next_expiry(), Some(at(30)));
}

#[test]
fn an_address_has_one_holder() {
    let mut ledger = ledger(&[(0, &[5])]);
    ledger.adopt(key("a"), PodRef::default(), ip(5), eni(0), at(0)).unwrap();
    let second = ledger.adopt(key("b"), PodRef::default(), ip(5), eni(0), at(0));
    assert!(matches!(second, Err(LedgerError::Held { .. })));
}

#[test]
fn an_address_that_another_interface_has_keeps_none_of_its_neighbours_out() {
    let mut ledger = ledger(&[(0, &[6]), (1, &[])]);
    let second = ledger.add_addresses(&eni(1), &[ip(5), ip(6), ip(7)]);
    assert_eq!(second, Err(LedgerError::Elsewhere(ip(6))));
    assert_eq!(ledger.counts(&eni(0)).unwrap().total, 1);
    assert_eq!(ledger.counts(&eni(1)).unwrap().total, 2);
}

#[test]
fn an_interface_loses_and_sets_aside_only_what_it_has() {
    let mut ledger = ledger(&[(0, &[5]), (1, &[7])]);
    ledger.lose(&eni(1), &[ip(5), ip(7)]);
    ledger.set_aside(&eni(1), ip(5));
    assert_eq!(ledger.state(ip(7)), None);
    assert_eq!(take(&mut ledger, "a", at(0)).unwrap().address, ip(5));
    ledger.lose(&eni(1), &[ip(5)]);
    assert_eq!(ledger.strays().count(), 0);
}
