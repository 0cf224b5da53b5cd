//! Judges a host: whether it has what `probe` needs, what is missing, and how each interface would be
//! watched. Pure; who looks is [`crate::cli`].

use std::io::{self, Write};

use probe_datapath::{
    interfaces::{AttachMode, LinkEnvironment, plan_attach},
    preflight::KernelFeatures,
};
use serde::Serialize;

/// Everything that was looked at. What could not be seen is `None`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HostEnvironment {
    /// Version of this program.
    pub version: &'static str,
    /// The kernel's name for itself.
    pub kernel: String,
    /// The machine's architecture.
    pub architecture: String,
    /// What the kernel can do.
    pub features: KernelFeatures,
    /// The user that this process runs as.
    pub uid: u32,
    /// What `/proc/self/status` says.
    pub process: ProcessStatus,
    /// Whether this process is in the user namespace of the machine, where capabilities count for BPF.
    pub initial_user_namespace: Option<bool>,
    /// Needed capabilities that are not effective.
    pub missing_capabilities: Vec<String>,
    /// `/sys/kernel/security/lockdown`.
    pub lockdown: Option<String>,
    /// `/proc/sys/net/core/bpf_jit_enable`.
    pub bpf_jit: Option<String>,
    /// Bytes that `RLIMIT_MEMLOCK` allows; `None` for no limit.
    pub memlock_bytes: Option<u64>,
    /// What came of loading the programs: nothing if all went well.
    pub load_error: Option<String>,
    /// The interfaces, in the order of their index.
    pub interfaces: Vec<InterfaceEnvironment>,
    /// Why they could not be listed.
    pub interfaces_error: Option<String>,
}

/// The lines of `/proc/self/status` that matter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ProcessStatus {
    /// `CapEff`: the capabilities in force, hexadecimal.
    pub cap_eff: Option<String>,
    /// `CapBnd`: those that could be had.
    pub cap_bnd: Option<String>,
    /// `Seccomp`: 0 none, 2 filtered.
    pub seccomp: Option<String>,
    /// `NoNewPrivs`.
    pub no_new_privs: Option<String>,
}

impl ProcessStatus {
    /// Reads the text of `/proc/self/status`.
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
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// What it is; `None` for a device of its own.
    pub kind: Option<String>,
    /// The driver behind it.
    pub driver: Option<String>,
    /// Its MTU.
    pub mtu: u32,
    /// Whether it is up.
    pub up: bool,
    /// Whether frames on it are Ethernet's: else there is no ARP to see.
    pub ethernet: bool,
    /// Whether the next two could be read.
    pub offloads_known: bool,
    /// `rx-vlan-offload`.
    pub rx_vlan_offload: bool,
    /// `rx-vlan-filter`, where it is in force.
    pub rx_vlan_filter: bool,
    /// Whether there are VLAN children on it.
    pub vlans_in_use: bool,
    /// The XDP program that is attached.
    pub xdp_program: Option<u32>,
    /// Whether `probe run` without `-i` watches it.
    pub watched_by_default: bool,
    /// How `--attach auto` would watch it; `None` where there is nothing to watch.
    pub mode: Option<&'static str>,
    /// Why so.
    pub reason: Option<&'static str>,
}

impl InterfaceEnvironment {
    /// Adds what `--attach auto` would do.
    #[must_use]
    pub fn with_plan(self, circumstances: &LinkEnvironment) -> Self {
        if !self.ethernet {
            return self;
        }
        let plan = plan_attach(AttachMode::Auto, circumstances);
        Self {
            mode: Some(plan.mode.label()),
            reason: Some(plan.reason.label()),
            ..self
        }
    }
}

/// How one thing stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DoctorCheckStatus {
    /// As it should be.
    Ok,
    /// Good to know.
    Info,
    /// It works, with less.
    Warning,
    /// It does not work like this.
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

