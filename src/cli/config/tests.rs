//! Files as an operator may write them, and what is said of them.

use std::fs;
use std::path::PathBuf;

use shaddock::OnSecondBind;

use super::*;

const EXAMPLE: &str = include_str!("../../../shaddock.example.toml");

fn source(text: &str) -> Source {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src/cli/config/files"));
    Source::new("shaddock.toml".into(), folder, text.into())
}

fn with_variables(text: &str, variables: &[(&str, &str)]) -> Source {
    let mut source = source(text);
    for (name, value) in variables {
        source.add_variable((*name).to_owned(), value);
    }
    source.credentials = Some(source.folder.clone());
    source
}

fn parse(text: &str) -> Config {
    Config::parse(&source(text)).unwrap_or_else(|problems| panic!("{problems:?}"))
}

fn problems(text: &str) -> Vec<String> {
    let problems = Config::parse(&source(text)).err().unwrap_or_default();
    problems.iter().map(Problem::to_string).collect()
}

fn values(config: &Config) -> Vec<(&str, String)> {
    config.values.iter().map(|(key, value)| (key.as_str(), value.text())).collect()
}

#[test]
fn the_example_holds_the_defaults() {
    assert_eq!(values(&parse(EXAMPLE)), values(&parse("")));
}

/// With the comments of the keys that have no default taken off, the example has every key.
#[test]
fn the_example_has_every_key() {
    let uncommented = |line: &str| {
        let is_key = line
            .strip_prefix("# ")
            .is_some_and(|rest| rest.split_once(" = ").is_some_and(|(key, _)| !key.contains(' ')));
        if is_key { line[2..].to_owned() } else { line.to_owned() }
    };
    let text: Vec<String> = EXAMPLE.lines().map(uncommented).collect();
    let source = source(&text.join("\n"));
    let mut root = Table::root(&source).unwrap_or_else(|problems| panic!("{problems:?}"));
    root.table("server", server::read);
    root.table("log", log::read);
    for entry in &SECTIONS {
        (entry.read)(&mut root, entry.name);
    }
    root.finish();
    let (values, problems) = root.take_notes();
    // The files that the example names are not here, and it has every kind of login at NATS.
    let unexpected = problems.iter().map(Problem::to_string);
    let is_known = |text: &String| {
        text.contains("can be read") || text.contains("there is another login at NATS")
    };
    let unexpected: Vec<_> = unexpected.filter(|text| !is_known(text)).collect();
    assert_eq!(unexpected, [""; 0]);
    for (key, value) in values {
        assert!(value.is_in_file(), "{key} is not in shaddock.example.toml");
    }
}

#[test]
fn the_codes_of_answers_are_numbers() {
    let config = parse("[server.codes]\nrate_limited = 429\n");
    assert_eq!(config.values["server.codes.rate_limited"].text(), "429");
    assert_eq!(config.values["server.codes.busy"].text(), "500");
    let problems = problems("[server.codes]\nbusy = 70000\nbsuy = 503\n");
    assert!(problems[0].contains("server.codes.busy"), "{problems:?}");
    assert!(problems[1].contains("bsuy"), "{problems:?}");
}

#[test]
fn a_policy_for_full_lanes_is_of_a_server_type() {
    for (text, expected) in [
        (
            "[pomelo]\nmaster = \"[::1]:9\"\n[[pomelo.type]]\nname = \"chat\"\nlane_full = \"wait\"",
            "5:13: pomelo.type[1].lane_full: expected \"reject\" or \"pause\", found \"wait\"",
        ),
        (
            "[pomelo]\nmaster = \"[::1]:9\"\n[[pomelo.type]]\nlane_full = \"pause\"",
            "3:1: pomelo.type[1].name: expected the name of a server type, found none",
        ),
        (
            "[[pitaya.type]]\nlane_full = \"pause\"",
            "1:1: pitaya.type[1].name: expected the name of a server type, found none",
        ),
    ] {
        assert_eq!(problems(text), [format!("shaddock.toml:{expected}")]);
    }
    let text =
        "[pomelo]\nmaster = \"[::1]:9\"\n[[pomelo.type]]\nname = \"chat\"\nlane_full = \"pause\"";
    let key = ("pomelo.type[1].lane_full", "Pause".to_owned());
    assert!(values(&parse(text)).contains(&key));
}

