/* Does what it is told on its standard input, an order at a time, and says after each how all of it is: memory, mappings,
 * signals, children, descriptors, files. What it reads and says goes through pipes, which no abort takes back. An order that makes
 * no sense in the state that it meets does nothing, so that any order can be left out. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <mojave.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { CELLS = 6, REGIONS = 4, PAGES = 16, SLOTS = 6, SIGNALS = 4, SLEEPERS = 3, DEPTH = 10 };
enum { PAGE = 4096, MAPPED_BYTES = 8192, FILE_BYTES_MAX = 1 << 20, TEXT_BYTES = 1 << 15 };

/* Numbered as in the model. */
enum {
    FILL, RESIZE,
    MAP, CUT, PROTECT, STORE, GIVE_BACK, GROW,
    BLOCK, UNBLOCK, RAISE, SEND, QUEUE, TAKE, HANDLE,
    START,
    OPEN, CLOSE, DUP, PUT, SEEK, APPENDING,
    WRITE, APPEND, UNLINK, RENAME, LINK, TRUNCATE, CHILD, SHARED, UMASK,
    ENTER, COMMIT, ABORT, RETRY,
};

struct order {
    uint8_t what, a, b, c;
    uint32_t number;
};

static const char *const names[] = {"f0", "f1", "f2", "d/f3", "d/f4"};
enum { NAMES = sizeof names / sizeof *names };

enum { GONE, NONE, READ, BOTH };
static const int protections[] = {0, PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE};

static struct { char *bytes; size_t length; } cells[CELLS];
static struct { char *start; size_t pages; uint8_t state[PAGES]; } regions[REGIONS];
static long hits[SIGNALS];
static int slots[SLOTS], ids[DEPTH + 1];
static pid_t sleepers[SLEEPERS];
static char *shared;

static void die(const char *what, int line) {
    dprintf(2, "machine.c, line %d: %s: %s (%s)\n", line, what, strerror(errno), spec_error());
    _exit(9);
}
#define REQUIRE(good) ((good) ? (void)0 : die(#good, __LINE__))

static int failed(long result) { return result < 0 ? errno : 0; }

/* ---- Memory. */

static int resize(int cell, uint8_t byte, size_t length) {
    cells[cell].bytes = realloc(cells[cell].bytes, length + 1);
    REQUIRE(cells[cell].bytes != NULL);
    memset(cells[cell].bytes, byte, length);
    cells[cell].length = length;
    return 0;
}

/* All that is left of a region. */
static void unmap(int region) {
    for (size_t page = 0; page < regions[region].pages; page++)
        if (regions[region].state[page] != GONE) REQUIRE(munmap(regions[region].start + page * PAGE, PAGE) == 0);
    regions[region].pages = 0;
}

/* A new one, all of it written to; or none, if there was one. */
static int map(int region, size_t pages, uint8_t byte) {
    if (regions[region].pages > 0) {
        unmap(region);
        return 0;
    }
    char *start = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    REQUIRE(start != MAP_FAILED);
    memset(start, byte, pages * PAGE);
    regions[region].start = start, regions[region].pages = pages;
    memset(regions[region].state, BOTH, pages);
    return 0;
}

/* One page of a region after the other. */
static int each_page(struct order order, int region) {
    size_t first = order.b, count = 1 + order.c % 4;
    for (size_t page = first; page < first + count && page < regions[region].pages; page++) {
        char *at = regions[region].start + page * PAGE;
        uint8_t *state = &regions[region].state[page];
        if (*state == GONE) continue;
        switch (order.what) {
        case CUT: REQUIRE(munmap(at, PAGE) == 0); *state = GONE; break;
        case PROTECT: *state = NONE + order.number % 3; REQUIRE(mprotect(at, PAGE, protections[*state]) == 0); break;
        case STORE: if (*state == BOTH) memset(at, (int)order.number, PAGE); break;
        case GIVE_BACK: REQUIRE(madvise(at, PAGE, MADV_DONTNEED) == 0); break;
        }
    }
    return 0;
}

/* Only what is one mapping to the kernel can be made larger or smaller. */
static int grow(int region, size_t pages) {
    size_t before = regions[region].pages;
    for (size_t page = 0; page < before; page++)
        if (regions[region].state[page] != BOTH) return 0;
    if (before == 0) return 0;
    char *start = mremap(regions[region].start, before * PAGE, pages * PAGE, MREMAP_MAYMOVE);
    if (start == MAP_FAILED) return errno;
    regions[region].start = start, regions[region].pages = pages;
    if (pages > before) memset(regions[region].state + before, BOTH, pages - before);
    return 0;
}

