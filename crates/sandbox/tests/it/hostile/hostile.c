// Hostile programs, one per first argument. The second argument is a token that names the run in the process table.
// Exit code 0: what was tried was refused. 66: it worked. Where a limit should end the program, it does not exit.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define WORKED 66
#define USAGE 65

static const char *arg(int argc, char **argv, int n) {
    if (n >= argc) exit(USAGE);
    return argv[n];
}

static void forever(void) {
    for (volatile unsigned long n = 0;; n++) {}
}

static void *idle(void *unused) {
    (void)unused;
    for (;;) pause();
}

// Fills memory so that no page is shared or empty.
static void eat(size_t bytes) {
    for (size_t got = 0; got < bytes; got += 1 << 20) {
        char *page = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (page == MAP_FAILED) exit(1);
        for (int at = 0; at < 1 << 20; at += 4096) page[at] = (char)(at + got + 1);
    }
}

static int fill(int fd) {
    static char block[1 << 16];
    memset(block, 'x', sizeof block);
    while (write(fd, block, sizeof block) > 0) {}
    return errno;
}

static int can_read(const char *path) {
    int fd = open(path, O_RDONLY);
    if (fd < 0) return 0;
    char byte;
    ssize_t got = read(fd, &byte, 1);
    close(fd);
    return got > 0;
}

static int can_write(const char *path) {
    int fd = open(path, O_WRONLY);
    if (fd < 0) return 0;
    ssize_t put = write(fd, "x", 1);
    close(fd);
    return put > 0;
}

static int tcp(const char *address, int port) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    inet_pton(AF_INET, address, &to.sin_addr);
    return connect(fd, (struct sockaddr *)&to, sizeof to) == 0 ? fd : -1;
}

static int unix_socket(const char *name, int abstract) {
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    strncpy(to.sun_path + abstract, name, sizeof to.sun_path - 2);
    socklen_t length = sizeof(sa_family_t) + abstract + strlen(name) + (abstract ? 0 : 1);
    return connect(fd, (struct sockaddr *)&to, length) == 0 ? fd : -1;
}

static void echo(int listener) {
    for (;;) {
        int peer = accept(listener, NULL, NULL);
        if (peer < 0) continue;
        char block[4096];
        ssize_t got;
        while ((got = read(peer, block, sizeof block)) > 0)
            if (write(peer, block, got) != got) break;
        close(peer);
    }
}

static int listen_tcp(int port, int queue) {
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (bind(fd, (struct sockaddr *)&at, sizeof at) || listen(fd, queue)) exit(1);
    return fd;
}

static int denied(long result) {
    return result == -1 ? 0 : WORKED;
}

static int nap(void) {
    struct timespec second = {3600, 0};
    nanosleep(&second, NULL);
    return 1;
}