/// One mistake each: the file, and what is said of it.
#[test]
fn mistakes_are_told_with_their_place_and_what_to_write() {
    for (text, expected) in [
        (
            "[limits]\noutbox_bytes_max = true",
            "2:20: limits.outbox_bytes_max: expected bytes: a number, or text such as \"64 KiB\", \
             found true",
        ),
        (
            "limits.idle_timeout = 90",
            "1:23: limits.idle_timeout: expected a duration: text such as \"3s\" or \"500ms\", \
             found 90",
        ),
        (
            "[limits]\nuid_bytes_max = \"4 quarts\"",
            "2:17: limits.uid_bytes_max: expected bytes: a number, or text such as \"64 KiB\", \
             found \"4 quarts\"",
        ),
        (
            "[limits]\nreceive_buffers = 65536",
            "2:19: limits.receive_buffers: expected a number from 0 to 65535, found 65536",
        ),
        (
            "[limits]\nlane_len = -1",
            "2:12: limits.lane_len: expected a number that is not negative, found -1",
        ),
        (
            "\n[limits]\noutbox_byte_max = 1",
            "3:1: limits.outbox_byte_max: unknown key; `outbox_bytes_max` may be meant",
        ),
        ("[host_filter]\nx = 1", "2:1: host_filter.x: unknown key; known here: deny"),
        ("[limit]", "1:2: limit: unknown key; `limits` may be meant"),
        ("limits = 3", "1:10: limits: expected a table, found 3"),
        ("server = []", "1:10: server: expected a table, found []"),
        (
            "[listener]\naddress = \"127.0.0.1:0\"",
            "1:1: listener: expected tables, each headed [[listener]], found [listener]",
        ),
        (
            "[[listener]]\n[[listener]]\naddress = 3010",
            "3:11: listener[2].address: expected text, found 3010",
        ),
        (
            "[[listener]]\naddress = \"[::]\"",
            "2:11: listener[1].address: must be an address like 127.0.0.1:3010 (invalid port value), \
             found \"[::]\"",
        ),
        (
            "[[listener]]\naddress = \"[::1]:9\"\n[[listener]]\naddress = \"[::1]:9\"",
            "2:11: listener[1].address: must be another one, as [::1]:9 is given twice, found \"[::1]:9\"",
        ),
        (
            "[host_filter]\ndeny = [\"::1\",\n\"localhost\"]",
            "3:1: host_filter.deny[2]: expected an IP address, or a block such as \
             \"203.0.113.0/24\", found \"localhost\"",
        ),
        (
            "[host_filter]\ndeny = \"::1\"",
            "2:8: host_filter.deny: expected a list, each of it an IP address, or a block such as \
             \"203.0.113.0/24\", found \"::1\"",
        ),
        (
            "[server]\necho = \"chat.echoHandler.echo\"",
            "2:8: server.echo: expected a route like connector.handler.method, found \
             \"chat.echoHandler.echo\"",
        ),
        ("[server]\nid = ", "2:6: string values must be quoted, expected literal string"),
    ] {
        assert_eq!(problems(text), [format!("shaddock.toml:{expected}")], "{text}");
    }
}

/// The messages of `check` and of a reload may be read by more people than the file.
#[test]
fn no_problem_tells_a_secret() {
    for text in [
        "[pitaya]\nnats = \"nats://amy:secret@h:1\"",
        "[pitaya]\nnats = \"nats://amy-of-a-very-long-name-indeed:secret@h:1\"",
        "[pitaya]\nnats = [\"nats://amy:secret@h:1\", 7, \"http://amy:secret@h\"]\netcd = 1",
        "[pitaya]\nnats = [\"nats://amy:secret@h:x\"]\netcd = [\"http://amy:secret@h\"]",
        "[pitaya]\nnats = [\"nats://amy:secret@\"]\netcd = []\ntype = [{ name = \"room\" }]",
        "[pitaya]\nnats_user = \"amy\"\nnats_password = [\"secret\"]",
        "[pitaya]\netcd_password = \"secret\"",
        "[pomelo]\ntoken = { text = \"secret\" }",
        "[pomelo]\nmaster = \"amy:secret@h\"\ntype = [{ name = \"chat\" }]",
        "[[listener]]\naddress = \"amy:secret@h\"",
    ] {
        let problems = problems(text);
        assert!(!problems.is_empty(), "{text}");
        assert!(problems.iter().all(|problem| !problem.contains("secret")), "{problems:?}");
    }
}