/* ---- Signals. */

static int number_of(int signal) {
    switch (signal) {
    case 0: return SIGUSR1;
    case 1: return SIGUSR2;
    default: return SIGRTMIN + signal;
    }
}

static void count(int number, siginfo_t *info, long factor) {
    for (int signal = 0; signal < SIGNALS; signal++)
        if (number_of(signal) == number) hits[signal] += factor * (1 + (info->si_code == SI_QUEUE ? info->si_value.sival_int : 0));
}
static void once(int number, siginfo_t *info, void *context) { (void)context; count(number, info, 1); }
static void thousandfold(int number, siginfo_t *info, void *context) { (void)context; count(number, info, 1000); }

static int handle(int signal, int how) {
    struct sigaction action = {.sa_sigaction = how ? thousandfold : once, .sa_flags = SA_SIGINFO};
    if (how == 2) action = (struct sigaction){.sa_handler = SIG_IGN};
    return failed(sigaction(number_of(signal), &action, NULL));
}

static int mask(int how, int signal) {
    sigset_t set;
    sigemptyset(&set), sigaddset(&set, number_of(signal));
    return failed(sigprocmask(how, &set, NULL));
}

/* One more than the value that came with it; 0 if there is none. */
static int take(int signal) {
    sigset_t set;
    siginfo_t info;
    struct timespec now = {0, 0};
    sigemptyset(&set), sigaddset(&set, number_of(signal));
    if (sigtimedwait(&set, &info, &now) < 0) return 0;
    return 1 + (info.si_code == SI_QUEUE ? info.si_value.sival_int : 0);
}

/* ---- Descriptors and files. */

/* 0 or an errno. */
static int put(int file, uint8_t byte, size_t length) {
    static char bytes[FILE_BYTES_MAX];
    if (file < 0) return errno;
    memset(bytes, byte, length);
    REQUIRE(write(file, bytes, length) == (ssize_t)length);
    return 0;
}

static int into(const char *name, int flags, uint8_t byte, size_t length) {
    int file = open(name, flags | O_WRONLY, 0666), result = put(file, byte, length);
    if (file >= 0) REQUIRE(close(file) == 0);
    return result;
}

static int open_slot(int slot, const char *name, int flags) {
    if (slots[slot] >= 0) return 0;
    slots[slot] = open(name, O_RDWR | flags);
    return failed(slots[slot]);
}

static int close_slot(int slot) {
    if (slots[slot] < 0) return 0;
    REQUIRE(close(slots[slot]) == 0);
    slots[slot] = -1;
    return 0;
}

/* To a free slot, or over what another holds. */
static int dup_slot(int from, int to) {
    if (slots[from] < 0 || from == to) return 0;
    if (slots[to] < 0) slots[to] = dup(slots[from]);
    else REQUIRE(dup2(slots[from], slots[to]) == slots[to]);
    return failed(slots[to]);
}

static int appending(int slot, int on) {
    if (slots[slot] < 0) return 0;
    return failed(fcntl(slots[slot], F_SETFL, on ? O_APPEND : 0));
}

/* ---- Children. */

static int child(const char *name, uint8_t byte, size_t length) {
    int status;
    pid_t pid = fork();
    REQUIRE(pid >= 0);
    if (pid == 0) _exit(into(name, O_CREAT | O_TRUNC, byte, length));
    REQUIRE(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
    return WEXITSTATUS(status);
}

static int start(int sleeper) {
    if (sleepers[sleeper]) return 0;
    sleepers[sleeper] = fork();
    REQUIRE(sleepers[sleeper] >= 0);
    if (sleepers[sleeper] == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;) pause();
    }
    return 0;
}

/* ---- Levels. */

static int enter(void) {
    if (spec_depth() == DEPTH) return 0;
    int code = speculate();
    if (code == 0) ids[spec_depth() - 1] = spec_current();
    REQUIRE(code >= 0);
    return code;
}

static int decide(struct order order) {
    int depth = (int)spec_depth(), code = 1 + order.b;
    if (depth == 0) return 0;
    /* Any of them, or one of the two innermost. */
    int id = ids[order.a < 128 ? order.a % depth : depth - 1 - order.a % (depth < 2 ? depth : 2)];
    if (order.what == COMMIT) return failed(spec_commit(id));
    return failed(order.what == ABORT ? spec_abort(id, code) : spec_retry(id, code));
}

