/* A disk that is full from the N-th write on, for one directory and one program: preloaded into it, this library counts
 * what needs room (writes, new files and directories, renames, syncs) and lets it fail with ENOSPC from FULL_AT on, or from
 * the first FULL_WHAT of a path with FULL_WHERE in it on, until the file FULL_MENDED exists. FULL_LOG gets a line for each failure; FULL_COUNT holds the number so far, for every
 * process of the program, one image after another. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static const char *below, *mended, *log_path, *full_what, *full_where;
static long full_at;
/* How many so far, and whether FULL_WHAT has come. */
static long *count;

static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

__attribute__((constructor)) static void begin(void) {
    char command[4096] = {0};
    int (*open_)(const char *, int, ...) = real("open");
    int file = open_("/proc/self/cmdline", O_RDONLY);
    ssize_t length = read(file, command, sizeof command - 1);
    close(file);
    /* Nodes, workers and scripts have a disk that is in order: who owns the journal and the spool has not. */
    char *second = length > 0 ? command + strlen(command) + 1 : command;
    int endpoint = strstr(command, "lobus") != NULL && strcmp(second, "node") != 0;
    if (!endpoint || !getenv("FULL_BELOW")) return;
    file = open_(getenv("FULL_COUNT"), O_RDWR);
    if (file < 0) return;
    count = mmap(NULL, 2 * sizeof *count, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (count == MAP_FAILED) { count = NULL; return; }
    full_at = atol(getenv("FULL_AT"));
    full_what = getenv("FULL_WHAT");
    full_where = getenv("FULL_WHERE");
    mended = getenv("FULL_MENDED");
    log_path = getenv("FULL_LOG");
    below = getenv("FULL_BELOW");
}

/* Whether this one fails. */
static int fails(const char *what, const char *path) {
    if (!below || strncmp(path, below, strlen(below)) != 0) return 0;
    long number = __atomic_add_fetch(count, 1, __ATOMIC_SEQ_CST);
    if (full_what && strcmp(what, full_what) == 0 && strstr(path, full_where)) count[1] = 1;
    int full = full_what ? count[1] != 0 : full_at != 0 && number >= full_at;
    if (!full || access(mended, F_OK) == 0) return 0;
    int (*open_)(const char *, int, ...) = real("open");
    ssize_t (*write_)(int, const void *, size_t) = real("write");
    char line[PATH_MAX + 64];
    int length = snprintf(line, sizeof line, "%ld %s %s\n", number, what, path);
    int file = open_(log_path, O_WRONLY | O_APPEND | O_CREAT, 0600);
    if (file >= 0) { write_(file, line, length); close(file); }
    errno = ENOSPC;
    return 1;
}

static int descriptor_fails(const char *what, int descriptor) {
    if (!below) return 0;
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    int saved = errno;
    ssize_t length = readlink(link, path, sizeof path - 1);
    errno = saved;
    if (length < 0) return 0;
    path[length] = 0;
    return fails(what, path);
}

#define TWICE(kind, name, arguments, passed, failing) \
    kind name arguments { if (failing) return -1; return ((kind (*) arguments) real(#name)) passed; }

TWICE(ssize_t, write, (int fd, const void *b, size_t n), (fd, b, n), descriptor_fails("write", fd))
TWICE(ssize_t, writev, (int fd, const struct iovec *v, int n), (fd, v, n), descriptor_fails("write", fd))
TWICE(ssize_t, pwrite64, (int fd, const void *b, size_t n, off64_t at), (fd, b, n, at), descriptor_fails("write", fd))
TWICE(int, fsync, (int fd), (fd), descriptor_fails("sync", fd))
TWICE(int, fdatasync, (int fd), (fd), descriptor_fails("sync", fd))
TWICE(int, mkdir, (const char *p, mode_t m), (p, m), fails("mkdir", p))
TWICE(int, rename, (const char *p, const char *q), (p, q), fails("rename", q))

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        va_list rest; va_start(rest, flags); mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0; va_end(rest); \
        int saved = errno; \
        int new = (flags & O_CREAT) && access(path, F_OK) != 0; \
        errno = saved; \
        if (new && fails("create", path)) return -1; \
        return ((int (*)(const char *, int, ...)) real(#name))(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)