/// Keys that are right by themselves and do not go together.
#[test]
fn relations_are_told_with_the_key_they_are_about() {
    for (text, expected) in [
        ("[server]\nshards = 0", "2:10: server.shards: must be at least 1, found 0"),
        (
            "[traces]\nenabled = true\nendpoint = \"grpc://collector\"",
            "3:12: traces.endpoint: must be a URL such as http://127.0.0.1:4318, \
             found \"grpc://collector\"",
        ),
        (
            "[traces]\nenabled = true\nsample = 0",
            "3:10: traces.sample: must be a number of messages, at least 1, found 0",
        ),
        (
            "[server]\nsingle_session = true",
            "2:18: server.single_session: expected \"off\", \"refuse\", \"kick\" or \"close\", found true",
        ),
        (
            "[limits]\nreceive_buffers = 100",
            "2:19: limits.receive_buffers: must be a power of two up to 32768, found 100",
        ),
        (
            "\n[limits]\npackage_bytes_max = \"10 MiB\"",
            "2:2: limits.outbox_bytes_max: must be more than package_bytes_max, and 1073741824 at \
             most, found its default, 8388608",
        ),
        (
            "[heartbeat]\ntimeout = \"3s\"",
            "2:11: heartbeat.timeout: must be left out where there is no heartbeat, found \"3s\"",
        ),
        (
            "[[listener]]\ndialect = \"nano\"",
            "2:11: listener[1].dialect: expected \"pomelo\" or \"pitaya\", found \"nano\"",
        ),
        (
            "[[listener]]\nserializer = \"protobuf\"",
            "2:14: listener[1].serializer: expected \"json\", where the dialect is not \"pitaya\", \
             found \"protobuf\"",
        ),
        (
            "[[listener]]\ncompression = false",
            "2:15: listener[1].compression: expected true, where the dialect is not \"pitaya\", \
             found false",
        ),
        (
            "[server]\ntype = \"gate\"\ndemo = true",
            "3:8: server.demo: expected false, as the demo's handlers are of the type connector, \
             found true",
        ),
        (
            "[server]\ndemo = true\n[pitaya]\nnats = [\"nats://a:1\"]\netcd = [\"a:1\"]\n\
             type = [{ name = \"room\" }, { name = \"chat\" }]",
            "6:1: pitaya.type: must be another server type than `chat`, which is taken, found \
             none",
        ),
        (
            "[heartbeat]\ninterval = \"1500ms\"",
            "2:12: heartbeat.interval: expected whole seconds, as clients make 0 s of \"500ms\", \
             found \"1500ms\"",
        ),
        (
            "[heartbeat]\ninterval = \"0s\"",
            "2:12: heartbeat.interval: must be 1 ms or more; leave it out to have none, found \"0s\"",
        ),
    ] {
        assert_eq!(problems(text), [format!("shaddock.toml:{expected}")], "{text}");
    }
}

/// A cluster as an operator may describe it, and what is said of one that can't be.
#[test]
fn a_pitaya_cluster_is_described() {
    let types = "[pitaya]\nnats = [\"127.0.0.1:4222\"]\netcd = [\"127.0.0.1:2379\"]\n\
        nats_user = \"a\"\nnats_password = \"b\"\n[[pitaya.type]]\nname = \"room\"\n\
        [[pitaya.metadata]]\nkey = \"region\"\nvalue = \"eu\"";
    assert!(parse(types).forwards() && !parse("[pitaya]").forwards());
    let with = |rest: &str| {
        format!(
            "[pitaya]\nnats = [\"h:1\"]\netcd = [\"h:2\"]\n{rest}\ntype = [{{name = \"room\"}}]"
        )
    };
    for (text, expected) in [
        (
            "[[pitaya.type]]\nname = \"room\"".to_owned(),
            "1:3: pitaya.nats: must be addresses like nats://127.0.0.1:4222 or tls://nats-1:4222, found its default, []",
        ),
        (
            "[pitaya]\nnats = [\"h:1\"]".to_owned(),
            "1:2: pitaya.type: must be given at least once, found none",
        ),
        (
            with("nats_user = \"a\""),
            "1:2: pitaya.nats_password: expected text, as neither of the two comes alone, \
             found none",
        ),
        (
            with("metadata = [{key = \"a\"}]"),
            "4:13: pitaya.metadata[1].value: expected text, as metadata has a key and a value, \
             found none",
        ),
        (
            with("request_timeout = \"40s\""),
            "4:19: pitaya.request_timeout: must be 1 ms to 30000 ms, which is the limit \
             forward_timeout, found \"40s\"",
        ),
        (
            with("server_id = \"a/b\""),
            "4:13: pitaya.server_id: must be a name without spaces and `/`, found \"a/b\"",
        ),
    ] {
        assert_eq!(problems(&text), [format!("shaddock.toml:{expected}")]);
    }
}

