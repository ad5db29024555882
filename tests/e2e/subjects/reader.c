/* A program that knows nothing of speculations: it reads `data`, and what it had before must be there when it reads it again. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <fenv.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static void die(const char *what, int line) {
    fprintf(stderr, "line %d: %s\n", line, what);
    _exit(9);
}
#define REQUIRE(good) ((good) ? (void)0 : die(#good, __LINE__))

static void put(const char *path, int flags, const char *text) {
    int file = open(path, O_CREAT | O_WRONLY | flags, 0644);
    REQUIRE(file >= 0 && write(file, text, strlen(text)) == (ssize_t)strlen(text) && close(file) == 0);
}

static void get(const char *path, char text[64]) {
    int file = open(path, O_RDONLY);
    ssize_t length = file < 0 ? -1 : read(file, text, 63);
    REQUIRE(length >= 0 && close(file) == 0);
    text[length] = 0;
}

/* Counts in memory, reads, waits on the fifo to be let go, and says what it has. */
static void plain(void) {
    char text[64], nothing[64];
    int count = 41;
    pid_t me = getpid();
    put("../runs", O_APPEND, "run\n");
    count++;
    get("data", text);
    get("../fifo", nothing);
    char result[128];
    snprintf(result, sizeof result, "%d %s %s", count, me == getpid() ? "same" : "other", text);
    put("result", O_TRUNC, result);
}

static void ignore(int signal) { (void)signal; }
static void other(int signal) { (void)signal; }

static int is_locked(int file, short kind) {
    struct flock lock = {.l_type = kind, .l_whence = SEEK_SET, .l_start = 10, .l_len = 10};
    return fcntl(file, F_SETLK, &lock) == 0;
}

/* Takes what is on its way, in its order; adds up what came with it (8 if nothing did), ten times as much for what comes before. */
static long taken(int signal) {
    sigset_t set;
    siginfo_t info;
    struct timespec now = {0, 0};
    long sum = 0;
    sigemptyset(&set), sigaddset(&set, signal);
    while (sigtimedwait(&set, &info, &now) == signal) {
        REQUIRE(info.si_pid == getpid());
        sum = sum * 10 + (info.si_code == SI_QUEUE ? info.si_value.sival_int : 8);
    }
    return sum;
}

