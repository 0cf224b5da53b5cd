//! The exact text for people.

use jiff::tz::TimeZone;
use probe_common::wire::BogusFrameReason;
use probe_model::{
    AnnouncementKind, AnnouncementMode, BogusReason, CauseKind, CauseScope, CountsRecord, Evidence,
    Hint, NamespacedName, OwnerRole,
};

use super::*;

const A: &str = "02:00:00:00:00:0a";
const B: &str = "02:00:00:00:00:0b";
const DELL: &str = "d0:8e:79:00:00:01";

fn at(text: &str) -> Timestamp {
    format!("2026-11-20T{text}Z").parse().unwrap()
}

fn owner(role: OwnerRole, mac: &str, claims: u64, first: &str, last: &str) -> OwnerRecord {
    OwnerRecord {
        macs: vec![mac.parse().unwrap()],
        vendor: None,
        node: None,
        role,
        local: false,
        announcement: AnnouncementKind::None,
        first_seen: at(first),
        last_seen: at(last),
        claims,
    }
}

fn finding(finding: FindingKind, severity: Severity, owners: Vec<OwnerRecord>) -> FindingRecord {
    FindingRecord {
        time: at("02:13:07"),
        finding,
        severity,
        interface: "eth0".to_owned(),
        vlan: Vlan::UNTAGGED,
        segment: None,
        drill: false,
        ip: "192.0.2.10".parse().unwrap(),
        since: at("02:13:06"),
        owners,
        evidence: None,
        counts: CountsRecord::default(),
        hint: None,
        reason: None,
        cluster: None,
    }
}

fn two() -> Vec<OwnerRecord> {
    vec![
        owner(OwnerRole::Current, B, 3, "02:13:05", "02:13:07"),
        owner(OwnerRole::Earlier, DELL, 9, "01:00:00", "02:13:07"),
    ]
}

fn conflict(evidence: Evidence) -> FindingRecord {
    FindingRecord {
        evidence: Some(evidence),
        counts: CountsRecord {
            duplicate_replies: 1,
            ..CountsRecord::default()
        },
        ..finding(FindingKind::Conflict, Severity::Critical, two())
    }
}

fn at_width(width: usize, record: &FindingRecord) -> String {
    let terminal = Terminal::new(width, TimeZone::UTC, FindingOrigin::Attached);
    let mut out = Vec::new();
    terminal.finding(&mut out, record).unwrap();
    let text = String::from_utf8(out).unwrap();
    anstream::adapter::strip_str(&text).to_string()
}

#[track_caller]
fn reads(record: &FindingRecord, expected: &str) {
    let shown = at_width(80, record);
    assert_eq!(shown, expected.trim_start_matches('\n'), "\n{shown}");
    for line in shown.lines() {
        assert!(layout::width_of(line) <= 80, "{line}");
    }
}

#[test]
fn a_new_binding_is_one_line() {
    let owners = vec![owner(OwnerRole::Current, DELL, 1, "02:13:07", "02:13:07")];
    reads(
        &finding(FindingKind::NewBinding, Severity::Info, owners),
        "
02:13:07  new_binding        192.0.2.10       eth0  d0:8e:79:00:00:01  Dell Inc.
",
    );
}

#[test]
fn move_shows_old_and_new_owner() {
    reads(
        &finding(FindingKind::Moved, Severity::Notice, two()),
        "
02:13:07  moved              192.0.2.10       eth0
          Another host owns this address now, and the previous owner does not
          reply: a failover, or the address was moved.
          owner     02:00:00:00:00:0b  made up (VM, container or bond)
                    3 claims since 02:13:05, last 02:13:07
          previous  d0:8e:79:00:00:01  Dell Inc.
                    9 claims since 01:00:00, last 02:13:07
          since     02:13:06
          next      if it was not moved on purpose, identify the host that has
                    it now:
                    ip neigh | grep -e 02:00:00:00:00:0b
",
    );
}

#[test]
fn a_conflict_names_the_address_both_owners_and_the_next_command() {
    reads(
        &conflict(Evidence::DuplicateReply),
        "
02:13:07  conflict           192.0.2.10       eth0
          Critical: two hosts reply for this address; they replied to the same
          request.
          owner 1   02:00:00:00:00:0b  made up (VM, container or bond)
                    3 claims since 02:13:05, last 02:13:07
          owner 2   d0:8e:79:00:00:01  Dell Inc.
                    9 claims since 01:00:00, last 02:13:07
          since     02:13:06; 1 request with two replies
          next      identify the hosts, and take the address off all but one:
                    ip neigh | grep -e 02:00:00:00:00:0b -e d0:8e:79:00:00:01
",
    );
}

