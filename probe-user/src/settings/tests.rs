//! Tests of the settings by source.

use std::fs;

use clap::{Args, Parser, Subcommand, ValueEnum};
use tempfile::TempDir;

use super::*;

#[derive(Debug, Parser)]
#[command(name = "probe")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Run(Flags),
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Mode {
    Auto,
    Native,
}

#[derive(Debug, Args)]
struct Flags {
    #[arg(long)]
    config: Option<PathBuf>,
    #[arg(long, default_value = "1s")]
    settle: String,
    #[arg(long, value_enum, default_value_t = Mode::Auto)]
    attach: Mode,
    #[arg(long, value_delimiter = ',', value_name = "CIDR")]
    track: Vec<ipnet::IpNet>,
    #[arg(long, value_name = "MAC,MAC…")]
    same_owner: Vec<String>,
    #[arg(long, value_name = "CIDR[@EXPIRES]=REASON")]
    ignore: Vec<String>,
    #[arg(long, value_name = "IFACE[.VID]=NAME", value_delimiter = ',')]
    segment: Vec<String>,
    #[arg(long)]
    loud: bool,
    #[arg(long, value_parser = clap::value_parser!(u32).range(2..=9))]
    number: Option<u32>,
}

struct Case {
    directory: TempDir,
}

impl Case {
    fn new() -> Self {
        Self {
            directory: TempDir::new().unwrap(),
        }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("config.yaml")
    }

    fn load_bytes(
        &self,
        arguments: &[&str],
        variables: &[(&str, &str)],
        file: &[u8],
    ) -> Result<LoadedSettings, SettingsError> {
        fs::write(self.path(), file).unwrap();
        let path = self.path();
        let first = ["probe", "run", "--config", path.to_str().unwrap()];
        let arguments = first.iter().chain(arguments);
        let variables = variables
            .iter()
            .map(|(name, value)| (name.into(), value.into()));
        Invocation::new(
            <Cli as clap::CommandFactory>::command(),
            "run",
            arguments.map(OsString::from).collect(),
            variables,
        )?
        .load()
    }

    fn load(&self, arguments: &[&str], variables: &[(&str, &str)], file: &str) -> LoadedSettings {
        self.load_bytes(arguments, variables, file.as_bytes())
            .unwrap()
    }

    /// The error about a file, without its path.
    fn complaint(&self, file: &[u8]) -> String {
        let error = self.load_bytes(&[], &[], file).unwrap_err().to_string();
        error.replace(self.path().to_str().unwrap(), "FILE")
    }
}

fn get(loaded: &LoadedSettings, key: &str) -> (Vec<String>, SettingOrigin) {
    let setting = loaded
        .settings
        .iter()
        .find(|setting| setting.key == key)
        .unwrap();
    let values = setting
        .values
        .iter()
        .map(|value| value.to_str().unwrap().to_owned());
    (values.collect(), setting.origin.clone())
}

fn values(file: &str, key: &str) -> Vec<String> {
    get(&Case::new().load(&[], &[], file), key).0
}

#[test]
fn flags_override_variables_which_override_the_file_which_overrides_defaults() {
    let variable = |name: &str| SettingOrigin::Variable(name.to_owned());
    for (key, flag, (name, by_variable), by_file, default) in [
        (
            "settle",
            "--settle=3s",
            ("ARP_MONITOR_SETTLE", "4s"),
            "5s",
            "1s",
        ),
        (
            "attach",
            "--attach=auto",
            ("ARP_MONITOR_ATTACH", "native"),
            "native",
            "auto",
        ),
        (
            "track",
            "--track=192.0.2.3/32",
            ("ARP_MONITOR_TRACK", "192.0.2.4/32"),
            "192.0.2.5/32",
            "",
        ),
        (
            "loud",
            "--loud",
            ("ARP_MONITOR_LOUD", "true"),
            "true",
            "false",
        ),
        ("number", "--number=3", ("ARP_MONITOR_NUMBER", "4"), "5", ""),
    ] {
        let case = Case::new();
        let file = format!("# settings\n{key}: {by_file}\n");
        let typed = flag.split_once('=').map_or("true", |(_, value)| value);
        for (flags, variables, file, expected, origin) in [
            (
                &[flag][..],
                &[(name, by_variable)][..],
                file.as_str(),
                typed,
                SettingOrigin::Flag,
            ),
            (&[flag], &[], &file, typed, SettingOrigin::Flag),
            (
                &[],
                &[(name, by_variable)],
                &file,
                by_variable,
                variable(name),
            ),
            (&[], &[(name, "")], &file, by_file, SettingOrigin::Line(2)),
            (&[], &[], &file, by_file, SettingOrigin::Line(2)),
            (
                &[],
                &[(name, by_variable)],
                "{}",
                by_variable,
                variable(name),
            ),
            (&[], &[], "{}", default, SettingOrigin::Default),
            (
                &[],
                &[],
                &format!("{key}:\n"),
                default,
                SettingOrigin::Default,
            ),
        ] {
            let loaded = case.load(flags, variables, file);
            let expected: Vec<_> = (!expected.is_empty())
                .then(|| expected.to_owned())
                .into_iter()
                .collect();
            assert_eq!(
                get(&loaded, key),
                (expected, origin),
                "{flags:?} {variables:?} {file}"
            );
        }
    }
}