#[test]
fn a_cluster_is_told_with_its_keys() {
    let types = "[pomelo]\nmaster = \"127.0.0.1:3005\"\n[[pomelo.type]]\nname = \"chat\"\n";
    let fixed = "[[pomelo.type]]\nname = \"chat\"\nrouter = \"weighted\"\n[[pomelo.server]]\n\
        id = \"chat-1\"\ntype = \"chat\"\naddress = \"127.0.0.1:6050\"\nweight = 3\n\
        [[pomelo.on_closed]]\nremote = \"chat.chatRemote.leave\"\nargs = [\"setting:room\"]\n";
    assert!(parse(types).forwards() && parse(fixed).forwards() && !parse("[pomelo]").forwards());
    for (text, expected) in [
        (
            "[[pomelo.type]]\nname = \"chat\"",
            "1:3: pomelo.master: expected the master's address, or servers as [[pomelo.server]], \
             found none",
        ),
        (
            "[[pomelo.type]]\nname = \"chat\"\nrouter = \"random\"\n[pomelo]\nmaster = \"h:1\"",
            "3:10: pomelo.type[1].router: expected \"default\", \"round robin\", \"weighted\", \
             \"least active\" or \"consistent hash\", found \"random\"",
        ),
        (
            "[[pomelo.type]]\nrouter = \"weighted\"",
            "1:1: pomelo.type[1].name: expected the name of a server type, found none",
        ),
        (
            "[[pomelo.server]]\nid = \"chat-1\"\naddress = \"h:1\"",
            "1:1: pomelo.server[1].type: expected text, as a server has an id, a type and an \
             address, found none",
        ),
        (
            "[[pomelo.on_closed]]\nargs = [\"uid\", \"name\"]",
            "2:16: pomelo.on_closed[1].args[2]: expected \"uid\", \"session id\", \"frontend id\", \
             \"session\", or \"setting:\" and its name, found \"name\"",
        ),
        ("[pomelo]\nmaster = \"h:1\"", "1:2: pomelo.type: must be given at least once, found none"),
        (
            "[pomelo]\nmaster = \"h\"\ntype = [{name = \"chat\"}]",
            "2:10: pomelo.master: must be an address like 127.0.0.1:3005, found \"h\"",
        ),
        (
            "[pomelo]\nmaster = \"h:1\"\ncall_timeout = \"40s\"\ntype = [{name = \"chat\"}]",
            "3:16: pomelo.call_timeout: must be 1 ms to 30000 ms, which is the limit \
             forward_timeout, found \"40s\"",
        ),
        (
            "[pomelo]\nmaster = \"h:1\"\nlisten = \"0.0.0.0:1\"\ntype = [{name = \"chat\"}]",
            "1:2: pomelo.advertise: must be the host by which others reach this machine, as it \
             listens on all of them, found none",
        ),
        (
            "[pomelo]\nmaster = \"h:1\"\ntype = [{name = \"chat\"}]\nserver_info = {since = 1979-05-27}",
            "4:15: pomelo.server_info: expected a table of texts, numbers, flags, lists and tables, \
             found {since = 1979-05-27}",
        ),
        (
            "[pomelo]\nmaster = \"h:1\"\ntype = [{name = \"chat\"}]\nserver_info = {port = 1}",
            "4:15: pomelo.server_info: must be without `port`, which is told of other keys, \
             found {port = 1}",
        ),
        (
            "[pomelo]\nmaster = \"h:1\"\nlisten = \"x\"\ntype = [{name = \"chat\"}]",
            "3:10: pomelo.listen: must be an address like 127.0.0.1:3010 (invalid socket address), \
             found \"x\"",
        ),
    ] {
        assert!(
            problems(text).contains(&format!("shaddock.toml:{expected}")),
            "{text}: {:?}",
            problems(text)
        );
    }
}