#[test]
fn conflict_with_this_host_marks_the_local_owner() {
    let mut record = conflict(Evidence::Local);
    record.owners[1].local = true;
    record.owners[1].claims = 0;
    record.vlan = Vlan([100, 0]);
    reads(
        &record,
        "
02:13:07  conflict           192.0.2.10       eth0 vlan 100
          Critical: two hosts claim this address; this host owns it, and another
          host continues to claim it.
          owner 1   02:00:00:00:00:0b  made up (VM, container or bond)
                    3 claims since 02:13:05, last 02:13:07
          owner 2   d0:8e:79:00:00:01  this host, Dell Inc.
                    since 01:00:00
          since     02:13:06; 1 request with two replies
          next      see where this host has it; take it off here, or off the
                    other machine:
                    ip address show to 192.0.2.10
",
    );
}

#[test]
fn contested_virtual_mac_hints_at_two_vrrp_masters() {
    let record = FindingRecord {
        hint: Some(Hint::TwoMasters),
        vlan: Vlan([100, 0]),
        counts: CountsRecord {
            returns: 2,
            suppressed: 3,
            ..CountsRecord::default()
        },
        since: "2026-11-19T23:59:59Z".parse().unwrap(),
        ..finding(
            FindingKind::Contested,
            Severity::Warning,
            vec![owner(
                OwnerRole::Current,
                "00:00:5e:00:01:33",
                4,
                "02:13:05",
                "02:13:07",
            )],
        )
    };
    reads(
        &record,
        "
02:13:07  contested          192.0.2.10       eth0 vlan 100
          Warning: ownership of this address is flapping, with less evidence
          than a conflict needs: a restart, a failback, or the start of a
          conflict.
          owner     00:00:5e:00:01:33  virtual router (VRRP or CARP), group 51
                    4 claims since 02:13:05, last 02:13:07
          since     2026-11-19 23:59:59; 2 flaps, 3 more suppressed
          hint      two routers are master at once (VRRP, CARP, HSRP): they do
                    not receive each other's advertisements
          next      see who says that it is master; two sources are two masters:
                    tcpdump -c 10 -nvi eth0 vlan 100 and ip proto 112
",
    );
}

#[test]
fn resolution_shows_whether_it_is_confirmed() {
    let one = || vec![owner(OwnerRole::Current, B, 3, "02:13:05", "02:13:07")];
    reads(
        &finding(FindingKind::ConflictQuiet, Severity::Notice, two()),
        "
02:13:07  conflict_quiet     192.0.2.10       eth0
          No new evidence recently, and not confirmed resolved: the conflict
          stays open.
          owner 1   02:00:00:00:00:0b  made up (VM, container or bond)
                    3 claims since 02:13:05, last 02:13:07
          owner 2   d0:8e:79:00:00:01  Dell Inc.
                    9 claims since 01:00:00, last 02:13:07
          since     02:13:06
          next      a silent duplicate answers only when asked:
                    probe check -i eth0 192.0.2.10
",
    );
    reads(
        &finding(FindingKind::ConflictResolved, Severity::Notice, one()),
        "
02:13:07  conflict_resolved  192.0.2.10       eth0
          The conflict is resolved: exactly one owner replied to two rounds of
          probes.
          owner     02:00:00:00:00:0b  made up (VM, container or bond)
                    3 claims since 02:13:05, last 02:13:07
          since     02:13:06
          next      nothing, or see whether it stays so:
                    probe check -i eth0 --for 60s 192.0.2.10
",
    );
    reads(
        &finding(FindingKind::ConflictExpired, Severity::Notice, one()),
        "
02:13:07  conflict_expired   192.0.2.10       eth0
          The conflict has expired: no second owner has claimed the address for
          a long time.
          owner     02:00:00:00:00:0b  made up (VM, container or bond)
                    3 claims since 02:13:05, last 02:13:07
          since     02:13:06
          next      a silent duplicate answers only when asked:
                    probe check -i eth0 192.0.2.10
",
    );
}

