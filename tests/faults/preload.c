// Stands between a program and the C library, and lets calls on files fail as a disk, a network drive or a full file
// system does. Compiled by the test, loaded by LD_PRELOAD, which the program's children inherit.
//
// HASN_FAULT_FOLDER  the folder whose files count, absolute; calls on others pass
// HASN_FAULT_LOG     a file to which a line is appended for each counted call and each fault:
//                        call PID COMMAND CALL PATH
//                        fault PID COMMAND CALL PATH
//                    COMMAND is the first word of the program's arguments, PATH is relative to the folder.
// HASN_FAULT         faults, separated by ';', each
//                        COMMAND CALL PATTERN NTH once|always ACTION
//                    The NTH call of that kind (from 1, each process counts its own) on a file whose path matches the
//                    shell pattern has the fault, with `always` those after it as well. ACTION is
//                        an errno, such as EIO
//                        kill     SIGKILL before the call
//                        short    half of what is read or written
//                        zero     statvfs: a file system of zero blocks
//                        vanish   from then on every call on such a file fails with EIO
//
// What is called fsync is fsync-folder for folders.

#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { FAULTS_MAX = 8, PASS = 0, SHORT = -1, ZERO = -2 };

struct fault {
    char command[64], call[32], pattern[256], action[32];
    unsigned long nth;
    int always;
    unsigned long seen;
    int vanished;
};

static struct fault faults[FAULTS_MAX];
static int fault_count, log_fd = -1;
static char folder[PATH_MAX], command[64];
static size_t folder_len;
static pthread_once_t once = PTHREAD_ONCE_INIT;

// The first argument that is a command's name.
static void read_command(void) {
    char text[4096];
    int fd = (int)syscall(SYS_openat, AT_FDCWD, "/proc/self/cmdline", O_RDONLY, 0);
    long length = syscall(SYS_read, fd, text, sizeof text - 1);
    syscall(SYS_close, fd);
    text[length > 0 ? length : 0] = 0;
    char *end = text + (length > 0 ? length : 0);
    for (char *word = text + strlen(text) + 1; word < end; word += strlen(word) + 1) {
        if (!strcmp(word, "--error-file"))
            word += strlen(word) + 1;
        else if (*word != '-') {
            snprintf(command, sizeof command, "%s", word);
            return;
        }
    }
    strcpy(command, "-");
}

static void start(void) {
    const char *name = getenv("HASN_FAULT_FOLDER");
    if (!name) return;
    snprintf(folder, sizeof folder, "%s", name);
    folder_len = strlen(folder);
    read_command();
    const char *log = getenv("HASN_FAULT_LOG");
    if (log) {
        // Out of the way of the descriptors that the program counts on.
        int fd = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND, 0600);
        log_fd = (int)syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 500);
        syscall(SYS_close, fd);
    }
    const char *text = getenv("HASN_FAULT");
    while (text && *text && fault_count < FAULTS_MAX) {
        struct fault *fault = &faults[fault_count];
        char when[16];
        if (sscanf(text, " %63s %31s %255s %lu %15s %31[^; ]", fault->command, fault->call, fault->pattern,
                   &fault->nth, when, fault->action) != 6) {
            fprintf(stderr, "HASN_FAULT is not understood: %s\n", text);
            abort();
        }
        fault->always = !strcmp(when, "always");
        fault_count++;
        text = strchr(text, ';');
        if (text) text++;
    }
}

static void append_log(const char *what, const char *call, const char *path) {
    char line[PATH_MAX + 128];
    int length = snprintf(line, sizeof line, "%s %d %s %s %s\n", what, getpid(), command, call, path);
    if (log_fd >= 0) syscall(SYS_write, log_fd, line, length);
}

static int errno_of(const char *name) {
    for (int code = 1; code < 140; code++) {
        const char *known = strerrorname_np(code);
        if (known && !strcmp(known, name)) return code;
    }
    fprintf(stderr, "HASN_FAULT names no errno: %s\n", name);
    abort();
}

// What happens to this call: PASS, SHORT, ZERO or an errno.
static int decide(const char *call, const char *path) {
    pthread_once(&once, start);
    if (!folder_len || strncmp(path, folder, folder_len) || (path[folder_len] != '/' && path[folder_len])) return PASS;
    path += folder_len + (path[folder_len] == '/');
    if (!*path) path = ".";
    append_log("call", call, path);
    for (int i = 0; i < fault_count; i++) {
        struct fault *fault = &faults[i];
        if (fnmatch(fault->command, command, 0) || fnmatch(fault->pattern, path, 0)) continue;
        if (__atomic_load_n(&fault->vanished, __ATOMIC_SEQ_CST)) return EIO;
        if (fnmatch(fault->call, call, 0)) continue;
        unsigned long nth = __atomic_add_fetch(&fault->seen, 1, __ATOMIC_SEQ_CST);
        if (nth != fault->nth && !(fault->always && nth > fault->nth)) continue;
        append_log("fault", call, path);
        if (!strcmp(fault->action, "kill")) {
            syscall(SYS_kill, syscall(SYS_getpid), SIGKILL);
            for (;;) pause();
        }
        if (!strcmp(fault->action, "vanish")) {
            __atomic_store_n(&fault->vanished, 1, __ATOMIC_SEQ_CST);
            return EIO;
        }
        if (!strcmp(fault->action, "short")) return SHORT;
        if (!strcmp(fault->action, "zero")) return ZERO;
        return errno_of(fault->action);
    }
    return PASS;
}

