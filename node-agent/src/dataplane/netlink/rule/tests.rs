use netlink_packet_core::DefaultNla;
use netlink_packet_route::rule::RulePortRange;

use super::super::testing::{frame, sent, told, with_attribute};
use super::*;

const FRA_DSCP: u16 = 25;
const FRA_SPORT_RANGE: u16 = 23;

pub(crate) fn by_mark() -> Rule {
    Rule { priority: 1200, table: 20_001, mark: Some((1, 0xbf)), source: None, destination: None }
}

fn rules() -> [Rule; 4] {
    let plain = Rule { mark: None, ..by_mark() };
    [
        by_mark(),
        Rule { mark: Some((0, 0xbf)), ..plain },
        Rule { source: Some([10, 0, 1, 20].into()), ..plain },
        Rule { table: 254, destination: Some([10, 0, 1, 20].into()), ..plain },
    ]
}

#[test]
fn a_rule_of_ours_claims_to_be_the_kernels() {
    for rule in rules() {
        let (request, flags) = sent(|batch| push_add(batch, rule));
        assert_eq!(flags & (NLM_F_CREATE | NLM_F_EXCL), NLM_F_CREATE | NLM_F_EXCL);
        let RouteNetlinkMessage::NewRule(message) = &request else { panic!("{request:?}") };
        assert!(message.attributes.contains(&RuleAttribute::Protocol(RouteProtocol::Kernel)));
        assert_eq!(parse(&frame(&told(request))), Some(rule), "{rule}");
    }
}

#[test]
fn a_rule_that_goes_is_named_by_what_makes_it_out() {
    for rule in rules() {
        let (request, _) = sent(|batch| push_delete(batch, rule));
        let RouteNetlinkMessage::DelRule(message) = &request else { panic!("{request:?}") };
        assert!(!message.attributes.iter().any(|attribute| matches!(attribute, RuleAttribute::Protocol(_))));
        assert_eq!(parse(&frame(&told(request))), Some(rule), "{rule}");
    }
}

#[test]
fn a_mark_of_zero_that_is_left_out_is_still_a_condition() {
    let marked = Rule { mark: Some((0, 0xbf)), ..by_mark() };
    let (request, _) = sent(|batch| push_add(batch, marked));
    let RouteNetlinkMessage::NewRule(mut message) = request else { panic!("{request:?}") };
    message.attributes.retain(|attribute| !matches!(attribute, RuleAttribute::FwMark(_)));
    assert_eq!(parse(&frame(&told(RouteNetlinkMessage::NewRule(message)))), Some(marked));
}

#[test]
fn a_rule_with_an_unknown_condition_is_none_of_ours() {
    let spoilers: [fn(&mut RuleMessage); 8] = [
        |message| message.header.flags |= RuleFlags::Invert,
        |message| message.header.tos = 16,
        |message| message.header.src_len = 24,
        |message| message.header.action = RuleAction::Blackhole,
        |message| message.attributes.push(RuleAttribute::Iifname("eth0".into())),
        |message| message.attributes.push(RuleAttribute::SuppressPrefixLen(0)),
        |message| message.attributes.push(RuleAttribute::SourcePortRange(RulePortRange { start: 80, end: 80 })),
        |message| message.attributes.push(RuleAttribute::Other(DefaultNla::new(FRA_DSCP, vec![10]))),
    ];
    for (number, spoil) in spoilers.iter().enumerate() {
        let (request, _) = sent(|batch| push_add(batch, by_mark()));
        let RouteNetlinkMessage::NewRule(mut message) = request else { panic!("{request:?}") };
        spoil(&mut message);
        assert_eq!(parse(&frame(&told(RouteNetlinkMessage::NewRule(message)))), None, "{number}");
    }
    // Not even when the condition does not parse.
    let plain = told(sent(|batch| push_add(batch, by_mark())).0);
    assert_eq!(parse(&frame(&with_attribute(plain, FRA_SPORT_RANGE, &[1]))), None);
}

#[test]
fn what_the_kernel_says_of_every_rule_is_no_condition() {
    let (request, _) = sent(|batch| push_add(batch, by_mark()));
    let RouteNetlinkMessage::NewRule(mut message) = request else { panic!("{request:?}") };
    message.attributes.push(RuleAttribute::SuppressPrefixLen(u32::MAX));
    assert_eq!(parse(&frame(&told(RouteNetlinkMessage::NewRule(message)))), Some(by_mark()));
}
