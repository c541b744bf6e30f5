"""Opens for writing, or reads, what would let it at the kernel; writes nothing there."""

import json
import os
import time

WRITE = [
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/modprobe",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/vm/overcommit_memory",
    "/proc/sys/vm/drop_caches",
    "/proc/sys/fs/binfmt_misc/register",
    "/proc/sysrq-trigger",
    "/proc/irq/default_smp_affinity",
    "/proc/bus/pci/devices",
    "/sys/kernel/uevent_helper",
    "/sys/kernel/security/apparmor/.load",
    "/sys/kernel/mm/transparent_hugepage/enabled",
    "/sys/power/state",
    "/dev/mem",
    "/dev/kmsg",
    "/dev/sda",
    "/dev/vda",
    "/dev/fuse",
    "/dev/kvm",
]
READ = ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/kmsg", "/sys/firmware/acpi/tables"]
for folder, _folders, files in os.walk("/sys/fs/cgroup"):
    WRITE += [f"{folder}/{name}" for name in files] + [f"{folder}/planted"]
opened = []
for path in WRITE:
    try:
        os.close(os.open(path, os.O_WRONLY | (os.O_CREAT if path.endswith("/planted") else 0)))
        opened.append(f"{path} for writing")
    except OSError:
        continue
for path in READ:
    try:
        with open(path, "rb") as file:
            if file.read(1):
                opened.append(path)
    except OSError:
        continue
for pid in (1, os.getpid()):
    try:
        with open(f"/proc/{pid}/oom_score_adj", "w") as file:
            file.write("-1000")
        opened.append(f"/proc/{pid}/oom_score_adj")
    except OSError:
        continue
print(json.dumps({"report": opened}), flush=True)
time.sleep(60)
