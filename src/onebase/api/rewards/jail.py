"""What runs a program that nobody has read: started by `sandbox` as a process of its own (`python -I -S -B jail.py`), with the standard library alone.

It shuts the doors behind itself, runs the program, and writes back the word that it was given only if the program came to its end. What the
kernel enforces: limits (setrlimit(2)), files (landlock(7)), system calls (seccomp(2)). Where one is missing nothing is run.
"""

import ctypes
import json
import os
import platform
import resource
import struct
import sys

DENIED = {
    # name: x86-64, arm64. No other process or thread, no signals, no network, nothing of the machine's own.
    "fork": (57, None),
    "vfork": (58, None),
    "clone": (56, 220),
    "clone3": (435, 435),
    "execve": (59, 221),
    "execveat": (322, 281),
    "kill": (62, 129),
    "tkill": (200, 130),
    "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "pidfd_open": (434, 434),
    "pidfd_send_signal": (424, 424),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "socket": (41, 198),
    "socketpair": (53, 199),
    "io_uring_setup": (425, 425),
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "chroot": (161, 51),
    "pivot_root": (155, 41),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
    "setrlimit": (160, 164),
    "prlimit64": (302, 261),
    "setpriority": (141, 140),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "reboot": (169, 142),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "sethostname": (170, 161),
    # What changes a file without opening it to write, which landlock does not see.
    "chmod": (90, None),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "lchown": (94, None),
    "fchown": (93, 55),
    "fchownat": (260, 54),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "utimensat": (280, 88),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    # Memory that outlives the process.
    "shmget": (29, 194),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
}
MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""By machine: the column of DENIED, and the number that seccomp knows it by."""

LIBC = ctypes.CDLL(None, use_errno=True)
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 22, 38


class Missing(Exception):
    """This machine cannot shut a door."""


def main() -> None:
    """Read the request from standard input, shut the doors, run."""
    asked = json.load(sys.stdin)
    answer = os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(nothing, fd)
    try:
        limit(asked["seconds"], asked["memory"])
        no_new_rights()
        only_read(asked["readable"])
        deny_calls()
    except Missing as e:
        os.write(answer, f"!{e}".encode())
        os._exit(3)
    word = asked["word"].encode()
    try:
        exec(compile(asked["program"], "<program>", "exec"), {"__name__": "__main__"})
    except BaseException:  # whatever it raised, an exit too: it did not come to its end
        os._exit(1)
    os.write(answer, word)
    os._exit(0)


def limit(seconds: int, memory: int) -> None:
    """CPU time, address space (bytes); no file of any size, no core."""
    for what, most in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, 64),
    ):
        resource.setrlimit(what, (most, most))


def no_new_rights() -> None:
    """No program may give this process rights that it has not; the kernel wants this before the two that follow."""
    if LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise Missing("prctl refuses PR_SET_NO_NEW_PRIVS")


def only_read(folders: list[str]) -> None:
    """No file may be opened but those below `folders`, and these to read only (landlock(7))."""
    create, add, restrict = 444, 445, 446  # the same numbers on every machine
    version = LIBC.syscall(create, None, 0, 1)
    if version < 1:
        raise Missing("the kernel has no landlock (Linux 5.13 and later have it, if it is switched on)")
    # Rights by bit: 13 file rights from the first version on, then refer, truncate, ioctl.
    rights = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)) - 1
    read_file, read_dir = 1 << 2, 1 << 3
    attr = struct.pack("Q", rights)
    rules = LIBC.syscall(create, attr, len(attr), 0)
    if rules < 0:
        raise Missing("landlock makes no rules")
    for folder in folders:
        try:
            fd = os.open(folder, os.O_PATH)
        except OSError:
            continue
        if LIBC.syscall(add, rules, 1, struct.pack("=Qi", read_file | read_dir, fd), 0):
            raise Missing("landlock takes no rule")
        os.close(fd)
    if LIBC.syscall(restrict, rules, 0):
        raise Missing("landlock restricts nothing")
    os.close(rules)


def deny_calls() -> None:
    """The calls of DENIED answer EPERM from now on (seccomp(2), a filter in BPF)."""
    if platform.machine() not in MACHINES:
        raise Missing(f"no list of system calls for {platform.machine()}")
    column, machine = MACHINES[platform.machine()]
    load, equal, above, give = 0x20, 0x15, 0x35, 0x06
    allow, refuse, kill = 0x7FFF0000, 0x00050001, 0x80000000
    numbers = [n for pair in DENIED.values() if (n := pair[column]) is not None]
    code = [(load, 0, 0, 4), (equal, 1, 0, machine), (give, 0, 0, kill), (load, 0, 0, 0)]
    code += [(above, 0, 1, 0x40000000), (give, 0, 0, refuse)]  # the calls of x32
    for number in numbers:
        code += [(equal, 0, 1, number), (give, 0, 0, refuse)]
    code.append((give, 0, 0, allow))
    raw = b"".join(struct.pack("HBBI", *line) for line in code)
    held = ctypes.create_string_buffer(raw, len(raw))
    program = struct.pack("HxxxxxxP", len(code), ctypes.addressof(held))
    if LIBC.prctl(PR_SET_SECCOMP, 2, program, 0, 0):
        raise Missing("the kernel takes no seccomp filter")


if __name__ == "__main__":
    main()
