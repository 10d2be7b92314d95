//! Wrong command lines are refused with the reason and what to write instead, before anything is done.

#![allow(clippy::unwrap_used)]

use portolan_cli::{ParseError, Verb, parse_from};

fn words(line: &str) -> impl Iterator<Item = std::ffi::OsString> {
    line.split(' ').map(Into::into)
}

fn refusal(line: &str) -> String {
    match parse_from(words(line)) {
        Err(ParseError::Usage(error)) => {
            assert_eq!(error.exit_code(), 2, "{line}");
            error.to_string()
        }
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn a_wrong_port_is_told_with_the_whole_spec() {
    for (spec, expected) in [
        ("web=99999", "use a number from 1 to 65535"),
        ("web=0", "use a number from 1 to 65535"),
        ("WEB", "use a-z, 0-9 and '-'"),
        ("web/quic", "use tcp, udp or sctp"),
        ("web:10=65530", "go past 65535"),
        ("web,pol=x", "the only one is pool=NAME"),
    ] {
        let refusal = refusal(&format!("portolan run -p {spec} -- x"));
        assert!(refusal.contains(spec) && refusal.contains(expected), "{spec}: {refusal}");
    }
}

#[test]
fn a_command_without_dashes_is_told_about_them() {
    let refusal = refusal("portolan run -p http ./server");
    assert!(refusal.contains("portolan run -p http -- ./server"), "{refusal}");
}

#[test]
fn a_wrong_health_check_label_state_or_duration_says_what_is_right() {
    for (line, expected) in [
        ("portolan run --health grpc -- x", "http:/healthz"),
        ("portolan run --label x -- x", "KEY=VALUE"),
        ("portolan run --replicas 0 -- x", "1..=1000"),
        ("portolan list --state up", "passing, warning, critical"),
        ("portolan up --ttl soon", "10s, 1m30s"),
        ("portolan up --pool 30000-20000", "ends before it begins"),
        ("portolan up --listen 10080", "invalid socket address"),
        ("portolan up --instance-subnet 10.213.0.1/16", "did you mean 10.213.0.0/16"),
        ("portolan serve --advertised-ip 0.0.0.0", "give one of this machine"),
        ("portolan lst", "list"),
    ] {
        let refusal = refusal(line);
        assert!(refusal.contains(expected), "{line}: {refusal}");
    }
}

#[test]
fn the_originals_flags_are_taken_exactly() {
    let line = "portolan serve -advertised-ip 192.0.2.1 -service-registry 10.0.0.1:10081 \
                -service-instance-name n -register-instance-external-ip=true";
    let Verb::Serve(args) = parse_from(words(line)).unwrap().verb else { panic!("not serve") };
    assert_eq!(args.advertised_ip, Some("192.0.2.1".parse().unwrap()));
    assert_eq!(args.service_registry.as_deref(), Some("10.0.0.1:10081"));
    assert_eq!(args.name.as_deref(), Some("n"));
    assert!(args.register_instance_external_ip);
    let Verb::Serve(args) = parse_from(words("portolan serve -register-instance-external-ip")).unwrap().verb
    else {
        panic!("not serve")
    };
    assert!(args.register_instance_external_ip);
}