static void path_of(int fd, char *path) {
    char link[32];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    long length = syscall(SYS_readlinkat, AT_FDCWD, link, path, PATH_MAX - 1);
    path[length > 0 ? length : 0] = 0;
    char *deleted = strstr(path, " (deleted)");
    if (deleted) *deleted = 0;
}

static int decide_fd(const char *call, int fd) {
    int kept = errno;
    pthread_once(&once, start);
    if (!folder_len) return PASS;
    char path[PATH_MAX];
    path_of(fd, path);
    int decided = decide(call, path);
    errno = kept;
    return decided;
}

static int decide_at(const char *call, int dir, const char *name) {
    int kept = errno;
    pthread_once(&once, start);
    if (!folder_len || !name) return PASS;
    char path[2 * PATH_MAX] = "";
    if (*name != '/') {
        if (dir == AT_FDCWD)
            syscall(SYS_getcwd, path, PATH_MAX);
        else
            path_of(dir, path);
    }
    // Without `.` and doubled slashes.
    char *to = path + strlen(path);
    while (*name) {
        while (*name == '/') name++;
        size_t length = strcspn(name, "/");
        if (length && !(length == 1 && *name == '.')) {
            *to++ = '/';
            if (to - path + length >= sizeof path) break;
            memcpy(to, name, length);
            to += length;
        }
        name += length;
    }
    *to = 0;
    int decided = decide(call, path);
    errno = kept;
    return decided;
}

#define REAL(name)                                        \
    static __typeof__(&name) real;                        \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

#define FAIL_IF(decided, failure)     \
    do {                              \
        int decided_ = (decided);     \
        if (decided_ > 0) {           \
            errno = decided_;         \
            return failure;           \
        }                             \
    } while (0)

static mode_t mode_of(int flags, va_list arguments) {
    return flags & (O_CREAT | __O_TMPFILE) ? va_arg(arguments, mode_t) : 0;
}

#define OPEN(name)                                        \
    int name(const char *path, int flags, ...) {          \
        REAL(name);                                       \
        va_list arguments;                                \
        va_start(arguments, flags);                       \
        mode_t mode = mode_of(flags, arguments);          \
        va_end(arguments);                                \
        FAIL_IF(decide_at("open", AT_FDCWD, path), -1);   \
        return real(path, flags, mode);                   \
    }
#define OPENAT(name)                                           \
    int name(int dir, const char *path, int flags, ...) {      \
        REAL(name);                                            \
        va_list arguments;                                     \
        va_start(arguments, flags);                            \
        mode_t mode = mode_of(flags, arguments);               \
        va_end(arguments);                                     \
        FAIL_IF(decide_at("open", dir, path), -1);             \
        return real(dir, path, flags, mode);                   \
    }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