int main(int argc, char **argv) {
    const char *what = arg(argc, argv, 1);
    arg(argc, argv, 2);
#define IS(name) if (!strcmp(what, name))

    // Limits.
    IS("spin") forever();
    IS("sleep") return nap();
    IS("stop") { raise(SIGSTOP); return nap(); }
    IS("ignore-signals") {
        for (int n = 1; n < 65; n++) signal(n, SIG_IGN);
        return nap();
    }
    IS("fork-bomb") for (;;) fork();
    IS("thread-bomb") for (;;) { pthread_t t; pthread_create(&t, NULL, idle, NULL); }
    IS("memory-bomb") { eat((size_t)1 << 40); return WORKED; }
    IS("memory-bomb-children") {
        for (int n = 0; n < 16; n++) if (!fork()) { eat(16 << 20); nap(); }
        return nap();
    }
    IS("locked-memory") {
        mlockall(MCL_CURRENT | MCL_FUTURE);
        eat((size_t)1 << 40);
        return WORKED;
    }
    IS("memfd-bomb") {
        signal(SIGXFSZ, SIG_IGN);
        int fd = memfd_create("bomb", 0);
        if (fd < 0) return 1;
        for (;;) {
            if (fill(fd) != EFBIG) return 1;
            fd = memfd_create("bomb", 0); // the limit of one file: take another
        }
    }
    IS("disk-bomb") return fill(open("/tmp/bomb", O_WRONLY | O_CREAT, 0600)) == ENOSPC ? nap() : 1;
    IS("disk-bomb-exit") return fill(open("/tmp/bomb", O_WRONLY | O_CREAT, 0600)) == ENOSPC ? 3 : 1;
    IS("shm-bomb") return fill(open("/dev/shm/bomb", O_WRONLY | O_CREAT, 0600)) == ENOSPC ? nap() : 1;
    IS("sparse-bomb") {
        int fd = open("/tmp/bomb", O_WRONLY | O_CREAT, 0600);
        if (ftruncate(fd, (off_t)1 << 42) == 0) return WORKED;
        return pwrite(fd, "x", 1, (off_t)1 << 42) > 0 ? WORKED : 1;
    }
    IS("inode-bomb") for (unsigned n = 0;; n++) {
        char name[64];
        snprintf(name, sizeof name, "/tmp/%u", n);
        int fd = open(name, O_WRONLY | O_CREAT, 0600);
        if (fd < 0) return nap();
        close(fd);
    }
    IS("file-bomb") { // open files
        int count = 0;
        while (open("/dev/null", O_RDONLY) >= 0) count++;
        return count < 4096 ? 0 : WORKED;
    }
    IS("output-bomb") { fill(1); return 1; }
    IS("error-bomb") { fill(2); return 1; }
    IS("print") {
        for (int n = atoi(arg(argc, argv, 3)); n > 0; n--) putchar('a');
        return 0;
    }
    IS("abort") abort();
    IS("crash") { *(volatile int *)8 = 1; return WORKED; }
    IS("exit") return atoi(arg(argc, argv, 3));
    IS("raise-limits") {
        struct rlimit wide = {RLIM_INFINITY, RLIM_INFINITY};
        if (!setrlimit(RLIMIT_CPU, &wide) || !setrlimit(RLIMIT_FSIZE, &wide) || !setrlimit(RLIMIT_NOFILE, &wide))
            return WORKED;
        return denied(setpriority(PRIO_PROCESS, 0, -5));
    }
    IS("daemon") { // leaves a process in a session of its own
        if (fork()) return 0;
        setsid();
        if (fork()) _exit(0);
        for (int n = 1; n < 65; n++) signal(n, SIG_IGN);
        for (int n = 0; n < 64; n++) close(n);
        return nap();
    }

    // The network.
    IS("tcp") return tcp(arg(argc, argv, 3), atoi(arg(argc, argv, 4))) < 0 ? 0 : WORKED;
    IS("abstract-socket") return unix_socket(arg(argc, argv, 3), 1) < 0 ? 0 : WORKED;
    IS("path-socket") return unix_socket(arg(argc, argv, 3), 0) < 0 ? 0 : WORKED;
    IS("interfaces") {
        struct if_nameindex *list = if_nameindex(); // needs netlink: refused
        if (list) return WORKED;
        char name[IF_NAMESIZE];
        for (int n = 1; n < 1000; n++) {
            if (if_indextoname(n, name) && strcmp(name, "lo")) return WORKED;
        }
        return 0;
    }
    IS("raw-sockets") {
        int kinds[][3] = {{AF_INET, SOCK_RAW, IPPROTO_ICMP}, {AF_PACKET, SOCK_RAW, 0x0300}, {AF_NETLINK, SOCK_RAW, 0},
                          {AF_VSOCK, SOCK_STREAM, 0}, {AF_ALG, SOCK_SEQPACKET, 0}, {AF_BLUETOOTH, SOCK_RAW, 0}};
        for (unsigned n = 0; n < sizeof kinds / sizeof *kinds; n++)
            if (socket(kinds[n][0], kinds[n][1], kinds[n][2]) >= 0) return WORKED;
        return 0;
    }
    IS("udp") { // to the host's loopback
        int fd = socket(AF_INET, SOCK_DGRAM, 0);
        struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(arg(argc, argv, 3)))};
        inet_pton(AF_INET, "127.0.0.1", &to.sin_addr);
        sendto(fd, "hello", 5, 0, (struct sockaddr *)&to, sizeof to);
        return 0; // the listener outside says whether it came
    }

    // Files.
    IS("read") { // exits 66 if any of the paths can be read
        for (int n = 3; n < argc; n++) if (can_read(argv[n])) { printf("%s", argv[n]); return WORKED; }
        return 0;
    }
    IS("write") {
        for (int n = 3; n < argc; n++) {
            int fd = open(argv[n], O_WRONLY | O_CREAT, 0600);
            if (fd >= 0 && write(fd, "x", 1) == 1) { printf("%s", argv[n]); return WORKED; }
        }
        return 0;
    }
    IS("remember") { // state for the next run
        int fd = open("/tmp/state", O_RDWR | O_CREAT, 0600);
        int shm = open("/dev/shm/state", O_RDWR | O_CREAT, 0600);
        char byte;
        if (read(fd, &byte, 1) > 0 || read(shm, &byte, 1) > 0) return WORKED;
        if (unix_socket("shoal-state", 1) >= 0) return WORKED;
        if (write(fd, "x", 1) != 1 || write(shm, "x", 1) != 1) return 1;
        if (syscall(SYS_shmget, 4242, 4096, 01600) >= 0) return WORKED; // System V memory outlives processes
        return 0;
    }
    IS("links") { // from a place it may write to one it may not see
        if (symlink("/etc/shadow", "/tmp/s") || symlink("/proc/1/root/etc/shadow", "/tmp/p")) return 1;
        if (symlink("/proc/self/root/../../../../etc/shadow", "/tmp/q")) return 1;
        if (can_read("/tmp/s") || can_read("/tmp/p") || can_read("/tmp/q")) return WORKED;
        return link("/usr/bin/env", "/tmp/hard") == 0 ? WORKED : 0;
    }
    IS("devices") {
        if (!mknod("/tmp/disk", S_IFBLK | 0600, 0x0800) || !mknod("/tmp/mem", S_IFCHR | 0600, 0x0101)) return WORKED;
        const char *paths[] = {"/dev/mem", "/dev/kmem", "/dev/sda", "/dev/vda", "/dev/kvm", "/dev/fuse", "/dev/kmsg", "/dev/loop0"};
        for (unsigned n = 0; n < sizeof paths / sizeof *paths; n++) if (open(paths[n], O_RDONLY) >= 0) return WORKED;
        return 0;
    }
    IS("setuid-file") { // nothing gains rights here
        int from = open("/proc/self/exe", O_RDONLY), to = open("/tmp/copy", O_WRONLY | O_CREAT, 0755);
        char block[65536];
        ssize_t got;
        while ((got = read(from, block, sizeof block)) > 0) if (write(to, block, got) != got) return 1;
        if (!chown("/tmp/copy", 0, 0)) return WORKED;
        if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1) return WORKED;
        struct statvfs where;
        if (statvfs("/usr/bin", &where) || !(where.f_flag & ST_NOSUID) || !(where.f_flag & ST_RDONLY)) return WORKED;
        return setuid(0) == 0 || setgid(0) == 0 || seteuid(0) == 0 ? WORKED : 0;
    }

    // Other processes.
    IS("signal") { // processes outside, by their number there
        for (int n = 3; n < argc; n++) if (kill(atoi(argv[n]), SIGKILL) == 0) return WORKED;
        return 0;
    }
    IS("signal-all") { kill(-1, SIGKILL); return 0; } // says 0 even where it may signal nobody
    IS("signal-supervisor") return kill(getppid(), SIGKILL) ? 0 : nap();
    IS("stop-supervisor") return kill(getppid(), SIGSTOP) ? 0 : nap();
    IS("proc") {
        char path[64];
        int ids[] = {1, getppid()};
        const char *files[] = {"environ", "mem", "maps", "root/etc/passwd", "cwd/etc/passwd", "fd/0", "exe", "syscall", "stack"};
        for (unsigned id = 0; id < 2; id++)
            for (unsigned n = 0; n < sizeof files / sizeof *files; n++) {
                snprintf(path, sizeof path, "/proc/%d/%s", ids[id], files[n]);
                if (can_read(path)) { printf("%s", path); return WORKED; }
            }
        const char *controls[] = {"/proc/sys/kernel/core_pattern", "/proc/sys/vm/drop_caches", "/proc/sysrq-trigger",
                                  "/proc/sys/kernel/hostname", "/proc/sys/user/max_user_namespaces", "/proc/1/oom_score_adj",
                                  "/proc/self/uid_map", "/proc/self/setgroups", "/proc/acpi/wakeup", "/proc/bus/pci/00/00.0"};
        for (unsigned n = 0; n < sizeof controls / sizeof *controls; n++)
            if (can_write(controls[n])) { printf("%s", controls[n]); return WORKED; }
        return can_read("/proc/kcore") || can_read("/proc/kmsg") ? WORKED : 0;
    }
    IS("see-processes") { // its first process, its supervisor and itself
        int seen = 0;
        DIR *proc = opendir("/proc");
        for (struct dirent *item; (item = readdir(proc));) seen += item->d_name[0] >= '1' && item->d_name[0] <= '9';
        return seen <= 3 ? 0 : WORKED;
    }

    // The kernel: calls that only serve to get out end the program, so these do not return where they are caught.
    IS("ptrace") return denied(ptrace(PTRACE_ATTACH, getppid(), 0, 0));
    IS("ptrace-me") return denied(ptrace(PTRACE_TRACEME, 0, 0, 0));
    IS("read-memory") {
        char byte;
        struct iovec here = {&byte, 1}, there = {(void *)0x400000, 1};
        return denied(syscall(SYS_process_vm_readv, getppid(), &here, 1, &there, 1, 0));
    }
    IS("unshare") return denied(syscall(SYS_unshare, CLONE_NEWUSER));
    IS("unshare-net") return denied(syscall(SYS_unshare, CLONE_NEWNET));
    IS("clone-user") return denied(syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0));
    IS("clone-pid") return denied(syscall(SYS_clone, CLONE_NEWPID | SIGCHLD, 0, 0, 0, 0));
    IS("clone3") {
        unsigned long long args[11] = {CLONE_NEWUSER, 0, 0, 0, SIGCHLD};
        return denied(syscall(SYS_clone3, args, sizeof args));
    }
    IS("setns") return denied(syscall(SYS_setns, open("/proc/1/ns/net", O_RDONLY), 0));
    IS("mount") return denied(syscall(SYS_mount, "none", "/tmp", "tmpfs", 0, 0));
    IS("remount") return denied(syscall(SYS_mount, "none", "/usr", 0, 32 | 4096, 0));
    IS("new-mount") return denied(syscall(SYS_fsopen, "tmpfs", 0));
    IS("umount") return denied(syscall(SYS_umount2, "/proc", 2));
    IS("chroot") return denied(syscall(SYS_chroot, "/tmp"));
    IS("pivot") return denied(syscall(SYS_pivot_root, "/tmp", "/tmp"));
    IS("keyring") return denied(syscall(SYS_keyctl, 0, -4, 1));
    IS("add-key") return denied(syscall(SYS_add_key, "user", "k", "v", 1, -4));
    IS("bpf") return denied(syscall(SYS_bpf, 0, 0, 0));
    IS("perf") return denied(syscall(SYS_perf_event_open, 0, 0, -1, -1, 0));
    IS("userfault") return denied(syscall(SYS_userfaultfd, 1));
    IS("module") return denied(syscall(SYS_init_module, "", 0, ""));
    IS("reboot") return denied(syscall(SYS_reboot, 0xfee1dead, 672274793, 0, 0));
    IS("clock") { struct timespec then = {0, 0}; return denied(syscall(SYS_clock_settime, 0, &then)); }
    IS("handle") return denied(syscall(SYS_open_by_handle_at, AT_FDCWD, "", 0));
    IS("io-uring") { char params[256] = {0}; return denied(syscall(SYS_io_uring_setup, 8, params)); }
    IS("personality") return denied(syscall(SYS_personality, 0x0400000));
    IS("seccomp-off") return prctl(PR_GET_SECCOMP) == 2 && prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0) ? 0 : WORKED;
