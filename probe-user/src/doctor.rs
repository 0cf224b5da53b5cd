//! Evaluates a host: whether it meets the requirements of `probe`, what is missing, and how each interface would be
//! watched. Pure; [`crate::cli`] collects the facts.

use std::io::{self, Write};

use probe_datapath::{
    interfaces::{AttachMode, LinkEnvironment, plan_attach},
    preflight::KernelFeatures,
};
use serde::Serialize;

/// The collected facts about the host. Unknown facts are `None`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HostEnvironment {
    /// Version of this program.
    pub version: &'static str,
    /// The kernel release.
    pub kernel: String,
    /// The architecture.
    pub architecture: String,
    /// The features of the kernel.
    pub features: KernelFeatures,
    /// The user that this process runs as.
    pub uid: u32,
    /// The relevant lines of `/proc/self/status`.
    pub process: ProcessStatus,
    /// Whether this process is in the initial user namespace, where capabilities are valid for BPF.
    pub initial_user_namespace: Option<bool>,
    /// Needed capabilities that are not effective.
    pub missing_capabilities: Vec<String>,
    /// `/sys/kernel/security/lockdown`.
    pub lockdown: Option<String>,
    /// `/proc/sys/net/core/bpf_jit_enable`.
    pub bpf_jit: Option<String>,
    /// Bytes that `RLIMIT_MEMLOCK` allows; `None` for no limit.
    pub memlock_bytes: Option<u64>,
    /// The error of loading the programs; `None` on success.
    pub load_error: Option<String>,
    /// The interfaces, in the order of their index.
    pub interfaces: Vec<InterfaceEnvironment>,
    /// Why the interfaces could not be listed.
    pub interfaces_error: Option<String>,
}

/// The relevant lines of `/proc/self/status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ProcessStatus {
    /// `CapEff`: the capabilities in force, hexadecimal.
    pub cap_eff: Option<String>,
    /// `CapBnd`: the bounding set.
    pub cap_bnd: Option<String>,
    /// `Seccomp`: 0 none, 2 filtered.
    pub seccomp: Option<String>,
    /// `NoNewPrivs`.
    pub no_new_privs: Option<String>,
}

impl ProcessStatus {
    /// Parses the text of `/proc/self/status`.
    pub fn parse(text: &str) -> Self {
        let value = |name: &str| {
            text.lines()
                .filter_map(|line| line.split_once(':'))
                .find_map(|(key, value)| (key == name).then(|| value.trim().to_owned()))
        };
        Self {
            cap_eff: value("CapEff"),
            cap_bnd: value("CapBnd"),
            seccomp: value("Seccomp"),
            no_new_privs: value("NoNewPrivs"),
        }
    }
}

/// An interface and how it would be watched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent facts about one interface"
)]
pub struct InterfaceEnvironment {
    /// The path.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// Its kind; `None` for a physical device.
    pub kind: Option<String>,
    /// Its driver.
    pub driver: Option<String>,
    /// Its MTU.
    pub mtu: u32,
    /// Whether it is up.
    pub up: bool,
    /// Whether it is Ethernet; others have no ARP.
    pub ethernet: bool,
    /// Whether the next two fields could be read.
    pub offloads_known: bool,
    /// `rx-vlan-offload`.
    pub rx_vlan_offload: bool,
    /// `rx-vlan-filter`, if it is in effect.
    pub rx_vlan_filter: bool,
    /// Whether it has VLAN children.
    pub vlans_in_use: bool,
    /// The ID of the attached XDP program.
    pub xdp_program: Option<u32>,
    /// Whether `probe run` without `-i` watches it.
    pub watched_by_default: bool,
    /// The attach mode by `--attach auto`; `None` if it cannot be watched.
    pub mode: Option<&'static str>,
    /// The reason for the mode.
    pub reason: Option<&'static str>,
}

impl InterfaceEnvironment {
    /// Adds the decision of `--attach auto`.
    #[must_use]
    pub fn with_plan(self, link_environment: &LinkEnvironment) -> Self {
        if !self.ethernet {
            return self;
        }
        let plan = plan_attach(AttachMode::Auto, link_environment);
        Self {
            mode: Some(plan.mode.label()),
            reason: Some(plan.reason.label()),
            ..self
        }
    }
}