int creat(const char *path, mode_t mode) { return open(path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return open64(path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

// A call that moves `count` bytes: half of them if it is to be short.
#define MOVE(name, call, parameters, ...)               \
    ssize_t name parameters {                                 \
        REAL(name);                                           \
        int decided = decide_fd(call, fd);                    \
        FAIL_IF(decided, -1);                                 \
        if (decided == SHORT && count > 1) count /= 2;        \
        return real(__VA_ARGS__);                             \
    }
MOVE(read, "read", (int fd, void *bytes, size_t count), fd, bytes, count)
MOVE(pread, "read", (int fd, void *bytes, size_t count, off_t at), fd, bytes, count, at)
MOVE(pread64, "read", (int fd, void *bytes, size_t count, off64_t at), fd, bytes, count, at)
MOVE(readv, "read", (int fd, const struct iovec *bytes, int count), fd, bytes, count)
MOVE(write, "write", (int fd, const void *bytes, size_t count), fd, bytes, count)
MOVE(pwrite, "write", (int fd, const void *bytes, size_t count, off_t at), fd, bytes, count, at)
MOVE(pwrite64, "write", (int fd, const void *bytes, size_t count, off64_t at), fd, bytes, count, at)
MOVE(writev, "write", (int fd, const struct iovec *bytes, int count), fd, bytes, count)

static const char *fsync_of(int fd) {
    struct stat64 found;
    return !fstat64(fd, &found) && S_ISDIR(found.st_mode) ? "fsync-folder" : "fsync";
}

int fsync(int fd) {
    REAL(fsync);
    FAIL_IF(decide_fd(fsync_of(fd), fd), -1);
    return real(fd);
}

int fdatasync(int fd) {
    REAL(fdatasync);
    FAIL_IF(decide_fd(fsync_of(fd), fd), -1);
    return real(fd);
}

int close(int fd) {
    REAL(close);
    // The descriptor is gone even if it fails.
    int decided = decide_fd("close", fd);
    int result = real(fd);
    FAIL_IF(decided, -1);
    return result;
}

#define TRUNCATE(name, type)                          \
    int name(int fd, type length) {                   \
        REAL(name);                                   \
        FAIL_IF(decide_fd("ftruncate", fd), -1);      \
        return real(fd, length);                      \
    }
TRUNCATE(ftruncate, off_t)
TRUNCATE(ftruncate64, off64_t)

int flock(int fd, int operation) {
    REAL(flock);
    FAIL_IF(decide_fd("flock", fd), -1);
    return real(fd, operation);
}

int rename(const char *from, const char *to) {
    REAL(rename);
    FAIL_IF(decide_at("rename", AT_FDCWD, to), -1);
    return real(from, to);
}

int renameat(int from_dir, const char *from, int to_dir, const char *to) {
    REAL(renameat);
    FAIL_IF(decide_at("rename", to_dir, to), -1);
    return real(from_dir, from, to_dir, to);
}

int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags) {
    REAL(renameat2);
    FAIL_IF(decide_at("renameat2", to_dir, to), -1);
    return real(from_dir, from, to_dir, to, flags);
}

int link(const char *from, const char *to) {
    REAL(link);
    FAIL_IF(decide_at("link", AT_FDCWD, to), -1);
    return real(from, to);
}

int linkat(int from_dir, const char *from, int to_dir, const char *to, int flags) {
    REAL(linkat);
    FAIL_IF(decide_at("link", to_dir, to), -1);
    return real(from_dir, from, to_dir, to, flags);
}

int unlink(const char *path) {
    REAL(unlink);
    FAIL_IF(decide_at("unlink", AT_FDCWD, path), -1);
    return real(path);
}

int unlinkat(int dir, const char *path, int flags) {
    REAL(unlinkat);
    FAIL_IF(decide_at(flags & AT_REMOVEDIR ? "rmdir" : "unlink", dir, path), -1);
    return real(dir, path, flags);
}

int rmdir(const char *path) {
    REAL(rmdir);
    FAIL_IF(decide_at("rmdir", AT_FDCWD, path), -1);
    return real(path);
}

int mkdir(const char *path, mode_t mode) {
    REAL(mkdir);
    FAIL_IF(decide_at("mkdir", AT_FDCWD, path), -1);
    return real(path, mode);
}

DIR *opendir(const char *path) {
    REAL(opendir);
    FAIL_IF(decide_at("opendir", AT_FDCWD, path), NULL);
    return real(path);
}

struct dirent64 *readdir64(DIR *dir) {
    REAL(readdir64);
    FAIL_IF(decide_fd("readdir", dirfd(dir)), NULL);
    return real(dir);
}

#define STAT(name, type)                                         \
    int name(const char *path, struct type *found) {             \
        REAL(name);                                              \
        FAIL_IF(decide_at("stat", AT_FDCWD, path), -1);          \
        return real(path, found);                                \
    }
STAT(stat, stat)
STAT(stat64, stat64)
STAT(lstat, stat)
STAT(lstat64, stat64)

int statx(int dir, const char *path, int flags, unsigned mask, struct statx *found) {
    REAL(statx);
    // Rust's library asks for the path NULL to see whether the kernel has the call.
    const char *volatile name = path;
    const char *asked = name;
    FAIL_IF(asked && !*asked ? decide_fd("stat", dir) : decide_at("stat", dir, asked), -1);
    return real(dir, path, flags, mask, found);
}

// Zero blocks are what a file system reports that does not know its size.
#define STATFS(name, type, what, decided)           \
    int name(what, struct type *found) {            \
        REAL(name);                                 \
        int decided_ = decided;                     \
        FAIL_IF(decided_, -1);                      \
        int result = real(of, found);               \
        if (decided_ == ZERO) found->f_blocks = found->f_bfree = found->f_bavail = 0; \
        return result;                              \
    }
STATFS(statvfs, statvfs, const char *of, decide_at("statvfs", AT_FDCWD, of))
STATFS(statvfs64, statvfs64, const char *of, decide_at("statvfs", AT_FDCWD, of))
STATFS(statfs, statfs, const char *of, decide_at("statvfs", AT_FDCWD, of))
STATFS(statfs64, statfs64, const char *of, decide_at("statvfs", AT_FDCWD, of))
STATFS(fstatvfs, statvfs, int of, decide_fd("statvfs", of))
STATFS(fstatvfs64, statvfs64, int of, decide_fd("statvfs", of))
STATFS(fstatfs, statfs, int of, decide_fd("statvfs", of))
STATFS(fstatfs64, statfs64, int of, decide_fd("statvfs", of))