#[test]
fn switch_can_be_disabled_by_a_source_with_precedence() {
    let case = Case::new();
    let loaded = case.load(&[], &[("ARP_MONITOR_LOUD", "false")], "loud: true\n");
    assert_eq!(get(&loaded, "loud").0, ["false"]);
    let error = case
        .load_bytes(&[], &[("ARP_MONITOR_LOUD", "loud")], b"{}")
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "the environment variable ARP_MONITOR_LOUD: \"loud\" is not one of true, false"
    );
}

#[test]
fn settings_file_is_named_by_a_flag_or_a_variable() {
    let directory = TempDir::new().unwrap();
    let path = |name: &str| {
        let path = directory.path().join(name);
        fs::write(&path, format!("settle: {}s\n", name.len())).unwrap();
        path.into_os_string()
    };
    let settle = |arguments: Vec<OsString>, variables: Vec<(OsString, OsString)>| {
        let arguments = ["probe", "run"]
            .map(OsString::from)
            .into_iter()
            .chain(arguments);
        let command = <Cli as clap::CommandFactory>::command();
        let invocation = Invocation::new(command, "run", arguments.collect(), variables).unwrap();
        get(&invocation.load().unwrap(), "settle").0
    };
    let variable = vec![("ARP_MONITOR_CONFIG".into(), path("four"))];
    let flag = vec!["--config".into(), path("three")];
    assert_eq!(settle(flag, variable.clone()), ["5s"]);
    assert_eq!(settle(vec![], variable), ["4s"]);
    assert_eq!(settle(vec![], vec![]), ["1s"]);
}

#[test]
fn lists_and_maps_are_written_as_one_expects_them() {
    let networks = ["192.0.2.0/24", "198.51.100.0/24"];
    for file in [
        "track: [192.0.2.0/24, 198.51.100.0/24]",
        "track:\n  - 192.0.2.0/24\n  - 198.51.100.0/24\n",
        "track: 192.0.2.0/24,198.51.100.0/24",
    ] {
        assert_eq!(values(file, "track"), networks, "{file}");
    }
    assert_eq!(values("track: []", "track"), [""; 0]);
    for file in [
        "same-owner: [[02:00:00:00:00:01, 02:00:00:00:00:02]]",
        "same-owner:\n  - 02:00:00:00:00:01,02:00:00:00:00:02\n",
        "same-owner:\n- - 02:00:00:00:00:01\n  - 02:00:00:00:00:02\n",
    ] {
        assert_eq!(
            values(file, "same-owner"),
            ["02:00:00:00:00:01,02:00:00:00:00:02"],
            "{file}"
        );
    }
    for file in [
        "ignore: [{cidr: 192.0.2.0/24, reason: 'a, b = c', expires: 2027-01-31}]",
        "ignore:\n  cidr: 192.0.2.0/24\n  expires: 2027-01-31\n  reason: >\n    a, b\n    = c\n",
        "ignore: 192.0.2.0/24@2027-01-31=a, b = c",
        "ignore: {192.0.2.0/24@2027-01-31: 'a, b = c'}",
    ] {
        assert_eq!(
            values(file, "ignore"),
            ["192.0.2.0/24@2027-01-31=a, b = c"],
            "{file}"
        );
    }
    for file in [
        "segment: {eth0: office, eth0.100: lab}",
        "segment:\n  eth0: office\n  eth0.100: lab\n",
        "segment: [{iface: eth0, name: office}, {iface: eth0, vid: 100, name: lab}]",
        "segment: [eth0=office, eth0.100=lab]",
    ] {
        assert_eq!(
            values(file, "segment"),
            ["eth0=office", "eth0.100=lab"],
            "{file}"
        );
    }
}