/// The status of one check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DoctorCheckStatus {
    /// The requirement is met.
    Ok,
    /// Information.
    Info,
    /// It works with restrictions.
    Warning,
    /// A requirement is not met.
    Missing,
}

impl DoctorCheckStatus {
    const fn mark(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Info => "-",
            Self::Warning => "warn",
            Self::Missing => "MISSING",
        }
    }
}

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DoctorCheck {
    /// The name of the check.
    pub name: &'static str,
    /// The status.
    pub status: DoctorCheckStatus,
    /// The observed state, and the next step if one is needed.
    pub text: String,
}

/// The report: facts and checks, as `-o json` prints it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DoctorReport {
    /// Whether all requirements are met.
    pub fit: bool,
    /// The checks.
    pub checks: Vec<DoctorCheck>,
    /// The facts about the host.
    #[serde(flatten)]
    pub environment: HostEnvironment,
}

impl DoctorReport {
    /// Evaluates the facts.
    pub fn new(environment: HostEnvironment) -> Self {
        let checks = checks(&environment);
        Self {
            fit: checks
                .iter()
                .all(|check| check.status != DoctorCheckStatus::Missing),
            checks,
            environment,
        }
    }

    /// Writes the report as text.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let HostEnvironment {
            version,
            kernel,
            architecture,
            ..
        } = &self.environment;
        writeln!(out, "probe {version} on Linux {kernel} {architecture}\n")?;
        for check in &self.checks {
            // Further lines are indented below the first.
            let text = check.text.replace('\n', "\n                        ");
            let mark = check.status.mark();
            writeln!(out, "{mark:<7}  {:<13}  {text}", check.name)?;
        }
        if !self.environment.interfaces.is_empty() {
            write_interfaces(out, &self.environment.interfaces)?;
        }
        writeln!(
            out,
            "\n{}",
            if self.fit {
                "All requirements are met."
            } else {
                "A requirement is missing: see above."
            }
        )
    }
}

fn write_interfaces(out: &mut impl Write, interfaces: &[InterfaceEnvironment]) -> io::Result<()> {
    let width = interfaces
        .iter()
        .map(|interface| interface.name.len())
        .max()
        .unwrap_or(0)
        .max("interface".len());
    writeln!(
        out,
        "\n{:<width$}  {:<12}  {:>5}  {:<5}  {:<28}  with --attach auto",
        "interface", "driver", "mtu", "state", "tags"
    )?;
    for it in interfaces {
        let driver = it.driver.as_deref().or(it.kind.as_deref()).unwrap_or("-");
        let state = if it.up { "up" } else { "down" };
        let how = match (it.mode, it.reason) {
            (Some(mode), Some(reason)) => format!("{mode} ({reason})"),
            _ => "skipped: not Ethernet".to_owned(),
        };
        let default = if it.watched_by_default {
            ", watched by default"
        } else {
            ""
        };
        let xdp = it.xdp_program.map_or(String::new(), |id| {
            format!(", XDP program {id} is attached")
        });
        writeln!(
            out,
            "{:<width$}  {driver:<12}  {:>5}  {state:<5}  {:<28}  {how}{default}{xdp}",
            it.name,
            it.mtu,
            tags(it)
        )?;
    }
    Ok(())
}

/// The VLAN offloads of the interface, with the names of ethtool.
fn tags(it: &InterfaceEnvironment) -> String {
    if !it.offloads_known {
        return "not known".to_owned();
    }
    let words = [
        (it.rx_vlan_offload, "rx-vlan-offload"),
        (it.rx_vlan_filter, "rx-vlan-filter"),
        (it.vlans_in_use, "VLANs in use"),
    ];
    let words: Vec<_> = words
        .into_iter()
        .filter_map(|(is, word)| is.then_some(word))
        .collect();
    if words.is_empty() {
        "-".to_owned()
    } else {
        words.join(", ")
    }
}