/// One thing that was judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DoctorCheck {
    /// What.
    pub name: &'static str,
    /// How it stands.
    pub standing: DoctorCheckStatus,
    /// What was seen, and what to do where something is to be done.
    pub text: String,
}

/// The picture with its judgement: what `-o json` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DoctorReport {
    /// Whether everything needed is there.
    pub fit: bool,
    /// One thing each.
    pub checks: Vec<DoctorCheck>,
    /// What was looked at.
    #[serde(flatten)]
    pub picture: HostEnvironment,
}

impl DoctorReport {
    /// Judges.
    pub fn new(picture: HostEnvironment) -> Self {
        let checks = checks(&picture);
        Self {
            fit: checks
                .iter()
                .all(|check| check.standing != DoctorCheckStatus::Missing),
            checks,
            picture,
        }
    }

    /// Writes it for people.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let HostEnvironment {
            version,
            kernel,
            architecture,
            ..
        } = &self.picture;
        writeln!(out, "probe {version} on Linux {kernel} {architecture}\n")?;
        for check in &self.checks {
            // Further lines are indented below the first.
            let text = check.text.replace('\n', "\n                        ");
            let mark = check.standing.mark();
            writeln!(out, "{mark:<7}  {:<13}  {text}", check.name)?;
        }
        if !self.picture.interfaces.is_empty() {
            write_interfaces(out, &self.picture.interfaces)?;
        }
        writeln!(
            out,
            "\n{}",
            if self.fit {
                "Everything needed is there."
            } else {
                "Something needed is missing: see above."
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
            _ => "nothing to watch: no Ethernet".to_owned(),
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

/// What the card does to VLAN tags, in ethtool's words.
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

fn checks(picture: &HostEnvironment) -> Vec<DoctorCheck> {
    vec![
        kernel(picture),
        capabilities(picture),
        user_namespace(picture),
        loading(picture),
        seccomp(picture),
        lockdown(picture),
        memlock(picture),
        feature(
            "TCX",
            picture.features.tcx,
            "TC programs are attached first and as links",
            "not before Linux 6.6: clsact filters are used, and one is left after a kill -9 until the next start",
        ),
        feature(
            "jumbo XDP",
            picture.features.multi_buffer_xdp,
            "XDP on frames larger than a page",
            "not before Linux 5.18: TC is used where the MTU is large",
        ),
        feature(
            "BTF",
            picture.features.btf,
            "the kernel describes its types (not needed)",
            "the kernel does not describe its types (not needed)",
        ),
        jit(picture),
        interfaces(picture),
    ]
}

fn check(name: &'static str, standing: DoctorCheckStatus, text: impl Into<String>) -> DoctorCheck {
    DoctorCheck {
        name,
        standing,
        text: text.into(),
    }
}

fn kernel(picture: &HostEnvironment) -> DoctorCheck {
    let version = &picture.kernel;
    if picture.features.supported {
        check("kernel", DoctorCheckStatus::Ok, format!("Linux {version}"))
    } else {
        let text = format!("Linux {version} is too old: 5.10 or newer is needed");
        check("kernel", DoctorCheckStatus::Missing, text)
    }
}

fn capabilities(picture: &HostEnvironment) -> DoctorCheck {
    let held = picture.process.cap_eff.as_deref().unwrap_or("not readable");
    let seen = format!("user {}, CapEff {held}", picture.uid);
    if picture.missing_capabilities.is_empty() {
        check("capabilities", DoctorCheckStatus::Ok, seen)
    } else {
        let missing = picture.missing_capabilities.join(", ");
        let text = format!("{seen}\nlacks {missing}: run it as root (sudo probe …), or grant them");
        check("capabilities", DoctorCheckStatus::Missing, text)
    }
}

fn user_namespace(picture: &HostEnvironment) -> DoctorCheck {
    match picture.initial_user_namespace {
        Some(true) => check("user ns", DoctorCheckStatus::Ok, "the machine's own"),
        Some(false) => check(
            "user ns",
            DoctorCheckStatus::Missing,
            "not the machine's own: capabilities do not count for BPF here\n\
             run it outside (no rootless container, hostUsers: true)",
        ),
        None => check("user ns", DoctorCheckStatus::Info, "cannot be seen"),
    }
}

fn loading(picture: &HostEnvironment) -> DoctorCheck {
    match &picture.load_error {
        None => check(
            "programs",
            DoctorCheckStatus::Ok,
            "loaded for a trial, and the verifier takes them",
        ),
        Some(error) => check("programs", DoctorCheckStatus::Missing, error.clone()),
    }
}

fn seccomp(picture: &HostEnvironment) -> DoctorCheck {
    let no_new_privs = match picture.process.no_new_privs.as_deref() {
        Some("1") => ", no new privileges",
        _ => "",
    };
    match picture.process.seccomp.as_deref() {
        Some("0") => check(
            "seccomp",
            DoctorCheckStatus::Ok,
            format!("no filter{no_new_privs}"),
        ),
        Some(mode) => {
            let text = format!(
                "mode {mode}{no_new_privs}: a profile filters system calls; it has to allow bpf(2)"
            );
            // That it does is seen from the trial.
            check("seccomp", DoctorCheckStatus::Info, text)
        }
        None => check("seccomp", DoctorCheckStatus::Info, "cannot be seen"),
    }
}

fn lockdown(picture: &HostEnvironment) -> DoctorCheck {
    match picture.lockdown.as_deref() {
        Some(state) if state.contains("[none]") => check("lockdown", DoctorCheckStatus::Ok, "none"),
        Some(state) if state.contains("[integrity]") => {
            check("lockdown", DoctorCheckStatus::Ok, "integrity")
        }
        Some(state) => check(
            "lockdown",
            DoctorCheckStatus::Warning,
            format!(
                "{state}: confidentiality keeps BPF from reading kernel memory; probe reads none"
            ),
        ),
        None => check(
            "lockdown",
            DoctorCheckStatus::Info,
            "not in this kernel, or cannot be seen",
        ),
    }
}

fn memlock(picture: &HostEnvironment) -> DoctorCheck {
    /// What the maps take at their default sizes on a small machine, rounded up.
    const ENOUGH: u64 = 64 << 20;
    let limit = picture
        .memlock_bytes
        .map_or("no limit".to_owned(), |bytes| format!("{bytes} bytes"));
    if picture.features.cgroup_memory {
        let text = format!("{limit}; maps count against the control group instead (5.11)");
        return check("memlock", DoctorCheckStatus::Ok, text);
    }
    match picture.memlock_bytes {
        Some(bytes) if bytes < ENOUGH => check(
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

fn jit(picture: &HostEnvironment) -> DoctorCheck {
    match picture.bpf_jit.as_deref() {
        Some("0") => check(
            "BPF JIT",
            DoctorCheckStatus::Warning,
            "off: programs are interpreted, which costs many times more per frame\n\
             sysctl net.core.bpf_jit_enable=1",
        ),
        Some(_) => check("BPF JIT", DoctorCheckStatus::Ok, "on"),
        None => check("BPF JIT", DoctorCheckStatus::Info, "cannot be seen"),
    }
}

fn interfaces(picture: &HostEnvironment) -> DoctorCheck {
    if let Some(error) = &picture.interfaces_error {
        return check("interfaces", DoctorCheckStatus::Missing, error.clone());
    }
    let watched: Vec<_> = picture
        .interfaces
        .iter()
        .filter(|interface| interface.watched_by_default)
        .map(|interface| interface.name.as_str())
        .collect();
    if watched.is_empty() {
        let text = "none is worth watching by default: name one with -i";
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

    fn standing(picture: &HostEnvironment, name: &str) -> DoctorCheckStatus {
        let checks = checks(picture);
        checks
            .iter()
            .find(|check| check.name == name)
            .unwrap()
            .standing
    }

    fn text(picture: HostEnvironment) -> String {
        let mut out = Vec::new();
        DoctorReport::new(picture).write(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_healthy_host_is_fit() {
        let report = DoctorReport::new(healthy());
        assert!(report.fit, "{report:?}");
        assert!(
            report.checks.iter().all(|check| matches!(
                check.standing,
                DoctorCheckStatus::Ok | DoctorCheckStatus::Info
            )),
            "{report:?}"
        );
    }

    #[test]
    fn each_thing_that_is_needed_makes_the_host_unfit_when_it_is_missing() {
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
        for (name, picture) in cases {
            assert_eq!(standing(&picture, name), DoctorCheckStatus::Missing);
            assert!(!DoctorReport::new(picture.clone()).fit, "{name}");
            assert!(text(picture).contains("MISSING"), "{name}");
        }
    }

    #[test]
    fn what_cannot_be_seen_is_said_and_is_no_failure() {
        let picture = HostEnvironment {
            process: ProcessStatus::default(),
            initial_user_namespace: None,
            lockdown: None,
            bpf_jit: None,
            ..healthy()
        };
        for name in ["user ns", "seccomp", "lockdown", "BPF JIT"] {
            assert_eq!(standing(&picture, name), DoctorCheckStatus::Info, "{name}");
        }
        assert!(DoctorReport::new(picture.clone()).fit);
        assert!(text(picture).contains("cannot be seen"));
    }

    #[test]
    fn a_small_memlock_matters_only_below_5_11() {
        let small = HostEnvironment {
            memlock_bytes: Some(64 << 10),
            ..healthy()
        };
        assert_eq!(standing(&small, "memlock"), DoctorCheckStatus::Ok);
        let old = |memlock_bytes| HostEnvironment {
            features: KernelFeatures {
                cgroup_memory: false,
                ..healthy().features
            },
            memlock_bytes,
            ..healthy()
        };
        assert_eq!(
            standing(&old(Some(64 << 10)), "memlock"),
            DoctorCheckStatus::Warning
        );
        assert_eq!(standing(&old(None), "memlock"), DoctorCheckStatus::Ok);
        assert!(DoctorReport::new(old(Some(64 << 10))).fit);
    }

    #[test]
    fn lockdown_and_a_filter_are_named() {
        let picture = HostEnvironment {
            lockdown: Some("none integrity [confidentiality]".to_owned()),
            process: ProcessStatus::parse("Seccomp:\t2\nNoNewPrivs:\t1\n"),
            ..healthy()
        };
        assert_eq!(standing(&picture, "lockdown"), DoctorCheckStatus::Warning);
        let text = text(picture);
        assert!(text.contains("mode 2, no new privileges"), "{text}");
    }

    #[test]
    fn each_interface_is_shown_with_its_mode_and_reason() {
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
        let picture = HostEnvironment {
            interfaces: vec![interface("eth0").with_plan(&card), lo.with_plan(&card)],
            ..healthy()
        };
        let text = text(picture);
        let line = |name| {
            let start = format!("{name} ");
            text.lines()
                .find(|line| line.starts_with(&start))
                .unwrap_or_else(|| panic!("{name} in {text}"))
        };
        assert!(line("eth0").contains("native (native_available), watched by default"));
        assert!(line("eth0").contains("rx-vlan-offload, rx-vlan-filter"));
        assert!(line("lo").contains("no Ethernet"));
    }

    #[test]
    fn a_host_without_a_default_choice_is_told_to_name_one() {
        let picture = HostEnvironment {
            interfaces: Vec::new(),
            ..healthy()
        };
        assert_eq!(standing(&picture, "interfaces"), DoctorCheckStatus::Warning);
        assert!(DoctorReport::new(picture).fit);
    }
}
