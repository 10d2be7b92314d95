use super::*;
use crate::{Cli, ParseError, UpArgs, Verb, parse_from};

fn problem(text: &str) -> ConfigError {
    parse(Path::new("p.toml"), text, &crate::command()).unwrap_err()
}

fn up(file: &str, flags: &[&str]) -> Result<(Cli, UpArgs), ParseError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("p.toml");
    std::fs::write(&path, file).unwrap();
    let words = ["portolan", "up", "--config", path.to_str().unwrap()];
    let cli = parse_from(words.iter().chain(flags).map(Into::into))?;
    let Verb::Up(args) = cli.verb.clone() else { panic!("not up") };
    Ok((cli, *args))
}

#[test]
fn each_flag_is_a_key() {
    let file = r#"
        listen = "127.0.0.1:1"
        pool = ["1000-1999", "media=3000-3999"]
        no-dataplane = true
        ttl = "5s"
        advertise = ["192.0.2.1", "2001:db8::1"]
        data = "/tmp/x"
    "#;
    let (cli, args) = up(file, &[]).unwrap();
    assert_eq!(args.listen.port(), 1);
    assert_eq!(
        args.pools.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["default=1000-1999", "media=3000-3999"]
    );
    assert!(args.no_dataplane);
    assert_eq!(args.ttl.as_secs(), 5);
    assert_eq!(args.advertise.len(), 2);
    assert_eq!(cli.global.data_dir(), Path::new("/tmp/x"));
}

#[test]
fn a_flag_wins_over_the_file() {
    let file = "listen = \"127.0.0.1:1\"\nno-dataplane = true\npool = \"1-2\"";
    let (_, args) = up(file, &["--listen", "127.0.0.1:2", "--no-dataplane=false", "--pool", "3-4"]).unwrap();
    assert_eq!((args.listen.port(), args.no_dataplane), (2, false));
    assert_eq!(args.pools.iter().map(ToString::to_string).collect::<Vec<_>>(), ["default=3-4"]);
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_nearest_one() {
    let error = problem("# first\n\nlisten_ = \"x\"\n");
    assert_eq!(error.to_string(), "p.toml:3: there is no key \"listen_\": did you mean \"listen\"?");
    assert!(error.hint().unwrap().contains("register-listen"));
    let error = problem("dns_listen = \"x\"\n").to_string();
    assert!(error.ends_with("did you mean \"dns-listen\"?"), "{error}");
    assert!(!problem("server = \"x\"").to_string().contains("did you mean"), "server is no key of up");
}

#[test]
fn a_wrong_value_is_named_with_its_line() {
    let error = problem("ttl = \"5s\"\npool = [\"1000-99999\"]").to_string();
    assert!(error.starts_with("p.toml:2: pool: invalid value '1000-99999'"), "{error}");
    assert!(error.contains("1 to 65535") && !error.contains("Usage"), "{error}");
    let error = problem("ttl = {}").to_string();
    assert!(error.starts_with("p.toml:1: ttl: write a text"), "{error}");
}

#[test]
fn broken_toml_is_named_with_its_line() {
    let error = problem("ttl = \"5s\"\n\n= 3\n").to_string();
    assert!(error.starts_with("p.toml:3: "), "{error}");
}

#[test]
fn a_missing_file_is_named() {
    let error = parse_from(["portolan", "up", "--config", "/nowhere/p.toml"].map(Into::into)).unwrap_err();
    assert!(error.to_string().contains("/nowhere/p.toml"), "{error}");
}