#[test]
fn a_second_session_is_let_be_refused_or_wins() {
    let second = |text: &str| parse(&format!("[server]\n{text}")).server.on_second_bind();
    let kick = |reason: &str| Some(OnSecondBind::KickFirst(reason.into()));
    assert_eq!(second(""), None);
    assert_eq!(second("single_session = \"off\""), None);
    assert_eq!(second("single_session = \"refuse\""), Some(OnSecondBind::Refuse));
    assert_eq!(second("single_session = \"kick\""), kick("logged in elsewhere"));
    assert_eq!(second("single_session = \"close\""), Some(OnSecondBind::CloseFirst));
    let away = "single_session = \"kick\"\nsingle_session_reason = \"away\"";
    assert_eq!(second(away), kick("away"));
}

#[test]
fn what_a_listener_needs_is_told() {
    for (text, expected) in [
        (
            "[[listener]]\nproxy_protocol = true",
            "1:1: listener[1].trusted_proxies: expected the proxies' addresses, as nobody else may \
             tell a client's, found its default, []",
        ),
        (
            "[[listener]]\nreal_ip_header = \"X-Real-IP\"\ntrusted_proxies = []",
            "3:19: listener[1].trusted_proxies: expected the proxies' addresses, as nobody else may \
             tell a client's, found []",
        ),
        (
            "[[listener]]\nreal_ip_header = \"X Real\"",
            "2:18: listener[1].real_ip_header: expected a header's name such as \
             \"X-Forwarded-For\", found \"X Real\"",
        ),
        (
            "[[listener]]\norigins = [\"https://a.example\", \"https://a.example/\"]",
            "2:33: listener[1].origins[2]: expected an origin such as \"https://game.example\", \
             without anything behind the host, found \"https://a.example/\"",
        ),
        (
            "[[listener]]\ntls = { key = \"key.pem\" }",
            "2:1: listener[1].tls.certificate: expected a certificate, as there is a key, found none",
        ),
        (
            "[[listener]]\n[[listener]]\n[listener.tls]\ncertificate = \"codes.json\"",
            "3:11: listener[2].tls.key: expected the certificate's key, found none",
        ),
        (
            "[[listener]]\n[listener.tls]\ncertificate = \"codes.json\"\nkey = \"codes.json\"",
            "3:15: listener[1].tls.certificate: expected files that can be read, with a certificate \
             and its key in PEM, found \"codes.json\" (`",
        ),
    ] {
        let problems = problems(text);
        let expected = format!("shaddock.toml:{expected}");
        assert!(problems.len() == 1 && problems[0].starts_with(&expected), "{problems:?}");
    }
}

#[test]
fn files_that_are_named_are_looked_into() {
    for (text, expected) in [
        (
            "[dictionary]\nfile = \"none.json\"",
            "2:8: dictionary.file: expected a file that can be read, found \"none.json\" (No such \
             file or directory (os error 2))",
        ),
        (
            "[protos]\nserver = \"../tests.rs\"",
            "2:10: protos.server: expected Pomelo's JSON schemas, found \"../tests.rs\" (",
        ),
        (
            "[dictionary]\nfile = \"../tests.rs\"",
            "2:8: dictionary.file: expected a JSON list of routes (Pomelo's dictionary.json), or a \
             JSON object of routes and their codes, found \"../tests.rs\" (expected value at line 1 \
             column 1)",
        ),
        (
            "[dictionary]\nroutes = [\"a\"]\nfile = \"codes.json\"",
            "3:8: dictionary.file: expected a JSON list of routes, found \"codes.json\" (a file with \
             codes has all routes: leave handlers and routes out)",
        ),
        (
            "[dictionary]\nfile = \"twice.json\"",
            "2:8: dictionary.file: expected a JSON list of routes (Pomelo's dictionary.json), or a \
             JSON object of routes and their codes, found \"twice.json\" (two routes claim the code \
             1)",
        ),
    ] {
        let problems = problems(text);
        let expected = format!("shaddock.toml:{expected}");
        assert!(problems.len() == 1 && problems[0].starts_with(&expected), "{problems:?}");
    }
    let config = parse("[dictionary]\nfile = \"codes.json\"\n[protos]\nclient = \"protos.json\"");
    let texts: Vec<_> = values(&config).into_iter().map(|(_, text)| text).collect();
    assert!(texts.iter().any(|text| text.contains("onChat")), "another text is another value");
}

