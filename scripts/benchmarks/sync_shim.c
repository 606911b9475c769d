/* LD_PRELOAD: counts and slows what an application syncs to disk.
 *   SYNC_SHIM_DELAY_US  microseconds added to each sync
 *   SYNC_SHIM_LOG       a file that gets one byte for each sync
 * cc -shared -fPIC -o sync_shim.so sync_shim.c -ldl
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static int log_fd = -1;
static long delay_us = 0;

__attribute__((constructor)) static void start(void) {
    const char *delay = getenv("SYNC_SHIM_DELAY_US");
    const char *log = getenv("SYNC_SHIM_LOG");
    if (delay != NULL) delay_us = atol(delay);
    if (log != NULL) log_fd = open(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
}

static void record(void) {
    if (log_fd >= 0 && write(log_fd, ".", 1) != 1) abort();
    if (delay_us > 0) {
        struct timespec pause = {delay_us / 1000000, (delay_us % 1000000) * 1000};
        nanosleep(&pause, NULL);
    }
}

int fsync(int fd) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    record();
    return real(fd);
}

int fdatasync(int fd) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    record();
    return real(fd);
}