#[test]
fn denied_probe_shows_prober_and_owner() {
    let mut owners = vec![owner(OwnerRole::Current, B, 3, "02:13:05", "02:13:07")];
    owners.push(owner(OwnerRole::Prober, A, 0, "02:13:07", "02:13:07"));
    reads(
        &finding(FindingKind::ProbeDenied, Severity::Info, owners),
        "
02:13:07  probe_denied       192.0.2.10       eth0
          A host probed this address before using it, and the owner replied: the
          address is in use.
          owner     02:00:00:00:00:0b  made up (VM, container or bond)
                    3 claims since 02:13:05, last 02:13:07
          probed by 02:00:00:00:00:0a  made up (VM, container or bond)
                    at 02:13:07
          next      give the probing host another address; to identify it:
                    ip neigh | grep -e 02:00:00:00:00:0a
",
    );
}

#[test]
fn bogus_claim_shows_its_reason() {
    let record = FindingRecord {
        reason: Some(BogusReason::Frame(BogusFrameReason::ShaBroadcast)),
        counts: CountsRecord {
            suppressed: 4,
            ..CountsRecord::default()
        },
        ..finding(
            FindingKind::BogusClaim,
            Severity::Warning,
            vec![owner(OwnerRole::Sender, DELL, 0, "02:13:07", "02:13:07")],
        )
    };
    reads(
        &record,
        "
02:13:07  bogus_claim        192.0.2.10       eth0
          Warning: invalid claim: its sender MAC is the broadcast address.
          sent by   d0:8e:79:00:00:01  Dell Inc.
                    at 02:13:07
          counted   4 more suppressed
          next      identify the host that sends these frames:
                    ip neigh | grep -e d0:8e:79:00:00:01
",
    );
}

#[test]
fn a_foreign_source_names_the_mac_that_is_claimed_and_the_one_that_sends() {
    let mut owners = vec![owner(OwnerRole::Current, B, 3, "02:13:05", "02:13:07")];
    owners.push(owner(OwnerRole::Sender, A, 0, "02:13:07", "02:13:07"));
    reads(
        &finding(FindingKind::SourceMismatch, Severity::Info, owners),
        "
02:13:07  source_mismatch    192.0.2.10       eth0
          Claims for this address name one MAC and come from another: a proxy, a
          bond, a load balancer, or a forged claim.
          owner     02:00:00:00:00:0b  made up (VM, container or bond)
                    3 claims since 02:13:05, last 02:13:07
          sent by   02:00:00:00:00:0a  made up (VM, container or bond)
                    at 02:13:07
          next      identify the host that sends these frames:
                    ip neigh | grep -e 02:00:00:00:00:0a
",
    );
}

#[test]
fn silent_finding_shows_the_time_of_the_last_claim() {
    let owners = vec![owner(OwnerRole::Current, B, 3, "02:13:05", "02:13:06")];
    reads(
        &finding(FindingKind::Silent, Severity::Warning, owners),
        "
02:13:07  silent             192.0.2.10       eth0
          Warning: no host claims this address or replies for it any more.
          owner     02:00:00:00:00:0b  made up (VM, container or bond)
                    3 claims since 02:13:05, last 02:13:06
          since     02:13:06
          next      ask for it:
                    probe check -i eth0 192.0.2.10
",
    );
}