#ifdef __x86_64__
    IS("x32") return denied(syscall(0x40000000 | SYS_getpid));
    IS("int80") { // the 32-bit entry, whose numbers mean other calls
        long result;
        __asm__ volatile("int $0x80" : "=a"(result) : "a"(20L) : "memory", "r8", "r9", "r10", "r11");
        return result > 0 ? WORKED : 0;
    }
#endif
    IS("child-escapes") {
        if (!fork()) { syscall(SYS_mount, "none", "/tmp", "tmpfs", 0, 0); _exit(0); }
        int status;
        wait(&status);
        return WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS ? 0 : WORKED;
    }

    // Servers.
    IS("serve") echo(listen_tcp(atoi(arg(argc, argv, 3)), 16));
    IS("serve-late") { // needs processor time first
        struct timespec start, now;
        clock_gettime(CLOCK_MONOTONIC, &start);
        do clock_gettime(CLOCK_MONOTONIC, &now); while (now.tv_sec - start.tv_sec < 1);
        echo(listen_tcp(atoi(arg(argc, argv, 3)), 16));
    }
    IS("serve-unix") {
        int fd = socket(AF_UNIX, SOCK_STREAM, 0);
        struct sockaddr_un at = {.sun_family = AF_UNIX};
        strcpy(at.sun_path, arg(argc, argv, 3));
        if (bind(fd, (struct sockaddr *)&at, sizeof at) || listen(fd, 16)) return 1;
        echo(fd);
    }
    IS("serve-nobody") { listen_tcp(atoi(arg(argc, argv, 3)), 0); return nap(); }
    IS("serve-once") {
        int listener = listen_tcp(atoi(arg(argc, argv, 3)), 16);
        close(accept(listener, NULL, NULL));
        return 9;
    }
    IS("serve-flood") { // answers without end
        int listener = listen_tcp(atoi(arg(argc, argv, 3)), 16);
        fill(accept(listener, NULL, NULL));
        return 0;
    }
    return USAGE;
}
