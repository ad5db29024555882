/* Many levels, each of which changes files; counts what the process has before and after.
 *
 *   many COMMITS ABORTS */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <mojave.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void die(const char *what, int line) {
    fprintf(stderr, "many.c, line %d: %s (%s)\n", line, what, spec_error());
    _exit(9);
}
enum { DIRS = 64 };

#define REQUIRE(good) ((good) ? (void)0 : die(#good, __LINE__))

static int descriptors(void) {
    int count = 0;
    DIR *dir = opendir("/proc/self/fd");
    REQUIRE(dir != NULL);
    while (readdir(dir) != NULL) count++;
    closedir(dir);
    return count;
}

/* Children that are there and no zombies; checkpoints that were told to end count until they have. */
static int children(void) {
    char path[64], text[4096] = {0};
    int count = 0, pid, length, at = 0;
    snprintf(path, sizeof path, "/proc/self/task/%d/children", getpid());
    int file = open(path, O_RDONLY);
    REQUIRE(file >= 0 && read(file, text, sizeof text - 1) >= 0 && close(file) == 0);
    for (; sscanf(text + at, "%d%n", &pid, &length) == 1; at += length) {
        char state = 'X', stat[512] = {0};
        snprintf(path, sizeof path, "/proc/%d/stat", pid);
        file = open(path, O_RDONLY);
        if (file < 0) continue;
        if (read(file, stat, sizeof stat - 1) > 0) sscanf(strrchr(stat, ')') + 1, " %c", &state);
        close(file);
        count += state != 'Z' && state != 'X';
    }
    return count;
}

static void put(const char *path, const void *bytes, size_t length) {
    int file = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0644);
    REQUIRE(file >= 0 && write(file, bytes, length) == (ssize_t)length && close(file) == 0);
}

/* Small and large content, names that come, go and change places, each time in another of some directories. */
static void change(int number) {
    static char bytes[20000];
    char dir[16];
    snprintf(dir, sizeof dir, "%d", number % DIRS);
    memset(bytes, 'a' + number % 26, sizeof bytes);
    REQUIRE(chdir(dir) == 0);
    put("small", bytes, 10);
    put("large", bytes, sizeof bytes);
    put("passing", bytes, 10);
    REQUIRE(unlink("passing") == 0 && mkdir("dir", 0755) == 0 && rename("small", "dir/small") == 0);
    REQUIRE(rename("dir/small", "small") == 0 && rmdir("dir") == 0 && chdir("..") == 0);
}

static void commits(int count) {
    for (int number = 0; number < count; number++) {
        REQUIRE(speculate() == 0);
        change(number);
        REQUIRE(spec_commit(spec_current()) == 0);
    }
}

static void aborts(int count) {
    for (int number = 0; number < count; number++) {
        int code = speculate();
        REQUIRE(code >= 0);
        if (code > 0) continue;
        change(number);
        spec_abort(spec_current(), 1);
    }
}

int main(int argc, char **argv) {
    REQUIRE(argc == 3);
    for (int number = 0; number < DIRS; number++) {
        char dir[16];
        snprintf(dir, sizeof dir, "%d", number);
        REQUIRE(mkdir(dir, 0755) == 0 || errno == EEXIST);
    }
    commits(DIRS);
    aborts(5);
    int descriptors_before = descriptors();
    commits(atoi(argv[1]));
    aborts(atoi(argv[2]));
    REQUIRE(descriptors() == descriptors_before);
    while (children() > 0) usleep(1000);
    return 0;
}