#[test]
fn wrapped_lines_keep_every_word() {
    let mut record = conflict(Evidence::Confirmed);
    record.hint = Some(Hint::IpvsStrictArp);
    record
        .owners
        .push(owner(OwnerRole::Earlier, A, 1, "02:13:05", "02:13:07"));
    let expected = "
02:13:07  conflict           192.0.2.10       eth0
          Critical: 3 hosts reply for this address; each of
          them replied to probes.
          owner 1   02:00:00:00:00:0b  made up (VM, contain…
                    3 claims since 02:13:05, last 02:13:07
          owner 2   d0:8e:79:00:00:01  Dell Inc.
                    9 claims since 01:00:00, last 02:13:07
          owner 3   02:00:00:00:00:0a  made up (VM, contain…
                    1 claim, at 02:13:07
          since     02:13:06; 1 request with two replies
          hint      many hosts reply, possibly kube-proxy in
                    IPVS mode: without strictARP every node
                    replies for every service address
          next      in Kubernetes, see that strictARP is
                    true:
                    kubectl -n kube-system get configmap \\
                    kube-proxy -o yaml | grep strictARP
";
    let shown = at_width(60, &record);
    assert_eq!(shown, expected.trim_start_matches('\n'), "\n{shown}");
    for width in 60..200 {
        let widest = at_width(width, &record).lines().map(layout::width_of).max();
        assert!(widest <= Some(width), "{width}");
    }
    assert_eq!(at_width(120, &record), at_width(500, &record));
}

#[test]
fn all_findings_evidence_and_hints_fit_all_widths() {
    for &kind in FindingKind::ALL {
        for evidence in Evidence::ALL.iter().copied().map(Some).chain([None]) {
            for hint in Hint::ALL.iter().copied().map(Some).chain([None]) {
                let record = FindingRecord {
                    evidence,
                    hint,
                    vlan: Vlan([4094, 4093]),
                    ip: "192.168.122.254".parse().unwrap(),
                    interface: "enp129s0f0np0".to_owned(),
                    ..finding(kind, Severity::Critical, two())
                };
                for width in [60, 80, 100] {
                    for line in at_width(width, &record).lines().skip(1) {
                        assert!(layout::width_of(line) <= width, "{kind} {hint:?}: {line}");
                    }
                }
            }
        }
    }
}

#[test]
fn colour_carries_no_information_of_its_own() {
    let terminal = Terminal::new(80, TimeZone::UTC, FindingOrigin::Attached);
    let mut out = Vec::new();
    terminal
        .finding(&mut out, &conflict(Evidence::Alternation))
        .unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(text.contains("\u{1b}["), "styled: {text}");
    assert!(text.contains("Critical"), "{text}");
}

#[test]
fn next_command_depends_on_the_source_of_the_finding() {
    let record = conflict(Evidence::DuplicateReply);
    for (origin, command) in [
        (FindingOrigin::Attached, "ip neigh | grep -e"),
        (FindingOrigin::Daemon, "probe bindings --mac"),
        (
            FindingOrigin::Capture("a b.pcap".into()),
            "probe watch --read 'a b.pcap'",
        ),
    ] {
        let step = next_step(&record, &origin).unwrap();
        assert!(step.command.starts_with(command), "{}", step.command);
    }
}

mod check {
    //! The exact text of a check.

    use probe_model::{CheckOwnerRecord, CheckRecord, CheckStatus, NeighborRecord};

    use super::*;

    fn replies(mac: &str, answered: u32) -> CheckOwnerRecord {
        CheckOwnerRecord {
            macs: vec![mac.parse().unwrap()],
            vendor: None,
            local: false,
            node: None,
            holds: false,
            probes_answered: answered,
            replies: answered,
            announcements: 0,
            requests: 0,
            requests_answered: 0,
            replies_to_others: 0,
            sources: Vec::new(),
            speaker: false,
            first_seen: Some(at("02:13:06.2")),
            last_seen: Some(at("02:13:06.6")),
            min_rtt_us: Some(123),
            max_rtt_us: Some(12_345),
        }
    }

    fn checked(status: CheckStatus, owners: Vec<CheckOwnerRecord>) -> CheckRecord {
        CheckRecord {
            time: at("02:13:07"),
            ip: "192.0.2.10".parse().unwrap(),
            interface: "eth0".to_owned(),
            vlan: Vlan::UNTAGGED,
            status,
            probes_sent: 3,
            requests_sent: 1,
            probed_by: None,
            owners,
            frames_dropped: 0,
            hint: None,
            neighbor: None,
            expected: None,
            cluster: None,
        }
    }

    #[track_caller]
    fn reads(record: &CheckRecord, brief: bool, expected: &str) {
        let terminal = Terminal::new(80, TimeZone::UTC, FindingOrigin::Attached);
        let mut out = Vec::new();
        terminal
            .check(&mut out, record, "exactly one owner", brief)
            .unwrap();
        let text = String::from_utf8(out).unwrap();
        let shown = anstream::adapter::strip_str(&text).to_string();
        assert_eq!(shown, expected.trim_start_matches('\n'), "\n{shown}");
        for line in shown.lines() {
            assert!(layout::width_of(line) <= 80, "{line}");
        }
    }

    #[test]
    fn conflict_shows_hosts_evidence_and_next_steps() {
        let held = CheckOwnerRecord {
            local: true,
            node: None,
            holds: true,
            first_seen: None,
            last_seen: None,
            min_rtt_us: None,
            max_rtt_us: None,
            ..replies(A, 0)
        };
        let announcing = CheckOwnerRecord {
            replies: 0,
            announcements: 2,
            min_rtt_us: None,
            max_rtt_us: None,
            last_seen: Some(at("02:13:36")),
            ..replies(B, 0)
        };
        let record = CheckRecord {
            neighbor: Some(NeighborRecord {
                mac: B.parse().unwrap(),
                agrees: false,
            }),
            expected: Some(false),
            vlan: Vlan([100, 0]),
            ..checked(
                CheckStatus::Conflict,
                vec![replies(DELL, 3), held, announcing],
            )
        };
        reads(
            &record,
            true,
            "
02:13:07  conflict           192.0.2.10       eth0 vlan 100
          Two hosts own this address at once.
          replies   d0:8e:79:00:00:01  Dell Inc.
                    replied to 3 of 3, in 0.12 to 12 ms
          holds it  02:00:00:00:00:0a  this host, made up (VM, container or bon…
                    it has the address configured
          claims it 02:00:00:00:00:0b  made up (VM, container or bond)
                    2 announcements, 02:13:06 to 02:13:36
          neighbour this host sends to 02:00:00:00:00:0b, which does not reply
                    for it
          expected  exactly one owner
          next      identify the other host, and take the address off one of the
                    two:
                    ip neigh | grep -e d0:8e:79:00:00:01 -e 02:00:00:00:00:0b
",
        );
    }

    #[test]
    fn expected_result_is_brief_and_briefer_in_a_list() {
        let record = CheckRecord {
            neighbor: Some(NeighborRecord {
                mac: DELL.parse().unwrap(),
                agrees: true,
            }),
            ..checked(CheckStatus::OneOwner, vec![replies(DELL, 3)])
        };
        let headline =
            "02:13:07  one owner          192.0.2.10       eth0  d0:8e:79:00:00:01  Dell Inc.\n";
        reads(&record, true, headline);
        let more = "                    replied to 3 of 3, in 0.12 to 12 ms\n          \
                    neighbour this host's entry agrees\n";
        reads(&record, false, &format!("{headline}{more}"));
    }

    #[test]
    fn no_reply_and_not_probed_are_distinguished() {
        reads(
            &checked(CheckStatus::NoReply, Vec::new()),
            false,
            "
02:13:07  no reply           192.0.2.10       eth0
          No host replied for it; 3 probes.
",
        );
        let record = CheckRecord {
            probes_sent: 0,
            ..checked(CheckStatus::NotProbed, Vec::new())
        };
        reads(
            &record,
            false,
            "
02:13:07  not probed         192.0.2.10       eth0
          The check ended before it was probed.
",
        );
        let record = CheckRecord {
            probed_by: Some(A.parse().unwrap()),
            ..record
        };
        reads(
            &record,
            false,
            "
02:13:07  not probed         192.0.2.10       eth0
          It was not probed: another host may be booting with it, and would
          treat a probe as a conflict.
          prober    02:00:00:00:00:0a sends ARP probes for it: a booting host,
                    an ARP monitor or a stuck client
",
        );
    }

    /// Linux `proxy_arp` replies to requests with a sender address only.
    #[test]
    fn a_host_that_replies_to_requests_only_and_the_real_sender_are_named() {
        let proxy = CheckOwnerRecord {
            probes_answered: 1,
            replies: 1,
            requests_answered: 1,
            sources: vec![A.parse().unwrap()],
            ..replies(B, 1)
        };
        let record = checked(CheckStatus::Conflict, vec![replies(DELL, 3), proxy]);
        let terminal = Terminal::new(120, TimeZone::UTC, FindingOrigin::Attached);
        let mut out = Vec::new();
        terminal.check(&mut out, &record, "", false).unwrap();
        let out = String::from_utf8(out).unwrap();
        let out = out.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(
            out.contains("to ARP requests only, not to ARP probes"),
            "{out}"
        );
        assert!(out.contains(&format!("sent by {A}")), "{out}");
        assert_eq!(out.matches("ARP requests only").count(), 1, "{out}");
    }

    #[test]
    fn move_shows_times_of_both_owners() {
        let later = CheckOwnerRecord {
            first_seen: Some(at("02:13:30")),
            last_seen: Some(at("02:14:00")),
            ..replies(B, 30)
        };
        let earlier = CheckOwnerRecord {
            first_seen: Some(at("02:13:00")),
            last_seen: Some(at("02:13:29")),
            ..replies(A, 29)
        };
        let record = CheckRecord {
            probes_sent: 60,
            ..checked(CheckStatus::Moved, vec![later, earlier])
        };
        reads(
            &record,
            false,
            "
02:13:07  moved              192.0.2.10       eth0
          It moved from one host to another during the check.
          replies   02:00:00:00:00:0b  made up (VM, container or bond)
                    replied to 30 of 60, in 0.12 to 12 ms, 02:13:30 to 02:14:00
          replies   02:00:00:00:00:0a  made up (VM, container or bond)
                    replied to 29 of 60, in 0.12 to 12 ms, 02:13:00 to 02:13:29
          next      nothing, if somebody moved it; to see whether it stays:
                    probe check -i eth0 --for 60s 192.0.2.10
",
        );
    }
}

/// The context of an address of a service, with a cause.
fn of_a_cluster(cause: Option<ClusterCause>) -> Box<AddressContext> {
    let named = |namespace: &str, name: &str| NamespacedName {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    };
    Box::new(AddressContext {
        services: vec![named("shop", "frontend")],
        pool: Some(named("metallb-system", "production")),
        announced: AnnouncementMode::Layer2,
        announcers: vec!["node-1".to_owned()],
        cause,
    })
}

#[test]
fn conflict_shows_service_and_cause() {
    let mut record = conflict(Evidence::DuplicateReply);
    record.hint = Some(Hint::AnnouncerAndHost);
    record.owners[0].node = Some("node-1".to_owned());
    record.owners[0].local = true;
    record.cluster = Some(of_a_cluster(Some(ClusterCause {
        kind: CauseKind::ExternalDevice,
        scope: CauseScope::External,
        evidence: vec![
            "d0:8e:79:00:00:01 (no known node, made by Dell Inc.) answers for it".to_owned(),
            "The MAC addresses of 3 of 3 nodes on this network are known".to_owned(),
        ],
    })));
    reads(
        &record,
        "
02:13:07  conflict           192.0.2.10       eth0
          Critical: two hosts reply for this address; they replied to the same
          request.
          service   shop/frontend, pool production; announced by node-1,
                    according to its status
          owner 1   02:00:00:00:00:0b  node-1 (this host), made up (VM, contain…
                    3 claims since 02:13:05, last 02:13:07
          owner 2   d0:8e:79:00:00:01  Dell Inc.
                    9 claims since 01:00:00, last 02:13:07
          since     02:13:06; 1 request with two replies
          cause     a host outside the cluster has the address (from outside the
                    cluster)
                    - d0:8e:79:00:00:01 (no known node, made by Dell Inc.)
                      answers for it
                    - The MAC addresses of 3 of 3 nodes on this network are
                      known
          next      identify the other host; take the address off it, or out of
                    the pool:
                    ip neigh | grep -e d0:8e:79:00:00:01
",
    );
}

#[test]
fn cause_from_frames_is_shown_first_without_a_cause_from_the_cluster() {
    let cause = ClusterCause {
        kind: CauseKind::Unknown,
        scope: CauseScope::Unknown,
        evidence: vec!["The nodes are not known".to_owned()],
    };
    let mut record = conflict(Evidence::DuplicateReply);
    record.cluster = Some(of_a_cluster(Some(cause)));
    let without = at_width(80, &record);
    assert!(without.contains("cause     unknown"), "{without}");
    let terminal = Terminal::new(80, TimeZone::UTC, FindingOrigin::Daemon);
    let mut out = Vec::new();
    terminal.finding(&mut out, &record).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert!(text.contains("probe explain 192.0.2.10"), "{text}");
    record.hint = Some(Hint::TwoAnnouncers);
    let with = at_width(80, &record);
    assert!(with.contains("hint      two load balancers"), "{with}");
}

#[test]
fn binding_shows_its_service_and_node() {
    let mut owner = owner(OwnerRole::Current, B, 3, "02:13:05", "02:13:07");
    owner.node = Some("node-2".to_owned());
    let record = BindingRecord {
        takeover: None,
        interface: "eth0".to_owned(),
        vlan: Vlan::UNTAGGED,
        ip: "192.0.2.10".parse().unwrap(),
        tracked: true,
        ignored: false,
        owners: vec![owner],
        silent_since: None,
        conflict: None,
        cluster: Some(of_a_cluster(None)),
    };
    let terminal = Terminal::new(80, TimeZone::UTC, FindingOrigin::Daemon);
    let mut out = Vec::new();
    terminal.binding(&mut out, &record, at("02:14:00")).unwrap();
    let text = String::from_utf8(out).unwrap();
    let shown = anstream::adapter::strip_str(&text).to_string();
    assert_eq!(
        shown,
        "\
02:13:07  tracked            192.0.2.10       eth0  02:00:00:00:00:0b  node-2
          service   shop/frontend, pool production; announced by node-1,
                    according to its status
"
    );
}
