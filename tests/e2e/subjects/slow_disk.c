/* Syncs that wait for a test: while the file "slow" is in the directory SLOW_DISK, each appends a byte to "begun", and waits until
 * "answered" says that so many were. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static pthread_mutex_t begins = PTHREAD_MUTEX_INITIALIZER;

static const char *in_disk(char *path, const char *name) {
    snprintf(path, 4096, "%s/%s", getenv("SLOW_DISK"), name);
    return path;
}

static int is_slow(void) {
    char path[4096];
    return getenv("SLOW_DISK") && access(in_disk(path, "slow"), F_OK) == 0;
}

/* Which of all this one is. */
static long begin(void) {
    char path[4096];
    struct stat stat = {0};
    pthread_mutex_lock(&begins);
    int fd = open(in_disk(path, "begun"), O_WRONLY | O_APPEND | O_CLOEXEC);
    if (fd < 0 || write(fd, ".", 1) != 1 || fstat(fd, &stat))
        stat.st_size = 0;
    if (fd >= 0)
        close(fd);
    pthread_mutex_unlock(&begins);
    return stat.st_size;
}

static long answered(void) {
    char path[4096];
    long count = 0;
    FILE *file = fopen(in_disk(path, "answered"), "re");
    if (!file)
        return 0;
    if (fscanf(file, "%ld", &count) != 1)
        count = 0;
    fclose(file);
    return count;
}

static void wait_for_the_disk(void) {
    if (!is_slow())
        return;
    long mine = begin();
    while (is_slow() && answered() < mine)
        usleep(1000);
}

#define SYNCS(name)                                                        \
    int name(int fd) {                                                     \
        static int (*real)(int);                                           \
        if (!real)                                                         \
            real = (int (*)(int))dlsym(RTLD_NEXT, #name);                  \
        wait_for_the_disk();                                               \
        return real(fd);                                                   \
    }

SYNCS(fsync)
SYNCS(fdatasync)
SYNCS(syncfs)