fn checks(environment: &HostEnvironment) -> Vec<DoctorCheck> {
    vec![
        kernel(environment),
        capabilities(environment),
        user_namespace(environment),
        loading(environment),
        seccomp(environment),
        lockdown(environment),
        memlock(environment),
        feature(
            "TCX",
            environment.features.tcx,
            "TC programs are attached first, as links (TCX)",
            "requires Linux 6.6: clsact filters are used, and one remains after a kill -9 until the next start",
        ),
        feature(
            "jumbo XDP",
            environment.features.multi_buffer_xdp,
            "XDP supports frames larger than a page",
            "requires Linux 5.18: TC is used for large MTUs",
        ),
        feature(
            "BTF",
            environment.features.btf,
            "available (not required)",
            "not available (not required)",
        ),
        jit(environment),
        interfaces(environment),
    ]
}

fn check(name: &'static str, status: DoctorCheckStatus, text: impl Into<String>) -> DoctorCheck {
    DoctorCheck {
        name,
        status,
        text: text.into(),
    }
}

fn kernel(environment: &HostEnvironment) -> DoctorCheck {
    let version = &environment.kernel;
    if environment.features.supported {
        check("kernel", DoctorCheckStatus::Ok, format!("Linux {version}"))
    } else {
        let text = format!("Linux {version} is too old: 5.10 or newer is required");
        check("kernel", DoctorCheckStatus::Missing, text)
    }
}

fn capabilities(environment: &HostEnvironment) -> DoctorCheck {
    let held = environment
        .process
        .cap_eff
        .as_deref()
        .unwrap_or("not readable");
    let shown = format!("user {}, CapEff {held}", environment.uid);
    if environment.missing_capabilities.is_empty() {
        check("capabilities", DoctorCheckStatus::Ok, shown)
    } else {
        let missing = environment.missing_capabilities.join(", ");
        let text =
            format!("{shown}\nmissing {missing}: run it as root (sudo probe …), or grant them");
        check("capabilities", DoctorCheckStatus::Missing, text)
    }
}

fn user_namespace(environment: &HostEnvironment) -> DoctorCheck {
    match environment.initial_user_namespace {
        Some(true) => check("user ns", DoctorCheckStatus::Ok, "the machine's own"),
        Some(false) => check(
            "user ns",
            DoctorCheckStatus::Missing,
            "not the machine's own: capabilities do not count for BPF here\n\
             run it outside (no rootless container, hostUsers: true)",
        ),
        None => check("user ns", DoctorCheckStatus::Info, "unknown"),
    }
}

fn loading(environment: &HostEnvironment) -> DoctorCheck {
    match &environment.load_error {
        None => check("programs", DoctorCheckStatus::Ok, "BPF load test passed"),
        Some(error) => check("programs", DoctorCheckStatus::Missing, error.clone()),
    }
}

fn seccomp(environment: &HostEnvironment) -> DoctorCheck {
    let no_new_privs = match environment.process.no_new_privs.as_deref() {
        Some("1") => ", no new privileges",
        _ => "",
    };
    match environment.process.seccomp.as_deref() {
        Some("0") => check(
            "seccomp",
            DoctorCheckStatus::Ok,
            format!("no filter{no_new_privs}"),
        ),
        Some(mode) => {
            let text = format!(
                "mode {mode}{no_new_privs}: a profile filters system calls; it must allow bpf(2)"
            );
            // The load test shows whether it does.
            check("seccomp", DoctorCheckStatus::Info, text)
        }
        None => check("seccomp", DoctorCheckStatus::Info, "unknown"),
    }
}

fn lockdown(environment: &HostEnvironment) -> DoctorCheck {
    match environment.lockdown.as_deref() {
        Some(state) if state.contains("[none]") => check("lockdown", DoctorCheckStatus::Ok, "none"),
        Some(state) if state.contains("[integrity]") => {
            check("lockdown", DoctorCheckStatus::Ok, "integrity")
        }
        Some(state) => check(
            "lockdown",
            DoctorCheckStatus::Warning,
            format!(
                "{state}: confidentiality prevents BPF from reading kernel memory; probe reads none"
            ),
        ),
        None => check(
            "lockdown",
            DoctorCheckStatus::Info,
            "not in this kernel, or unknown",
        ),
    }
}

