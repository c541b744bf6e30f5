"""The system calls that a container may make, by what they are for; everything else is refused."""

from __future__ import annotations

import functools
import json

_GROUPS = {
    "files": (
        "access faccessat faccessat2 open openat openat2 creat close close_range read readv pread64 "
        "preadv preadv2 write writev pwrite64 pwritev pwritev2 lseek truncate ftruncate fallocate fsync "
        "fdatasync sync syncfs sync_file_range stat fstat lstat newfstatat statx statfs fstatfs getdents "
        "getdents64 getcwd chdir fchdir mkdir mkdirat rmdir rename renameat renameat2 link linkat unlink "
        "unlinkat symlink symlinkat readlink readlinkat chmod fchmod fchmodat fchmodat2 chown fchown "
        "lchown fchownat umask utime utimes utimensat futimesat flock fcntl dup dup2 dup3 ioctl pipe "
        "pipe2 sendfile copy_file_range splice tee vmsplice readahead fadvise64 getxattr lgetxattr "
        "fgetxattr listxattr llistxattr flistxattr inotify_init inotify_init1 inotify_add_watch "
        "inotify_rm_watch"
    ),
    "memory": (
        "brk mmap munmap mprotect mremap madvise msync mincore mlock mlock2 munlock memfd_create "
        "membarrier get_mempolicy set_mempolicy mbind pkey_alloc pkey_free pkey_mprotect shmget shmat "
        "shmctl shmdt semget semop semctl semtimedop msgget msgsnd msgrcv msgctl"
    ),
    "processes": (
        "execve execveat exit exit_group fork vfork wait4 waitid getpid getppid gettid getpgrp getpgid "
        "setpgid getsid setsid getuid geteuid getgid getegid getgroups getresuid getresgid setuid setgid "
        "setreuid setregid setresuid setresgid setgroups setfsuid setfsgid capget capset prctl arch_prctl "
        "set_tid_address set_robust_list get_robust_list rseq uname sysinfo getrlimit setrlimit prlimit64 "
        "getrusage times getpriority setpriority ioprio_get ioprio_set sched_yield sched_getaffinity "
        "sched_setaffinity sched_getparam sched_setparam sched_getscheduler sched_setscheduler "
        "sched_get_priority_max sched_get_priority_min sched_rr_get_interval sched_getattr sched_setattr "
        "getcpu pidfd_open pidfd_send_signal seccomp getrandom"
    ),
    "signals": (
        "kill tkill tgkill rt_sigaction rt_sigprocmask rt_sigpending rt_sigqueueinfo rt_tgsigqueueinfo "
        "rt_sigreturn rt_sigsuspend rt_sigtimedwait sigaltstack pause alarm signalfd signalfd4 "
        "restart_syscall"
    ),
    "time": (
        "time gettimeofday clock_gettime clock_getres clock_nanosleep nanosleep getitimer setitimer "
        "timer_create timer_delete timer_settime timer_gettime timer_getoverrun timerfd_create "
        "timerfd_settime timerfd_gettime"
    ),
    "waiting": (
        "poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait "
        "epoll_pwait2 eventfd eventfd2 futex futex_waitv futex_wake futex_wait futex_requeue"
    ),
    "sockets": (
        "socketpair bind connect listen accept accept4 getsockname getpeername getsockopt setsockopt "
        "sendto recvfrom sendmsg recvmsg sendmmsg recvmmsg shutdown"
    ),
}
_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK = 1, 2, 10, 16
# CLONE_NEWTIME, NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
_NEW_NAMESPACES = 0x80 | 0x20000 | 0x2000000 | 0x4000000 | 0x8000000 | 0x10000000 | 0x20000000 | 0x40000000
_ENOSYS = 38


def profile() -> dict[str, object]:
    """The profile in the engines' JSON form.

    `clone` may make no namespace; `clone3`, whose flags a filter cannot see, says that it does not exist, so
    that the C library falls back. Sockets are local, internet, or routing's (to list interfaces). A program
    that makes another architecture's calls is killed.
    """
    allowed = sorted({name for names in _GROUPS.values() for name in names.split()})
    families = [[_is(0, family)] for family in (_AF_UNIX, _AF_INET, _AF_INET6)]
    families.append([_is(0, _AF_NETLINK), _is(2, 0)])
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": [_architecture()],
        "syscalls": [
            {"names": allowed, "action": "SCMP_ACT_ALLOW"},
            *({"names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": args} for args in families),
            {
                "names": ["clone"],
                "action": "SCMP_ACT_ALLOW",
                "args": [{"index": 0, "value": _NEW_NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}],
            },
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": _ENOSYS},
        ],
    }


@functools.cache
def profile_text() -> str:
    """The same as JSON text, which engines take in place of a path."""
    return json.dumps(profile())


def _is(index: int, value: int) -> dict[str, object]:
    return {"index": index, "value": value, "valueTwo": 0, "op": "SCMP_CMP_EQ"}


def _architecture() -> str:
    """That of this machine, which is the engine's for every local one."""
    import platform

    return {"aarch64": "SCMP_ARCH_AARCH64", "arm64": "SCMP_ARCH_AARCH64"}.get(
        platform.machine(), "SCMP_ARCH_X86_64"
    )