/* Everything that the kernel keeps of a process, changed after the read. */
static void all(void) {
    char text[64], name[16];
    char *heap = strdup("heap"), *shared, *gone;
    sigset_t mask, none;
    struct sigaction action = {.sa_handler = ignore}, found;
    struct itimerval timer = {.it_value = {.tv_sec = 5000}, .it_interval = {.tv_sec = 7}};
    struct rlimit files;

    put("mine", O_TRUNC, "0123456789");
    put("../beside", O_TRUNC, "0123456789012345678901234567890");
    int mine = open("mine", O_RDWR), beside = open("../beside", O_RDWR | O_APPEND), dir = open(".", O_RDONLY);
    REQUIRE(mine >= 0 && beside >= 0 && dir >= 0);
    REQUIRE(lseek(mine, 3, SEEK_SET) == 3 && lseek(beside, 5, SEEK_SET) == 5);
    REQUIRE(is_locked(beside, F_WRLCK));
    shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, mine, 0);
    gone = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(shared != MAP_FAILED && gone != MAP_FAILED);
    shared[0] = 'A', gone[40000] = 'g';
    sigemptyset(&none), sigemptyset(&mask), sigaddset(&mask, SIGUSR1), sigaddset(&mask, SIGRTMIN + 1);
    REQUIRE(sigprocmask(SIG_SETMASK, &mask, NULL) == 0 && sigaction(SIGUSR2, &action, NULL) == 0);
    REQUIRE(kill(getpid(), SIGUSR1) == 0 && raise(SIGRTMIN + 1) == 0 && kill(getpid(), SIGRTMIN + 1) == 0);
    for (int value = 1; value < 4; value++) REQUIRE(sigqueue(getpid(), SIGRTMIN + 1, (union sigval){.sival_int = value}) == 0);
    REQUIRE(mkdir("sub", 0755) == 0 && chdir("sub") == 0);
    umask(027), fesetround(FE_UPWARD), prctl(PR_SET_NAME, "before");
    REQUIRE(setitimer(ITIMER_REAL, &timer, NULL) == 0 && getrlimit(RLIMIT_NOFILE, &files) == 0);

    get("../data", text);

    if (strcmp(text, "new\n") == 0) {
        strcpy(heap, "HEAP"), shared[0] = 'B', shared[1] = 'B', gone[40000] = 'x';
        munmap(gone + 16384, 16384), munmap(gone + 40960, 24576);
        REQUIRE(taken(SIGUSR1) == 8 && taken(SIGRTMIN + 1) == 88123);
        REQUIRE(write(mine, "xyz", 3) == 3 && is_locked(beside, F_UNLCK));
        REQUIRE(lseek(beside, 0, SEEK_SET) == 0 && fcntl(beside, F_SETFL, 0) == 0);
        REQUIRE(lseek(dir, 0, SEEK_END) >= 0 && close(dir) == 0 && dup2(beside, mine) == mine);
        action.sa_handler = other;
        REQUIRE(sigprocmask(SIG_SETMASK, &none, NULL) == 0 && sigaction(SIGUSR2, &action, NULL) == 0);
        REQUIRE(chdir("/") == 0);
        umask(0), fesetround(FE_DOWNWARD), prctl(PR_SET_NAME, "after");
        struct itimerval no_timer = {0};
        struct rlimit few = {.rlim_cur = 20, .rlim_max = files.rlim_max};
        REQUIRE(setitimer(ITIMER_REAL, &no_timer, NULL) == 0 && setrlimit(RLIMIT_NOFILE, &few) == 0);
        if (fork() == 0) pause();
        REQUIRE(chdir(getenv("HERE")) == 0);
        put("../messed", 0, "");
        for (;;) pause();
    }
    REQUIRE(strcmp(text, "old\n") == 0 && strcmp(heap, "heap") == 0 && gone[40000] == 'g');
    REQUIRE(shared[0] == 'A' && shared[1] == '1');
    REQUIRE(mremap(gone, 65536, 131072, MREMAP_MAYMOVE) != MAP_FAILED);
    REQUIRE(taken(SIGUSR1) == 8 && taken(SIGRTMIN + 1) == 88123);
    REQUIRE(lseek(mine, 0, SEEK_CUR) == 3 && lseek(beside, 0, SEEK_CUR) == 5 && fcntl(dir, F_GETFD) == 0);
    REQUIRE(fcntl(beside, F_GETFL) & O_APPEND);
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 10, .l_len = 10};
    int one = dup(beside);
    REQUIRE(fcntl(one, F_OFD_GETLK, &lock) == 0 && lock.l_type == F_WRLCK && lock.l_pid == getpid());
    REQUIRE(sigprocmask(SIG_SETMASK, NULL, &mask) == 0 && sigismember(&mask, SIGUSR1) && !sigismember(&mask, SIGUSR2));
    REQUIRE(sigaction(SIGUSR2, NULL, &found) == 0 && found.sa_handler == ignore);
    struct stat here, sub;
    REQUIRE(stat(".", &here) == 0 && stat("../sub", &sub) == 0 && here.st_ino == sub.st_ino);
    REQUIRE(umask(0) == 027 && fegetround() == FE_UPWARD);
    REQUIRE(prctl(PR_GET_NAME, name) == 0 && strcmp(name, "before") == 0);
    REQUIRE(getitimer(ITIMER_REAL, &timer) == 0 && timer.it_value.tv_sec > 4000 && timer.it_interval.tv_sec == 7);
    struct rlimit now;
    REQUIRE(getrlimit(RLIMIT_NOFILE, &now) == 0 && now.rlim_cur == files.rlim_cur);
    put("../result", O_TRUNC, "all there\n");
}

int main(int count, char **words) {
    REQUIRE(count == 2);
    strcmp(words[1], "all") == 0 ? all() : plain();
    return 0;
}