fn memlock(environment: &HostEnvironment) -> DoctorCheck {
    /// The memory of the maps at their default sizes on a small host, rounded up.
    const SUFFICIENT_BYTES: u64 = 64 << 20;
    let limit = environment
        .memlock_bytes
        .map_or("no limit".to_owned(), |bytes| format!("{bytes} bytes"));
    if environment.features.cgroup_memory {
        let text = format!("{limit}; maps count against the control group instead (5.11)");
        return check("memlock", DoctorCheckStatus::Ok, text);
    }
    match environment.memlock_bytes {
        Some(bytes) if bytes < SUFFICIENT_BYTES => check(
            "memlock",
            DoctorCheckStatus::Warning,
            format!(
                "{limit}: little for maps below Linux 5.11; raised at start where CAP_SYS_RESOURCE \
                 is there, else use ulimit -l unlimited"
            ),
        ),
        _ => check("memlock", DoctorCheckStatus::Ok, limit),
    }
}

fn feature(name: &'static str, is: bool, yes: &str, no: &str) -> DoctorCheck {
    check(name, DoctorCheckStatus::Info, if is { yes } else { no })
}

fn jit(environment: &HostEnvironment) -> DoctorCheck {
    match environment.bpf_jit.as_deref() {
        Some("0") => check(
            "BPF JIT",
            DoctorCheckStatus::Warning,
            "off: programs are interpreted, which costs many times more per frame\n\
             sysctl net.core.bpf_jit_enable=1",
        ),
        Some(_) => check("BPF JIT", DoctorCheckStatus::Ok, "on"),
        None => check("BPF JIT", DoctorCheckStatus::Info, "unknown"),
    }
}

