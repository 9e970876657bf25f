/* Loaded before the C library: makes calls for files under one directory fail on demand.
 *
 * FAULTS_UNDER names the directory, FAULTS_CONTROL a file with lines "CALL ERRNO": while it is there, these calls fail
 * with that error before they do anything. The calls are open, pwrite, write, fsync and fdatasync. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The error that a call is to fail with now, or 0. Uses system calls alone, for the library's are those below. */
static int fault(const char *call) {
    const char *control = getenv("FAULTS_CONTROL");
    char text[512];
    if (control == NULL) return 0;
    int file = syscall(SYS_openat, AT_FDCWD, control, O_RDONLY | O_CLOEXEC);
    if (file < 0) return 0;
    long length = syscall(SYS_read, file, text, sizeof text - 1);
    syscall(SYS_close, file);
    if (length <= 0) return 0;
    text[length] = 0;
    size_t word = strlen(call);
    for (char *line = text; line != NULL && *line != 0; line = strchr(line, '\n')) {
        if (*line == '\n') line++;
        if (strncmp(line, call, word) == 0 && line[word] == ' ') return atoi(line + word + 1);
    }
    return 0;
}

static int is_under(const char *path) {
    const char *under = getenv("FAULTS_UNDER");
    return under != NULL && strncmp(path, under, strlen(under)) == 0;
}

static int is_file_under(int file) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    long length = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return is_under(path);
}

#define FAIL_FILE(call, file)                                                                                          \
    do {                                                                                                               \
        int error = fault(call);                                                                                       \
        if (error != 0 && is_file_under(file)) {                                                                       \
            errno = error;                                                                                             \
            return -1;                                                                                                 \
        }                                                                                                              \
    } while (0)

ssize_t write(int file, const void *bytes, size_t count) {
    FAIL_FILE("write", file);
    static ssize_t (*next)(int, const void *, size_t);
    if (next == NULL) next = dlsym(RTLD_NEXT, "write");
    return next(file, bytes, count);
}

ssize_t pwrite64(int file, const void *bytes, size_t count, off64_t offset) {
    FAIL_FILE("pwrite", file);
    static ssize_t (*next)(int, const void *, size_t, off64_t);
    if (next == NULL) next = dlsym(RTLD_NEXT, "pwrite64");
    return next(file, bytes, count, offset);
}

ssize_t pwrite(int file, const void *bytes, size_t count, off_t offset) {
    return pwrite64(file, bytes, count, offset);
}

int fsync(int file) {
    FAIL_FILE("fsync", file);
    static int (*next)(int);
    if (next == NULL) next = dlsym(RTLD_NEXT, "fsync");
    return next(file);
}

int fdatasync(int file) {
    FAIL_FILE("fdatasync", file);
    static int (*next)(int);
    if (next == NULL) next = dlsym(RTLD_NEXT, "fdatasync");
    return next(file);
}

int open64(const char *path, int flags, ...) {
    int error = is_under(path) ? fault("open") : 0;
    if (error != 0) {
        errno = error;
        return -1;
    }
    va_list arguments;
    va_start(arguments, flags);
    int mode = va_arg(arguments, int);
    va_end(arguments);
    static int (*next)(const char *, int, ...);
    if (next == NULL) next = dlsym(RTLD_NEXT, "open64");
    return next(path, flags, mode);
}

int open(const char *path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    int mode = va_arg(arguments, int);
    va_end(arguments);
    return open64(path, flags, mode);
}