#[test]
fn all_mistakes_are_told_in_the_order_of_the_lines() {
    let text = "[server]\nidd = 1\nsingle_session = 1\n[limits]\nbacklog = []\n[x]\n";
    let places: Vec<_> = problems(text);
    let lines: Vec<_> = places.iter().map(|text| text.split(':').nth(1).unwrap()).collect();
    assert_eq!(lines, ["2", "3", "5", "6"], "{places:?}");
    let text = "a = \nb = \nc = 1";
    assert_eq!(problems(text).len(), 2, "{:?}", problems(text));
}

#[test]
fn sizes_and_durations_are_numbers_and_texts() {
    let config = parse(
        "[limits]\npackage_bytes_max = 0x10_0000\nuid_bytes_max = \"1 KiB\"\n\
         idle_timeout = \"1m 30s\"\nconnections_max = 5_000\n",
    );
    let value = |key: &str| config.values[key].text();
    assert_eq!(value("limits.package_bytes_max"), "1048576");
    assert_eq!(value("limits.uid_bytes_max"), "1024");
    assert_eq!(value("limits.idle_timeout"), "90s");
    assert_eq!(value("limits.connections_max"), "5000");
}

/// The same value in other words is no change.
#[test]
fn values_are_compared_by_what_they_are() {
    let same = [
        ("[limits]\nidle_timeout = \"90s\"", "[limits]\nidle_timeout = \"1m 30s\""),
        ("[limits]\npackage_bytes_max = \"2 MiB\"", "[limits]\npackage_bytes_max = 0x20_0000"),
        ("[host_filter]\ndeny = [\"::1\"]", "[host_filter]\ndeny = [\"0:0::1\"]"),
        ("", "[limits]\nbacklog = 4096"),
        ("", "[[pomelo.type]]"),
    ];
    let other = [
        ("[limits]\nidle_timeout = \"90s\"", "[limits]\nidle_timeout = \"91s\""),
        ("", "[pomelo]\nadvertise = \"\""),
        ("", "[server]\nshards = 1"),
        ("[protos]\nclient = \"protos.json\"", "[protos]\nclient = \"./protos.json\""),
    ];
    for (is_same, pairs) in [(true, &same[..]), (false, &other)] {
        for (old, new) in pairs {
            let (old, new) = (parse(old), parse(new));
            let mut keys = old.values.keys().chain(new.values.keys());
            let all_same = keys.all(|key| old.values[key].is_as(&new.values[key]));
            assert_eq!(all_same, is_same, "{:?} {:?}", values(&old), values(&new));
        }
    }
}

#[test]
fn a_change_is_applied_or_needs_a_restart() {
    let engine = parse("[[listener]]\naddress = \"127.0.0.1:0\"\n[server]\nshards = 1");
    let engine = engine.builder().start().unwrap();
    let handle = engine.handle();
    let mut config = parse("");
    let changed = |applied: &[&str], needs_restart: &[&str]| Changed {
        applied: applied.iter().map(|&key| key.to_owned()).collect(),
        needs_restart: needs_restart.iter().map(|&key| key.to_owned()).collect(),
    };
    let next = "[limits]\nbacklog = 9\n[host_filter]\ndeny = [\"::1\"]";
    let first = config.change_to(parse(next), &handle).unwrap();
    assert_eq!(first, changed(&["host_filter.deny"], &["limits.backlog"]));
    // What needs a restart is told again, as long as it does.
    let again = config.change_to(parse(next), &handle).unwrap();
    assert_eq!(again, changed(&[], &["limits.backlog"]));
    let next = "[dictionary]\nroutes = [\"onChat\"]\n[[listener]]\n[[listener]]\naddress = \"a:1\"";
    let source = source(next);
    assert!(Config::parse(&source).is_err(), "a name that nobody has");
    let next = next.replace("a:1", "127.0.0.1:3011");
    let third = config.change_to(parse(&next), &handle).unwrap();
    let applied = ["dictionary.routes", "host_filter.deny"];
    assert_eq!(third, changed(&applied, &["listener[2].address"]));
    drop(engine);
    let stopped = config.change_to(parse(""), &handle);
    assert_eq!(stopped.unwrap_err(), HandleError::Stopped);
    assert_eq!(config.values["dictionary.routes"].text(), "[\"onChat\"]", "it may be asked again");
}