fn interfaces(environment: &HostEnvironment) -> DoctorCheck {
    if let Some(error) = &environment.interfaces_error {
        return check("interfaces", DoctorCheckStatus::Missing, error.clone());
    }
    let watched: Vec<_> = environment
        .interfaces
        .iter()
        .filter(|interface| interface.watched_by_default)
        .map(|interface| interface.name.as_str())
        .collect();
    if watched.is_empty() {
        let text = "no interface matches the defaults: name one with -i";
        check("interfaces", DoctorCheckStatus::Warning, text)
    } else {
        check("interfaces", DoctorCheckStatus::Ok, watched.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(name: &str) -> InterfaceEnvironment {
        InterfaceEnvironment {
            name: name.to_owned(),
            index: 2,
            kind: None,
            driver: Some("mlx5_core".to_owned()),
            mtu: 1500,
            up: true,
            ethernet: true,
            offloads_known: true,
            rx_vlan_offload: true,
            rx_vlan_filter: true,
            vlans_in_use: false,
            xdp_program: None,
            watched_by_default: true,
            mode: None,
            reason: None,
        }
    }

    fn healthy() -> HostEnvironment {
        HostEnvironment {
            version: "0.0.0",
            kernel: "6.12.1".to_owned(),
            architecture: "x86_64".to_owned(),
            features: KernelFeatures {
                supported: true,
                tcx: true,
                multi_buffer_xdp: true,
                cgroup_memory: true,
                btf: true,
            },
            uid: 0,
            process: ProcessStatus::parse(
                "Name:\tprobe\nCapEff:\t000001ffffffffff\nCapBnd:\t000001ffffffffff\nNoNewPrivs:\t0\nSeccomp:\t0\n",
            ),
            initial_user_namespace: Some(true),
            missing_capabilities: Vec::new(),
            lockdown: Some("[none] integrity confidentiality".to_owned()),
            bpf_jit: Some("1".to_owned()),
            memlock_bytes: Some(8 << 20),
            load_error: None,
            interfaces: vec![interface("eth0")],
            interfaces_error: None,
        }
    }

    fn status(environment: &HostEnvironment, name: &str) -> DoctorCheckStatus {
        let checks = checks(environment);
        checks
            .iter()
            .find(|check| check.name == name)
            .unwrap()
            .status
    }

    fn text(environment: HostEnvironment) -> String {
        let mut out = Vec::new();
        DoctorReport::new(environment).write(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_healthy_host_is_fit() {
        let report = DoctorReport::new(healthy());
        assert!(report.fit, "{report:?}");
        assert!(
            report.checks.iter().all(|check| matches!(
                check.status,
                DoctorCheckStatus::Ok | DoctorCheckStatus::Info
            )),
            "{report:?}"
        );
    }

    #[test]
    fn each_missing_requirement_makes_the_host_unfit() {
        let features = healthy().features;
        let cases = [
            (
                "kernel",
                HostEnvironment {
                    features: KernelFeatures {
                        supported: false,
                        ..features
                    },
                    ..healthy()
                },
            ),
            (
                "capabilities",
                HostEnvironment {
                    missing_capabilities: vec!["CAP_PERFMON".to_owned()],
                    ..healthy()
                },
            ),
            (
                "user ns",
                HostEnvironment {
                    initial_user_namespace: Some(false),
                    ..healthy()
                },
            ),
            (
                "programs",
                HostEnvironment {
                    load_error: Some("the kernel refuses".to_owned()),
                    ..healthy()
                },
            ),
            (
                "interfaces",
                HostEnvironment {
                    interfaces_error: Some("no netlink".to_owned()),
                    ..healthy()
                },
            ),
        ];
        for (name, environment) in cases {
            assert_eq!(status(&environment, name), DoctorCheckStatus::Missing);
            assert!(!DoctorReport::new(environment.clone()).fit, "{name}");
            assert!(text(environment).contains("MISSING"), "{name}");
        }
    }

    #[test]
    fn unknown_facts_are_shown_and_are_no_failure() {
        let environment = HostEnvironment {
            process: ProcessStatus::default(),
            initial_user_namespace: None,
            lockdown: None,
            bpf_jit: None,
            ..healthy()
        };
        for name in ["user ns", "seccomp", "lockdown", "BPF JIT"] {
            assert_eq!(
                status(&environment, name),
                DoctorCheckStatus::Info,
                "{name}"
            );
        }
        assert!(DoctorReport::new(environment.clone()).fit);
        assert!(text(environment).contains("unknown"));
    }

    #[test]
    fn small_memlock_limit_is_reported_only_below_5_11() {
        let small = HostEnvironment {
            memlock_bytes: Some(64 << 10),
            ..healthy()
        };
        assert_eq!(status(&small, "memlock"), DoctorCheckStatus::Ok);
        let old = |memlock_bytes| HostEnvironment {
            features: KernelFeatures {
                cgroup_memory: false,
                ..healthy().features
            },
            memlock_bytes,
            ..healthy()
        };
        assert_eq!(
            status(&old(Some(64 << 10)), "memlock"),
            DoctorCheckStatus::Warning
        );
        assert_eq!(status(&old(None), "memlock"), DoctorCheckStatus::Ok);
        assert!(DoctorReport::new(old(Some(64 << 10))).fit);
    }

    #[test]
    fn lockdown_and_a_filter_are_named() {
        let environment = HostEnvironment {
            lockdown: Some("none integrity [confidentiality]".to_owned()),
            process: ProcessStatus::parse("Seccomp:\t2\nNoNewPrivs:\t1\n"),
            ..healthy()
        };
        assert_eq!(status(&environment, "lockdown"), DoctorCheckStatus::Warning);
        let text = text(environment);
        assert!(text.contains("mode 2, no new privileges"), "{text}");
    }

    #[test]
    fn each_interface_is_shown_with_mode_and_reason() {
        let card = LinkEnvironment {
            driver: Some("mlx5_core".to_owned()),
            mtu: 1500,
            ..LinkEnvironment::default()
        };
        let lo = InterfaceEnvironment {
            ethernet: false,
            watched_by_default: false,
            ..interface("lo")
        };
        let environment = HostEnvironment {
            interfaces: vec![interface("eth0").with_plan(&card), lo.with_plan(&card)],
            ..healthy()
        };
        let text = text(environment);
        let line = |name| {
            let start = format!("{name} ");
            text.lines()
                .find(|line| line.starts_with(&start))
                .unwrap_or_else(|| panic!("{name} in {text}"))
        };
        assert!(line("eth0").contains("native (native_available), watched by default"));
        assert!(line("eth0").contains("rx-vlan-offload, rx-vlan-filter"));
        assert!(line("lo").contains("not Ethernet"));
    }

    #[test]
    fn host_without_a_default_interface_is_advised_to_name_one() {
        let environment = HostEnvironment {
            interfaces: Vec::new(),
            ..healthy()
        };
        assert_eq!(
            status(&environment, "interfaces"),
            DoctorCheckStatus::Warning
        );
        assert!(DoctorReport::new(environment).fit);
    }
}