#[test]
fn variable_values_are_split_by_the_separator_of_the_flag_or_by_lines() {
    let case = Case::new();
    let variables = [
        ("ARP_MONITOR_TRACK", "192.0.2.0/24, 198.51.100.0/24"),
        (
            "ARP_MONITOR_IGNORE",
            "192.0.2.0/24=a, b\n\n198.51.100.0/24=c\n",
        ),
    ];
    let loaded = case.load(&[], &variables, "{}");
    assert_eq!(get(&loaded, "track").0, ["192.0.2.0/24", "198.51.100.0/24"]);
    assert_eq!(
        get(&loaded, "ignore").0,
        ["192.0.2.0/24=a, b", "198.51.100.0/24=c"]
    );
}

#[test]
fn unknown_key_is_reported_with_its_line_and_the_valid_keys() {
    let case = Case::new();
    let all = "the settings are: settle, attach, track, same-owner, ignore, segment, loud, number";
    for (file, complaint) in [
        (
            "settle: 1s\ntrak: x\n",
            &*format!("FILE:2: unknown setting \"trak\" (is track meant?); {all}"),
        ),
        (
            "config: x\n",
            &format!("FILE:1: unknown setting \"config\"; {all}"),
        ),
        (
            "q=b: x\n",
            &format!("FILE:1: unknown setting \"q=b\"; {all}"),
        ),
        ("'': x\n", &format!("FILE:1: unknown setting \"\"; {all}")),
    ] {
        assert_eq!(case.complaint(file.as_bytes()), complaint, "{file:?}");
    }
}

#[test]
fn invalid_value_is_reported_with_its_line_and_the_expected_format() {
    let case = Case::new();
    for (file, complaint) in [
        (
            "\n\nattach: natve\n",
            "FILE:3: attach: \"natve\" is not one of auto, native (is native meant?)",
        ),
        ("number: 1\n", "FILE:1: number: \"1\": 1 is not in 2..=9"),
        ("number: -1\n", "FILE:1: number: \"-1\": -1 is not in 2..=9"),
        (
            "number: [3]\n",
            "FILE:1: number: expected one value, not a list or a map",
        ),
        (
            "number: ''\n",
            "FILE:1: number: \"\": cannot parse integer from empty string",
        ),
        (
            "loud: yes\n",
            "FILE:1: loud: \"yes\" is not one of true, false",
        ),
        ("loud: [true]\n", "FILE:1: loud: expected true or false"),
        (
            "track:\n- 192.0.2.0/24\n- 192.0.2.0/33\n",
            "FILE:3: track: \"192.0.2.0/33\": invalid IP address syntax",
        ),
        (
            "track: {a: b}\n",
            "FILE:1: track: expected a value or a list, not a map",
        ),
        (
            "track: [[192.0.2.0/24]]\n",
            "FILE:1: track: expected a list of values, not of lists",
        ),
        (
            "track: [{a: b}]\n",
            "FILE:1: track: expected a list of values, not of maps",
        ),
        (
            "track:\n -\n",
            "FILE:2: track: an item of the list is empty",
        ),
        (
            "ignore:\n- cidr: 192.0.2.0/24\n",
            "FILE:2: ignore: reason is missing",
        ),
        (
            "ignore:\n- cidr: 192.0.2.0/24\n  until: x\n",
            "FILE:3: ignore: unknown field \"until\"; the fields are: cidr, expires, reason",
        ),
        (
            "ignore:\n- cidr: 192.0.2.0/24\n  reason: |\n    a\n    b\n",
            "FILE:4: ignore: more than one line",
        ),
        (
            "ignore: [{cidr: a=b, reason: x}]\n",
            "FILE:1: ignore: cidr contains =: \"a=b\"",
        ),
        (
            "segment: {eth0: [a]}\n",
            "FILE:1: segment: eth0: expected one value",
        ),
    ] {
        assert_eq!(case.complaint(file.as_bytes()), complaint, "{file:?}");
    }
}