/// A variable wins over the file, and is understood by the kind of its key.
#[test]
fn the_environment_sets_keys_of_every_kind() {
    let text = "[limits]\nbacklog = 9\n[[listener]]\naddress = \"127.0.0.1:0\"\n";
    let variables = [
        ("SHADDOCK__LIMITS__BACKLOG", "10"),
        ("SHADDOCK__LIMITS__IDLE_TIMEOUT", "70s"),
        ("SHADDOCK__LIMITS__PACKAGE_BYTES_MAX", "1 MiB"),
        ("SHADDOCK__SERVER__ID", "1"),
        ("SHADDOCK__SERVER__USE_CRYPTO", "true"),
        ("SHADDOCK__HOST_FILTER__DENY", "[\"::1\", \"::2\"]"),
        ("SHADDOCK__LISTENER__1__ADDRESS", "127.0.0.1:1"),
        ("SHADDOCK__LISTENER__2__ADDRESS", "127.0.0.1:2"),
        ("SHADDOCK__LISTENER__2__ORIGINS__1", "https://a.example"),
        ("SHADDOCK__POMELO__TOKEN", "\"quoted\""),
        ("SHADDOCK__POMELO__SERVER_INFO", "{ region = \"eu\" }"),
        ("SHADDOCK__PITAYA__NATS_USER__CREDENTIAL", "codes.json"),
        ("SHADDOCK__PITAYA__NATS_PASSWORD", "12345"),
    ];
    let source = with_variables(text, &variables);
    let config = Config::parse(&source).unwrap_or_else(|problems| panic!("{problems:?}"));
    for (key, expected) in [
        ("limits.backlog", "10"),
        ("limits.idle_timeout", "70s"),
        ("limits.package_bytes_max", "1048576"),
        ("server.id", "\"1\""),
        ("server.use_crypto", "true"),
        ("listener[1].address", "\"127.0.0.1:1\""),
        ("listener[2].address", "\"127.0.0.1:2\""),
        ("listener[2].origins", "[\"https://a.example\"]"),
        ("pomelo.token", "\"\\\"quoted\\\"\""),
        ("pitaya.nats_password", "\"12345\""),
    ] {
        assert_eq!(config.values[key].text(), expected, "{key}");
    }
    assert!(config.values["pitaya.nats_user"].text().contains("onChat"));
    assert_ne!(config.values["host_filter.deny"].text(), "[]");
}

#[test]
fn the_environment_may_add_many_tables_and_each_one_to_those_of_the_file() {
    let names: Vec<String> = (1..13).map(|n| format!("{PREFIX}LISTENER__{n}__ADDRESS")).collect();
    let mut variables: Vec<(&str, &str)> =
        names.iter().map(|name| (name.as_str(), "127.0.0.1:0")).collect();
    variables.sort_unstable();
    let source = with_variables("[[listener]]\norigins = [\"https://a.example\"]\n", &variables);
    let config = Config::parse(&source).unwrap_or_else(|problems| panic!("{problems:?}"));
    assert_eq!(config.values["listener[12].address"].text(), "\"127.0.0.1:0\"");
    assert_eq!(config.values["listener[1].origins"].text(), "[\"https://a.example\"]");
}

#[test]
fn mistakes_in_the_environment_are_told_with_the_variable() {
    for (name, value, expected) in [
        ("LIMITS__BACKLOGG", "1", "limits.backlogg: unknown key; `backlog` may be meant"),
        ("LIMIT__BACKLOG", "1", "limit: unknown key; `limits` may be meant"),
        ("SERVER__SHARDS", "two", "server.shards: expected a number from 0 to 65535, found two"),
        ("SERVER__SHARDS", "0", "server.shards: must be at least 1, found 0"),
        (
            "LISTENER__3__ADDRESS",
            ":1",
            "expected a number, from 1, without one left out before it, \
          found this name",
        ),
        (
            "LISTENER__ADDRESS",
            ":1",
            "listener: expected tables, each headed [[listener]], found :1",
        ),
        ("SERVER____ID", "a", "expected a key such as SHADDOCK__SERVER__ID, found this name"),
        (
            "HOST_FILTER__DENY",
            "::1",
            "host_filter.deny: expected a list, each of it an IP address, \
          or a block such as \"203.0.113.0/24\", found ::1",
        ),
    ] {
        let name = format!("{PREFIX}{name}");
        let source = with_variables("", &[(&name, value)]);
        let problems = Config::parse(&source).err().unwrap_or_default();
        let told: Vec<String> = problems.iter().map(Problem::to_string).collect();
        assert_eq!(told, [format!("{name}: {expected}")]);
    }
}

