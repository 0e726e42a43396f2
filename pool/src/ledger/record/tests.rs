use super::*;

#[test]
fn the_checksum_is_the_well_known_one() {
    assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
}

fn released(container: &str) -> Record {
    let key = AttachmentKey::new("enipool", container, "eth0");
    Record::Released { key, until: Timestamp(42), period: Duration::from_secs(30) }
}

#[test]
fn a_rest_is_as_long_as_it_was_begun_whatever_the_period_is_when_the_journal_is_read() {
    let (address, key) = (Ipv4Addr::new(10, 0, 0, 5), AttachmentKey::new("enipool", "a", "eth0"));
    let (begun, period) = (Timestamp(1_000_000), Duration::from_secs(300));
    let mut ledger = Ledger::new(period);
    ledger.adopt(key.clone(), PodRef::default(), address, "eni-1".parse().unwrap(), begun).unwrap();
    let (lease, Rest { until, period }) = ledger.release(&key, begun).unwrap();
    let assigned = Record::Assigned { key: key.clone(), pod: PodRef::default(), address, eni: lease.eni, at: begun };
    let mut recovered = Recovered::from_records([assigned, Record::Released { key, until, period }]);
    // Twice: the second reads what the first wrote anew.
    for _ in 0..2 {
        let mut flags = Ledger::new(Duration::from_secs(30));
        recovered.enter(&mut flags, begun);
        assert_eq!(flags.next_expiry(), Some(begun.plus(period)));
        let records = recovered.records(begun, Duration::ZERO).into_iter();
        recovered = Recovered::from_records(records.map(|r| Record::decode(r.encode().unwrap().trim()).unwrap()));
    }
}

#[test]
fn a_rest_that_an_older_agent_wrote_down_is_not_cut_by_a_shorter_period() {
    let json = r#"{"is":"cooling","address":"10.0.0.5","until":300000}"#;
    let record = Record::decode(&format!("{:08x} {json}", crc32(json.as_bytes()))).unwrap();
    let mut ledger = Ledger::new(Duration::from_secs(30));
    Recovered::from_records([record]).enter(&mut ledger, Timestamp(0));
    assert_eq!(ledger.next_expiry(), Some(Timestamp(300_000)));
}

#[test]
fn a_journal_cut_at_any_byte_yields_the_records_before_the_cut() {
    let lines: Vec<String> = (0..3).map(|n| released(&format!("c{n}")).encode().unwrap()).collect();
    let whole = lines.concat();
    for cut in 0..=whole.len() {
        let reading = read(&whole.as_bytes()[..cut]);
        let mut complete = 0;
        let mut bytes = 0;
        for line in &lines {
            if bytes + line.len() <= cut {
                complete += 1;
                bytes += line.len();
            }
        }
        assert_eq!(reading.records.len(), complete, "cut at {cut}");
        assert_eq!(reading.valid_bytes, bytes);
        assert_eq!(reading.torn, bytes != cut);
        assert_eq!(reading.damaged, 0);
    }
}

#[test]
fn a_journal_of_another_version_is_not_read() {
    let opened = |version| Record::Opened { version, instance: "i-1".parse().unwrap(), at: Timestamp(1), uptime: None };
    let of = |version| [opened(version), released("a")].map(|record| record.encode().unwrap()).concat();
    assert_eq!(read(of(VERSION).as_bytes()).records.len(), 2);
    let other = read(of(VERSION + 1).as_bytes());
    assert_eq!((other.records.len(), other.damaged, other.other_version), (0, 0, Some(VERSION + 1)));
    // Whatever else the opening of another version says.
    let json = format!(r#"{{"is":"opened","version":{},"node":"n"}}"#, VERSION + 1);
    let strange = format!("{:08x} {json}\n{}", crc32(json.as_bytes()), released("a").encode().unwrap());
    assert_eq!(read(strange.as_bytes()).other_version, Some(VERSION + 1));
}

#[test]
fn times_follow_a_clock_that_was_set_and_nothing_else() {
    let opened = |uptime: Option<u64>| Record::Opened {
        version: VERSION,
        instance: "i-1".parse().unwrap(),
        at: Timestamp(1_000_000),
        uptime: uptime.map(Timestamp),
    };
    let address = Ipv4Addr::new(10, 0, 0, 1);
    let cooling = Record::Cooling { address, until: Timestamp(1_050_000), period: Duration::from_secs(30) };
    let after = |uptime, now: (u64, u64)| {
        let mut sum = Recovered::from_records([opened(uptime), cooling.clone()]);
        let ahead = sum.follow_clock(Moment { at: Timestamp(now.0), uptime: Timestamp(now.1) });
        (ahead, sum.cooling[&address].until.0)
    };
    assert_eq!(after(Some(5000), (1_040_000, 45_000)), (0, 1_050_000), "forty seconds have passed");
    assert_eq!(after(Some(5000), (1_040_900, 45_000)), (0, 1_050_000), "slewed");
    assert_eq!(after(Some(5000), (4_640_000, 45_000)), (3_600_000, 4_650_000), "set an hour ahead");
    assert_eq!(after(Some(5000), (540_000, 45_000)), (-500_000, 550_000), "set back");
    assert_eq!(after(None, (4_640_000, 45_000)), (0, 1_050_000), "an older agent's journal");
    assert_eq!(after(Some(50_000), (4_640_000, 45_000)), (0, 1_050_000), "another boot");
}

#[test]
fn a_flipped_bit_costs_one_record_and_is_counted() {
    let mut bytes = [released("a"), released("b"), released("c")].map(|r| r.encode().unwrap()).concat().into_bytes();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let reading = read(&bytes);
    assert_eq!(reading.records, [released("a"), released("c")]);
    assert_eq!((reading.damaged, reading.torn), (1, false));
}
