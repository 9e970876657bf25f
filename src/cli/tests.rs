//! The command line as it is typed: what parses to what, and what is refused with which exit code.

use std::path::Path;
use std::time::Duration;

use clap::{CommandFactory, Parser};
use vecino_client::{Fsync, Level, Metric, PointId, Value, Vector};

use vecino_node::config::LogFormat;

use super::args::*;
use super::certs::CertsCommand;
use super::values::NamedField;
use super::{exit_code, usage_failure};

fn parse(line: &str) -> Cli {
    Cli::try_parse_from(words(line)).unwrap_or_else(|error| panic!("{line}: {error}"))
}

/// Exit code and message of a line that is refused.
fn refused(line: &str) -> (u8, String) {
    let error = Cli::try_parse_from(words(line)).map(|cli| panic!("{line} parsed as {cli:?}")).unwrap_err();
    (exit_code(&error), error.to_string())
}

fn words(line: &str) -> Vec<&str> {
    ["vecino"].into_iter().chain(line.split_whitespace()).collect()
}

fn client(line: &str) -> ClientCommand {
    match parse(line).command {
        Command::Client(command) => command,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn the_definitions_are_sound() {
    Cli::command().debug_assert();
}

#[test]
fn every_command_of_the_readme_parses() {
    for line in [
        "node --data d --listen 127.0.0.1:7400 --advertise host:7400 --seed a:1 --seed b:2 --certs c --config f.toml --log-format json",
        "demo --keep",
        "certs init ca",
        "certs issue ca --name n1 --out d --san localhost --san 127.0.0.1 --client",
        "certs show d/node.crt",
        "doctor --data d --repair --json",
        "collection create films --dim 3 --metric cosine --replicas 3",
        "collection list --json",
        "collection describe films",
        "collection drop films --connect a:1",
        "put films --id 100 --vector 0.1,0.2,0.3 --payload {\"title\":\"…\"}",
        "get films --id 100 --level all",
        "delete films --id 100 --id 101 --id-text 7",
        "search films --vector 0.1,0.2,0.3 --k 10",
        "import films base.npy --batch 100 --in-flight 2 --limit 9 --id-offset 5 --journal j --patience 5 --no-check",
        "export films --out films.jsonl",
        "bench films --queries q.npy --truth gt.npy --k 10 --ef 200 --clients 8 --seconds 30 --exact --id-offset 1",
        "status --certs d --timeout 500ms",
        "ring",
        "ring films",
        "snapshot",
        "snapshot films --json",
        "backup create backups --collection films --collection music --level one --connect a:1",
        "backup list s3://bucket/vecino --json",
        "restore backups --backup 20261121T080511.123Z --collection films --as films-2 --patience 5",
    ] {
        parse(line);
    }
}

#[test]
fn node_settings_that_are_not_given_are_absent() {
    let Command::Node(args) = parse("node").command else { panic!("not a node") };
    assert_eq!(args, NodeArgs::default());
    let Command::Node(args) = parse("node --seed a:1 --seed b:2 --listen [::1]:9 --log-format text").command else {
        panic!("not a node")
    };
    assert_eq!(args.seeds, ["a:1", "b:2"]);
    assert_eq!(args.listen, Some("[::1]:9".parse().unwrap()));
    assert_eq!(args.log_format, Some(LogFormat::Text));
}

#[test]
fn json_may_stand_anywhere_and_connection_options_behind_the_command() {
    for line in ["--json collection list", "collection --json list", "collection list --json"] {
        assert!(parse(line).json, "{line}");
    }
    assert!(!parse("collection list").json);
    for line in [
        "collection list --connect a:1 --connect b:2 --certs d --timeout 2m",
        "collection --connect a:1,b:2 --certs d --timeout 120 list",
    ] {
        let ClientCommand::Collection(args) = client(line) else { panic!("{line}") };
        assert_eq!(args.connection.connect, ["a:1", "b:2"], "{line}");
        assert_eq!(args.connection.certs.as_deref(), Some(Path::new("d")), "{line}");
        assert_eq!(args.connection.timeout, Duration::from_secs(120), "{line}");
    }
}

#[test]
fn connections_have_defaults_and_environment_variables() {
    let command = Cli::command();
    let status = command.find_subcommand("status").unwrap();
    let argument = |id: &str| status.get_arguments().find(|argument| argument.get_id() == id).unwrap();
    assert_eq!(argument("connect").get_env().unwrap(), "VECINO_CONNECT");
    assert_eq!(argument("connect").get_value_delimiter(), Some(','));
    assert_eq!(argument("connect").get_default_values(), ["127.0.0.1:7400"]);
    assert_eq!(argument("certs").get_env().unwrap(), "VECINO_CERTS");
    let node = command.find_subcommand("node").unwrap();
    assert!(node.get_arguments().all(|argument| argument.get_env().is_none()), "a node reads its own environment");
}

#[test]
fn create_has_defaults_and_reads_fsync() {
    let create = |line: &str| match client(&format!("collection create films --dim 3 --metric dot {line}")) {
        ClientCommand::Collection(CollectionArgs { command: CollectionCommand::Create(args), .. }) => args,
        other => panic!("{other:?}"),
    };
    let expected = CreateArgs {
        name: "films".into(),
        dim: Some(3),
        metric: Some(Metric::Dot),
        fields: Vec::new(),
        replicas: None,
        m: vecino_client::DEFAULT_M,
        ef_construction: vecino_client::DEFAULT_EF_CONSTRUCTION,
        profile: Default::default(),
        fsync: Fsync::Always,
    };
    assert_eq!(create(""), expected);
    assert_eq!(create("--fsync never").fsync, Fsync::Never);
    assert_eq!(create("--fsync 250").fsync, Fsync::EveryMs(250));
    assert_eq!(create("--fsync 250ms").fsync, Fsync::EveryMs(250));
    assert_eq!(create("--replicas 2").replicas, Some(2));
    let title = NamedField { name: "title".into(), dim: 384, metric: Metric::Cosine };
    assert_eq!(create("--field title:384:cosine").fields, [title]);
    let ClientCommand::Collection(CollectionArgs { command: CollectionCommand::Create(named), .. }) =
        client("collection create films --field a:2:dot --field b:3:euclidean")
    else {
        panic!("not a create")
    };
    assert_eq!((named.dim, named.metric, named.fields.len()), (None, None, 2), "named fields are enough");
}

#[test]
fn only_digits_as_a_number_is_written_are_a_number() {
    let id = |line: &str| match client(&format!("get films {line}")) {
        ClientCommand::Get(args) => args.id.point_id(),
        other => panic!("{other:?}"),
    };
    assert_eq!(id("--id 7"), PointId::Number(7));
    assert_eq!(id("--id 0"), PointId::Number(0));
    assert_eq!(id("--id 007"), PointId::from("007"));
    assert_eq!(id("--id -5"), PointId::from("-5"));
    assert_eq!(id("--id=-5"), PointId::from("-5"));
    assert_eq!(id("--id 18446744073709551616"), PointId::from("18446744073709551616"));
    assert_eq!(id("--id 18446744073709551615"), PointId::Number(u64::MAX));
    assert_eq!(id("--id 7a"), PointId::from("7a"));
    assert_eq!(id("--id 1.5"), PointId::from("1.5"));
    assert_eq!(id("--id-text 7"), PointId::from("7"));
    let ClientCommand::Delete(args) = client("delete films --id 1 --id-text 1 --id b") else { panic!("no delete") };
    assert_eq!((args.id, args.id_text), (vec![1.into(), "b".into()], vec!["1".into()]));
}

#[test]
fn a_put_has_its_vector_and_payload() {
    let ClientCommand::Put(args) = client("put films --id a --vector -0.5,1,2e3 --payload {\"n\":1} --level one")
    else {
        panic!("no put")
    };
    assert_eq!(args.vectors, [Vector(vec![-0.5, 1.0, 2000.0])]);
    assert_eq!(args.payload.unwrap()["n"], Value::Int(1));
    assert_eq!((args.level.level, args.fields.len()), (Level::One, 0));
    let ClientCommand::Put(args) = client("put films --id a --field t --vector 1,2 --field i --vector 3") else {
        panic!("no put")
    };
    assert_eq!((args.fields, args.vectors.len()), (vec!["t".to_owned(), "i".to_owned()], 2));
}

#[test]
fn a_wrong_line_is_usage_and_says_what_is_wrong() {
    let long = "a".repeat(513);
    for (line, words) in [
        ("collection create films --metric dot", "--dim"),
        ("collection create films --dim 0 --metric dot", "1..=16384"),
        ("collection create films --dim 16385 --metric dot", "1..=16384"),
        ("collection create films --dim 3 --metric cosinus", "use cosine, euclidean, dot or manhattan"),
        ("collection create films --dim 3 --metric dot --replicas 0", "a point needs at least 1 replica"),
        ("collection create films --dim 3 --metric dot --replicas x", "not a whole number of replicas"),
        ("collection create films", "--dim"),
        ("collection create films --dim 3", "--metric"),
        ("collection create films --field title", "is not NAME:DIM:METRIC, for example title:384:cosine"),
        ("collection create films --field :3:dot", "the field without a name is made by --dim and --metric"),
        ("collection create films --field t:0:dot", "DIM is a whole number from 1 to 16384"),
        ("collection create films --field t:3:l2", "use cosine, euclidean, dot or manhattan"),
        (
            "collection create films --dim 3 --metric dot --fsync sometimes",
            "always, never, or a number of milliseconds",
        ),
        ("collection create films --dim 3 --metric dot --fsync 0", "every 0 ms is `always`"),
        ("collection", "Usage"),
        ("put films --id 1", "--vector"),
        ("put films --vector 1,2", "--id"),
        ("put films --id 1 --id-text 1 --vector 1", "cannot be used with"),
        ("put films --id 1 --vector 1,x", "value 1: \"x\" is not a number"),
        ("put films --id 1 --vector 1,", "value 1: \"\" is not a number"),
        ("put films --id 1 --vector 1,NaN", "value 1: \"NaN\" is not finite in 32 bits"),
        ("put films --id 1 --vector inf", "value 0: \"inf\" is not finite in 32 bits"),
        ("put films --id 1 --vector 1e39", "value 0: \"1e39\" is not finite in 32 bits"),
        ("put films --id 1 --vector 1 --payload [1]", "payload is a list, not a JSON object"),
        ("put films --id 1 --vector 1 --payload {", "payload is no JSON"),
        ("put films --id 1 --vector 1 --level most", "use one, quorum or all"),
        (&format!("get films --id-text {long}"), "a text id has 1 to 512 bytes, and this one has 513"),
        ("get films", "--id"),
        ("delete films", "--id"),
        ("search films", "--vector"),
        ("search films --vector 1 --id 1", "cannot be used with"),
        ("search films --vector 1 --id-text 1", "cannot be used with"),
        ("search films --vector 1 --vector-file f", "cannot be used with"),
        ("search films --vector 1 --row 1", "cannot be used with"),
        ("search films --vector 1 --k 0", "1..=10000"),
        ("search films --vector 1 --k 10001", "1..=10000"),
        ("search films --vector 1 --threshold nan", "not finite"),
        ("import films f.npy --batch 0", "1..=10000"),
        ("import films f.npy --in-flight 65", "1..=64"),
        ("import films f.npy --patience 86401", "0..=86400"),
        ("import films", "<FILE>"),
        ("bench films", "--queries"),
        ("bench films --queries q --seconds 0", "number of seconds above 0"),
        ("bench films --queries q --seconds nan", "number of seconds above 0"),
        ("backup", "Usage"),
        ("backup create", "<URL>"),
        ("backup create b --level most", "use one, quorum or all"),
        ("backup list b --connect a:1", "unexpected argument '--connect'"),
        ("restore b --backup latest", "\"latest\" is no name of a backup: they look like 20261121T080511.123Z"),
        ("restore", "<URL>"),
        ("status --timeout 0s", "is not a time such as"),
        ("status --timeout 1h", "is not a time such as"),
        ("status --level all", "unexpected argument '--level'"),
        ("node --listen localhost", "use IP:PORT, NAME:PORT or :PORT"),
        ("node --connect a:1", "unexpected argument '--connect'"),
        ("node --log-format xml", "use text or json"),
        ("certs issue ca --out d", "--name"),
        ("nosuch", "unrecognized subcommand"),
        ("", "Usage"),
    ] {
        let (code, message) = refused(line);
        assert_eq!(code, 2, "{line}: {message}");
        assert!(message.contains(words), "{line}: {message}");
    }
}

#[test]
fn a_long_value_is_cut_in_the_message_about_it() {
    let line = format!("put films --id 1 --vector {}x", "0.125,".repeat(384));
    let error = Cli::try_parse_from(words(&line)).unwrap_err();
    assert!(error.to_string().len() > 2_000, "without cutting");
    let message = super::with_short_value(error).to_string();
    assert!(message.len() < 300 && message.contains("0.125,0.125,") && message.contains("value 384"), "{message}");
}

#[test]
fn help_and_version_succeed() {
    for line in ["--help", "search --help", "--version", "help import"] {
        assert_eq!(refused(line).0, 0, "{line}");
    }
}

#[test]
fn a_wrong_line_is_one_line_of_json_where_asked_for() {
    let error = Cli::try_parse_from(words("search films --json --vector 1,x")).unwrap_err();
    assert_eq!(
        usage_failure(&error).render(true),
        "{\"error\":{\"code\":\"usage\",\"message\":\"invalid value '1,x' for '--vector <A,B,C>': value 1: \\\"x\\\" is \
         not a number For more information, try '--help'.\",\"retry\":\"no\"}}"
    );
}

#[test]
fn every_shell_gets_a_script_that_knows_the_commands() {
    for shell in [clap_complete::Shell::Bash, clap_complete::Shell::Zsh, clap_complete::Shell::Fish] {
        let script = super::completions(shell);
        assert!(script.contains("ef-construction") && script.contains("restore"), "{shell}");
    }
    assert!(!Cli::command().render_help().to_string().contains("completions"), "it is no command for every day");
}

#[test]
fn certs_are_handed_back() {
    assert!(matches!(parse("certs init ca").command, Command::Certs { command: CertsCommand::Init { .. } }));
}