const LOGIN: &str = "[pitaya]\nnats = [\"nats://u:hidden@h:1\"]\netcd = [\"h:2\"]\n\
    type = [{ name = \"room\" }]\nnats_user = \"a\"\n";

/// A secret is not in what is told of a file that holds, nor of one that does not.
#[test]
fn secrets_come_from_elsewhere_and_are_not_shown() {
    let text = format!("{LOGIN}nats_password = {{ credential = \"password\" }}\n");
    let mut source = with_variables(&text, &[("SHADDOCK__POMELO__TOKEN", "hidden")]);
    let folder = std::env::temp_dir().join(format!("shaddock-secrets-{}", std::process::id()));
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("password"), "hidden\n").unwrap();
    source.credentials = Some(folder.clone());
    let config = Config::parse(&source).unwrap_or_else(|problems| panic!("{problems:?}"));
    assert_eq!(config.values["pitaya.nats_password"].text(), "\"hidden\"", "without a new line");
    let settings = config.settings.join("\n");
    assert!(!settings.contains("hidden"), "{settings}");
    for line in [
        "pitaya.nats_password: not shown, from the credential password",
        "pomelo.token: not shown, from SHADDOCK__POMELO__TOKEN",
        "pitaya.nats_user = \"a\", from shaddock.toml:5",
    ] {
        assert!(config.settings.iter().any(|setting| setting == line), "{line}\n{settings}");
    }
    // Another text is another value.
    fs::write(folder.join("password"), "other").unwrap();
    let other = Config::parse(&source).unwrap_or_else(|problems| panic!("{problems:?}"));
    let key = "pitaya.nats_password";
    assert!(!config.values[key].is_as(&other.values[key]));
    fs::write(folder.join("password"), "x".repeat(65_537)).unwrap();
    let problems = Config::parse(&source).err().unwrap_or_default();
    let told = problems[0].to_string();
    let expected = "(a file of more than 65536 bytes: name a shorter one)";
    assert!(told.ends_with(&format!("the credential password {expected}")), "{told}");
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn what_stands_elsewhere_and_is_wrong_is_told_without_it() {
    for (value, expected) in [
        (
            "{ file = \"none\" }",
            "expected text in the file none (No such file or directory (os error 2))",
        ),
        (
            "{ credential = \"../password\" }",
            "expected text in the credential ../password (a credential has the name of a file, \
             without a folder)",
        ),
        ("{ credential = 1 }", "expected text, found a value not shown here"),
    ] {
        let expected = format!("shaddock.toml:6:17: pitaya.nats_password: {expected}");
        let text = format!("{LOGIN}nats_password = {value}");
        let source = with_variables(&text, &[]);
        let problems = Config::parse(&source).err().unwrap_or_default();
        assert_eq!(problems[0].to_string(), expected);
    }
    let text = "[limits]\nbacklog = { file = \"codes.json\" }";
    assert_eq!(
        problems(text),
        ["shaddock.toml:2:11: limits.backlog: expected a number from 0 to 4294967295 in the file \
          codes.json (what is there is something else, not shown here)"]
    );
    // What stands in a file of credentials is never taken for its path.
    for key in ["nats_credentials", "nats_ca", "etcd_ca"] {
        let text = format!(
            "[pitaya]\nnats = [\"nats://h:1\"]\netcd = [\"h:2\"]\n\
            type = [{{ name = \"room\" }}]\n{key} = {{ file = \"codes.json\" }}"
        );
        let problems = problems(&text);
        assert!(problems.iter().all(|problem| !problem.contains("onChat")), "{problems:?}");
    }
    let text = "[[listener]]\ntls = { certificate = \"codes.json\", key = { credential = \"x\" } }";
    assert_eq!(
        problems(text),
        [
            "shaddock.toml:2:43: listener[1].tls.key: expected a file in the credential x (there is no \
          $CREDENTIALS_DIRECTORY)"
        ]
    );
}
