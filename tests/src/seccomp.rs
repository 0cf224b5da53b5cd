//! The seccomp profile that a container gets by `RuntimeDefault`, as containerd 1.7 applies it.
//!
//! The profile refuses every system call that it does not name. It depends on the capabilities of the container:
//! `CAP_BPF` allows bpf(2) and `CAP_PERFMON` allows `perf_event_open(2)`. Only the calls of 64-bit programs are listed here.

use serde_json::{Value, json};

/// Files, directories and their attributes.
const FILES: &str = "\
    access chdir chmod chown close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2 \
    fadvise64 fallocate fanotify_mark fchdir fchmod fchmodat fchown fchownat fcntl fdatasync fgetxattr \
    flistxattr flock fremovexattr fsetxattr fstat fstatfs fsync ftruncate futimesat getcwd getdents \
    getdents64 getxattr inotify_add_watch inotify_init inotify_init1 inotify_rm_watch ioctl lchown lgetxattr \
    link linkat listxattr llistxattr lremovexattr lseek lsetxattr lstat memfd_create mkdir mkdirat mknod \
    mknodat newfstatat open openat openat2 pipe pipe2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read \
    readahead readlink readlinkat readv removexattr rename renameat renameat2 rmdir sendfile setxattr splice \
    stat statfs statx symlink symlinkat sync sync_file_range syncfs tee truncate umask unlink unlinkat utime \
    utimensat utimes vmsplice write writev";

/// Waiting for descriptors, and asynchronous I/O other than `io_uring`.
const WAITING: &str = "\
    epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old \
    eventfd eventfd2 io_cancel io_destroy io_getevents io_pgetevents io_setup io_submit poll ppoll pselect6 \
    select signalfd signalfd4";

/// Memory management.
const MEMORY: &str = "\
    brk madvise memfd_secret mincore mlock mlock2 mlockall mmap mprotect mremap msync munlock munlockall \
    munmap pkey_alloc pkey_free pkey_mprotect process_madvise process_mrelease remap_file_pages";

/// Processes, threads and their identity.
const PROCESSES: &str = "\
    arch_prctl capget capset execve execveat exit exit_group fork futex futex_waitv get_robust_list \
    get_thread_area getcpu getegid geteuid getgid getgroups getpgid getpgrp getpid getppid getpriority \
    getresgid getresuid getrlimit getrusage getsid gettid getuid ioprio_get ioprio_set landlock_add_rule \
    landlock_create_ruleset landlock_restrict_self membarrier modify_ldt pidfd_open pidfd_send_signal prctl \
    prlimit64 restart_syscall rseq sched_get_priority_max sched_get_priority_min sched_getaffinity \
    sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setattr \
    sched_setparam sched_setscheduler sched_yield seccomp set_robust_list set_thread_area set_tid_address \
    setfsgid setfsuid setgid setgroups setpgid setpriority setregid setresgid setresuid setreuid setrlimit \
    setsid setuid sysinfo syslog uname vfork wait4 waitid";

/// Signals, clocks and timers.
const SIGNALS_AND_TIME: &str = "\
    alarm clock_getres clock_gettime clock_nanosleep getitimer getrandom gettimeofday kill nanosleep pause \
    rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait \
    rt_tgsigqueueinfo setitimer sigaltstack tgkill time timer_create timer_delete timer_getoverrun \
    timer_gettime timer_settime timerfd_create timerfd_gettime timerfd_settime times tkill";

/// Sockets and inter-process communication.
const COMMUNICATION: &str = "\
    accept accept4 bind connect getpeername getsockname getsockopt listen mq_getsetattr mq_notify mq_open \
    mq_timedreceive mq_timedsend mq_unlink msgctl msgget msgrcv msgsnd recvfrom recvmmsg recvmsg semctl \
    semget semop semtimedop sendmmsg sendmsg sendto setsockopt shmat shmctl shmdt shmget shutdown socket \
    socketpair";

/// Calls that the profile allows to a process with a capability.
const BY_CAPABILITY: [(&str, &str); 2] = [("CAP_BPF", "bpf"), ("CAP_PERFMON", "perf_event_open")];

/// The flags of clone(2) that create namespaces; none may be set.
const NEW_NAMESPACES: u64 = 0x7e02_0000;

/// `EPERM` and `ENOSYS`; the second makes the C library use clone(2) instead of clone3(2).
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// The profile for a container with these capabilities, without the calls in `denied`.
pub fn runtime_default(capabilities: &[String], denied: &[&str]) -> Value {
    let by_capability = BY_CAPABILITY
        .iter()
        .filter(|(capability, _)| capabilities.iter().any(|has| has == capability))
        .map(|(_, call)| *call);
    let groups = [
        FILES,
        WAITING,
        MEMORY,
        PROCESSES,
        SIGNALS_AND_TIME,
        COMMUNICATION,
    ];
    let allowed: Vec<_> = groups
        .iter()
        .flat_map(|group| group.split_whitespace())
        .chain(by_capability)
        .filter(|call| !denied.contains(call))
        .collect();
    // Linux, its 32-bit variant, and the query of the current personality.
    let personalities = [0_u64, 8, 0xffff_ffff].map(|personality| {
        json!({
            "names": ["personality"],
            "action": "SCMP_ACT_ALLOW",
            "args": [{ "index": 0, "value": personality, "op": "SCMP_CMP_EQ" }],
        })
    });
    let mut rules = vec![
        json!({ "names": allowed, "action": "SCMP_ACT_ALLOW" }),
        json!({
            "names": ["clone"],
            "action": "SCMP_ACT_ALLOW",
            "args": [{
                "index": 0,
                "value": NEW_NAMESPACES,
                "valueTwo": 0,
                "op": "SCMP_CMP_MASKED_EQ",
            }],
        }),
        json!({ "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS }),
    ];
    rules.extend(personalities);
    json!({ "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": EPERM, "syscalls": rules })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(profile: &Value) -> Vec<&str> {
        let names = profile["syscalls"][0]["names"].as_array().unwrap();
        names.iter().map(|name| name.as_str().unwrap()).collect()
    }

    #[test]
    fn bpf_is_allowed_only_with_its_capability() {
        let with = runtime_default(&["CAP_BPF".to_owned()], &[]);
        assert!(allowed(&with).contains(&"bpf"));
        assert!(!allowed(&with).contains(&"perf_event_open"));
        let without = runtime_default(&["CAP_NET_ADMIN".to_owned()], &[]);
        assert!(!allowed(&without).contains(&"bpf"));
        let denied = runtime_default(&["CAP_BPF".to_owned()], &["bpf"]);
        assert!(!allowed(&denied).contains(&"bpf"));
    }

    #[test]
    fn system_calls_that_change_the_machine_are_never_allowed() {
        let everything = BY_CAPABILITY.map(|(capability, _)| capability.to_owned());
        let profile = runtime_default(&everything, &[]);
        for call in [
            "init_module",
            "io_uring_setup",
            "keyctl",
            "kexec_load",
            "mount",
            "ptrace",
            "reboot",
            "setns",
            "unshare",
            "userfaultfd",
        ] {
            assert!(!allowed(&profile).contains(&call), "{call}");
        }
    }
}