static int obey(struct order order) {
    const char *name = names[order.a % NAMES], *other = names[order.b % NAMES];
    int slot = order.a % SLOTS, signal = order.a % SIGNALS, region = order.a % REGIONS, cell = order.a % CELLS;
    size_t pages = 1 + order.b % PAGES;
    switch (order.what) {
    case FILL: memset(cells[cell].bytes, order.c, cells[cell].length); return 0;
    case RESIZE: return resize(cell, order.c, order.number);
    case MAP: return map(region, pages, order.c);
    case CUT: case PROTECT: case STORE: case GIVE_BACK: return each_page(order, region);
    case GROW: return grow(region, pages);
    case BLOCK: return mask(SIG_BLOCK, signal);
    case UNBLOCK: return mask(SIG_UNBLOCK, signal);
    case RAISE: return failed(raise(number_of(signal)));
    case SEND: return failed(kill(getpid(), number_of(signal)));
    case QUEUE: return failed(sigqueue(getpid(), number_of(signal), (union sigval){.sival_int = order.b}));
    case TAKE: return take(signal);
    case HANDLE: return handle(signal, order.b % 3);
    case START: return start(order.a % SLEEPERS);
    case OPEN: return open_slot(slot, other, order.c % 4 == 0 ? O_APPEND : 0);
    case CLOSE: return close_slot(slot);
    case DUP: return dup_slot(slot, order.b % SLOTS);
    case PUT: return slots[slot] < 0 ? 0 : put(slots[slot], order.c, order.number);
    case SEEK: return slots[slot] < 0 ? 0 : failed(lseek(slots[slot], order.number, SEEK_SET));
    case APPENDING: return appending(slot, order.b % 2);
    case WRITE: return into(name, O_CREAT | O_TRUNC, order.c, order.number);
    case APPEND: return into(name, O_APPEND, order.c, order.number);
    case UNLINK: return failed(unlink(name));
    case RENAME: return failed(rename(name, other));
    case LINK: return failed(link(name, other));
    case TRUNCATE: return failed(truncate(name, order.number));
    case CHILD: return child(name, order.c, order.number);
    case SHARED: shared[order.number % MAPPED_BYTES] = (char)order.c; return 0;
    case UMASK: umask(order.b % 64); return 0;
    case ENTER: return enter();
    case COMMIT: case ABORT: case RETRY: return decide(order);
    }
    return -1;
}

/* ---- What it says. */

static char text[TEXT_BYTES];
static int said;
#define SAY(...) (said += snprintf(text + said, sizeof text - (size_t)said, __VA_ARGS__))

/* How many bytes, and a hash (FNV-1a, over bytes). */
static void say_bytes(const unsigned char *bytes, size_t length) {
    uint64_t hash = 0xcbf29ce484222325;
    for (size_t at = 0; at < length; at++) hash = (hash ^ bytes[at]) * 0x100000001b3;
    SAY("%zu/%016lx", length, hash);
}

static void say_file(int file) {
    static unsigned char bytes[FILE_BYTES_MAX];
    struct stat stat;
    ssize_t length = pread(file, bytes, sizeof bytes, 0);
    REQUIRE(fstat(file, &stat) == 0 && length == stat.st_size && length < (ssize_t)sizeof bytes);
    say_bytes(bytes, (size_t)length);
    SAY("/%d", (int)stat.st_nlink);
}

static void say_path(const char *path) {
    int file = open(path, O_RDONLY);
    if (file < 0) return;
    say_file(file);
    close(file);
}

/* A list of the process's mappings, for the time of one telling. */
static struct { unsigned long start, end; char rights[5]; } maps[512];
static int maps_count;

static void look_at_maps(void) {
    static char list[1 << 16];
    int file = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    size_t length = 0;
    for (ssize_t got; (got = read(file, list + length, sizeof list - 1 - length)) > 0;) length += (size_t)got;
    REQUIRE(file >= 0 && length < sizeof list - 1 && close(file) == 0);
    list[length] = 0, maps_count = 0;
    for (char *line = strtok(list, "\n"); line; line = strtok(NULL, "\n")) {
        REQUIRE(maps_count < 512);
        REQUIRE(sscanf(line, "%lx-%lx %4s", &maps[maps_count].start, &maps[maps_count].end, maps[maps_count].rights) == 3);
        maps_count++;
    }
}