#[test]
fn invalid_settings_file_is_rejected_with_a_reason() {
    let case = Case::new();
    for (file, complaint) in [
        ("settle: 1s\n\nsettle: 2s\n", "FILE:3: duplicate key settle"),
        ("", "FILE: the file is empty; write `{}` for defaults"),
        (
            "# nothing\n",
            "FILE: the file is empty; write `{}` for defaults",
        ),
        ("- a\n", "FILE:1: not a map of settings like `attach: tc`"),
        (
            "nonsense\n",
            "FILE:1: not a map of settings like `attach: tc`",
        ),
    ] {
        assert_eq!(case.complaint(file.as_bytes()), complaint, "{file:?}");
    }
    assert_eq!(case.complaint(b"a: 1\nb: \xff\n"), "FILE:2: not UTF-8");
    let huge = vec![b'#'; (1 << 20) + 1];
    assert_eq!(
        case.complaint(&huge),
        "FILE: larger than 1 MiB, the maximum for settings"
    );
}

#[test]
fn a_value_that_is_hidden_is_looked_at_too() {
    let case = Case::new();
    let error = case
        .load_bytes(&["--number", "3"], &[], b"number: 1\n")
        .unwrap_err();
    assert!(matches!(error, SettingsError::Value { .. }), "{error}");
    let error = case
        .load_bytes(&["--number", "3"], &[("ARP_MONITOR_NUMBER", "x")], b"{}")
        .unwrap_err();
    assert!(matches!(error, SettingsError::Variable { .. }), "{error}");
}

#[test]
fn directory_as_settings_file_is_an_error() {
    let case = Case::new();
    fs::create_dir(case.path()).unwrap();
    let path = case.path();
    let arguments = ["probe", "run", "--config", path.to_str().unwrap()].map(OsString::from);
    let command = <Cli as clap::CommandFactory>::command();
    let invocation = Invocation::new(command, "run", arguments.to_vec(), []).unwrap();
    let error = anyhow::Error::from(invocation.load().unwrap_err());
    let complaint = format!("{error:#}");
    assert!(complaint.ends_with(": not a regular file"), "{complaint}");
}

#[test]
fn unknown_variable_is_reported_unless_kubernetes_set_it() {
    let names = [
        "ARP_MONITOR_TRAK",
        "ARP_MONITOR_TRACK",
        "ARP_MONITOR_CONFIG",
        "ARP_MONITOR_PORT",
        "ARP_MONITOR_PORT_9790_TCP",
        "ARP_MONITOR_SERVICE_HOST",
        "OTHER",
    ];
    let variables = names.map(|name| (name.into(), "192.0.2.0/24".into()));
    let arguments = ["probe", "run"].map(OsString::from).to_vec();
    let command = <Cli as clap::CommandFactory>::command();
    let invocation = Invocation::new(command, "run", arguments, variables).unwrap();
    assert_eq!(invocation.unknown_variables(), ["ARP_MONITOR_TRAK"]);
}

#[test]
fn shown_settings_round_trip() {
    let case = Case::new();
    let file = "settle: 5s\nloud: true\nignore:\n- {cidr: 192.0.2.0/24, reason: 'x: \"y\" # z'}\n\
                segment: {eth0: 'null', eth1: '~'}\ntrack: [192.0.2.0/24, 2001:db8::/32]\n";
    let before = case.load(
        &["--number", "3"],
        &[("ARP_MONITOR_ATTACH", "native")],
        file,
    );
    let shown = before.show();
    for line in [
        "settle: 5s  # FILE:1",
        "attach: native  # ARP_MONITOR_ATTACH",
        "number: 3  # --number",
        "same-owner: []  # default",
        "ignore:  # FILE:3",
    ] {
        let line = line.replace("FILE", case.path().to_str().unwrap());
        assert!(shown.lines().any(|shown| shown == line), "{line}\n{shown}");
    }
    let after = case.load(&[], &[], &shown);
    assert_eq!(
        changed(&before.settings, &after.settings),
        [""; 0],
        "{shown}"
    );
    let other = case.load(&[], &[], "settle: 6s\n");
    let keys = [
        "settle", "attach", "track", "ignore", "segment", "loud", "number",
    ];
    assert_eq!(changed(&before.settings, &other.settings), keys);
}

#[test]
fn large_file_is_parsed_and_its_one_invalid_network_is_reported() {
    use std::fmt::Write as _;
    let mut file = "track:\n".to_owned();
    for number in 0..20_000u32 {
        let network = std::net::Ipv4Addr::from(0x0a00_0000 + (number << 8));
        writeln!(file, "- {network}/24").unwrap();
    }
    assert_eq!(values(&file, "track").len(), 20_000);
    let case = Case::new();
    let complaint = case.complaint(file.replace("10.60.0.0/24", "10.60.0.0/42").as_bytes());
    assert!(
        complaint.starts_with("FILE:15362: track: \"10.60.0.0/42\""),
        "{complaint}"
    );
}
