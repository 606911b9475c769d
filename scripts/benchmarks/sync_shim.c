/* LD_PRELOAD: counts, times and slows what an application syncs to disk.
 *   SYNC_SHIM_DELAY_US  microseconds added to each sync
 *   SYNC_SHIM_LOG       a file that gets one byte for each sync
 *   SYNC_SHIM_TIMES     a file that gets, at the end, a line for each sync: microseconds, with what was added
 * cc -shared -fPIC -o sync_shim.so sync_shim.c -ldl
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define MOST_TIMES 1000000
static int log_fd = -1;
static long delay_us = 0;
static int times_us[MOST_TIMES], num_times = 0;

__attribute__((constructor)) static void start(void) {
    const char *delay = getenv("SYNC_SHIM_DELAY_US");
    const char *log = getenv("SYNC_SHIM_LOG");
    if (delay != NULL) delay_us = atol(delay);
    if (log != NULL) log_fd = open(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
}

__attribute__((destructor)) static void end(void) {
    const char *path = getenv("SYNC_SHIM_TIMES");
    FILE *file = path == NULL || num_times == 0 ? NULL : fopen(path, "w");
    if (file == NULL) return;
    for (int i = 0; i < num_times && i < MOST_TIMES; i++) fprintf(file, "%d\n", times_us[i]);
    fclose(file);
}

static int slowed(const char *name, int fd) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    struct timespec before, after;
    if (log_fd >= 0 && write(log_fd, ".", 1) != 1) abort();
    clock_gettime(CLOCK_MONOTONIC, &before);
    if (delay_us > 0) {
        struct timespec pause = {delay_us / 1000000, (delay_us % 1000000) * 1000};
        nanosleep(&pause, NULL);
    }
    int result = real(fd);
    clock_gettime(CLOCK_MONOTONIC, &after);
    int number = __atomic_fetch_add(&num_times, 1, __ATOMIC_RELAXED);
    if (number < MOST_TIMES)
        times_us[number] = (after.tv_sec - before.tv_sec) * 1000000 + (after.tv_nsec - before.tv_nsec) / 1000;
    return result;
}

int fsync(int fd) { return slowed("fsync", fd); }

int fdatasync(int fd) { return slowed("fdatasync", fd); }