static int mapping_of(const char *address) {
    for (int at = 0; at < maps_count; at++)
        if (maps[at].start <= (unsigned long)address && (unsigned long)address < maps[at].end) return at;
    return -1;
}

/* Its pages, `|` where another mapping begins: how each is protected, and what it holds. */
static void say_region(int region) {
    static const char *const rights[] = {"", "---p", "r--p", "rw-p"};
    int before = -1;
    SAY(" region");
    for (size_t page = 0; page < regions[region].pages; page++) {
        char *at = regions[region].start + page * PAGE;
        int state = regions[region].state[page], mapping = mapping_of(at);
        if (state == GONE) {
            SAY(" -");
            before = -1;
            continue;
        }
        SAY(before >= 0 && mapping != before ? " | " : " ");
        before = mapping;
        REQUIRE(mapping >= 0 && strcmp(maps[mapping].rights, rights[state]) == 0);
        SAY("%s", state == NONE ? "n" : state == READ ? "r" : "w");
        if (state == NONE) continue;
        for (int byte = 1; byte < PAGE; byte++) REQUIRE(at[byte] == at[0]);
        SAY("%d", (unsigned char)at[0]);
    }
}

/* Which of the signals a line of `status` names. */
static void say_signals(const char *status, const char *line) {
    const char *at = strstr(status, line);
    REQUIRE(at != NULL);
    unsigned long long found = strtoull(at + strlen(line), NULL, 16);
    SAY(" ");
    for (int signal = 0; signal < SIGNALS; signal++) SAY("%d", (int)(found >> (number_of(signal) - 1) & 1));
}

static void say_kernel(void) {
    char status[8192];
    int file = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
    ssize_t length = read(file, status, sizeof status - 1);
    REQUIRE(file >= 0 && length > 0 && close(file) == 0);
    status[length] = 0;
    SAY(" signals");
    say_signals(status, "\nSigPnd:\t"), say_signals(status, "\nShdPnd:\t"), say_signals(status, "\nSigBlk:\t");
    for (int signal = 0; signal < SIGNALS; signal++) SAY(" %ld", hits[signal]);
    SAY(" sleepers");
    for (int sleeper = 0; sleeper < SLEEPERS; sleeper++) SAY(" %d", sleepers[sleeper] && kill(sleepers[sleeper], 0) == 0);
    mode_t now = umask(0);
    umask(now);
    SAY(" umask %d", (int)now);
}

static void tell(int result) {
    said = 0;
    SAY("%d depth %d code %d cells", result, spec_depth(), spec_code());
    for (int cell = 0; cell < CELLS; cell++) {
        for (size_t byte = 1; byte < cells[cell].length; byte++) REQUIRE(cells[cell].bytes[byte] == cells[cell].bytes[0]);
        SAY(" %zu:%d", cells[cell].length, (unsigned char)cells[cell].bytes[0]);
    }
    look_at_maps();
    for (int region = 0; region < REGIONS; region++) say_region(region);
    say_kernel();
    for (int slot = 0; slot < SLOTS; slot++) {
        SAY(" slot ");
        if (slots[slot] < 0) continue;
        SAY("%ld%s:", (long)lseek(slots[slot], 0, SEEK_CUR), fcntl(slots[slot], F_GETFL) & O_APPEND ? "+" : "");
        say_file(slots[slot]);
    }
    for (int name = 0; name < NAMES; name++) {
        SAY(" name ");
        say_path(names[name]);
    }
    SAY(" shared ");
    say_path("shared");
    SAY("\n");
    REQUIRE(write(1, text, (size_t)said) == said);
}

int main(void) {
    for (int cell = 0; cell < CELLS; cell++) resize(cell, 0, 100);
    for (int slot = 0; slot < SLOTS; slot++) slots[slot] = -1;
    for (int signal = 0; signal < SIGNALS; signal++) REQUIRE(handle(signal, 0) == 0);
    umask(022);
    /* What is mapped before there is a view of its own can't be put back. */
    REQUIRE(speculate() == 0 && spec_commit(spec_current()) == 0);
    int file = open("shared", O_CREAT | O_RDWR, 0644);
    REQUIRE(file >= 0 && ftruncate(file, MAPPED_BYTES) == 0 && mkdir("d", 0755) == 0);
    shared = mmap(NULL, MAPPED_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    REQUIRE(shared != MAP_FAILED && close(file) == 0);
    struct order order;
    while (read(0, &order, sizeof order) == sizeof order) tell(obey(order));
    return 0;
}
