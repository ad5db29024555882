/* Does what it is told on its standard input, an order at a time, and says after each how all of it is: memory, descriptors,
 * files. What it reads and says goes through pipes, which no abort takes back. */
#include <errno.h>
#include <fcntl.h>
#include <mojave.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { CELLS = 16, CELL_BYTES = 3000, SLOTS = 4, MAPPED_BYTES = 4096, BYTES_MAX = 40000, TEXT_BYTES = 1 << 14 };
enum { FILL, REPLACE, WRITE, APPEND, UNLINK, RENAME, LINK, TRUNCATE, OPEN, PUT, SEEK, MAP, CHILD, ENTER, COMMIT, ABORT, RETRY };

struct order {
    uint8_t what, a, b, byte;
    uint32_t number;
};

static const char *const names[] = {"f0", "f1", "f2", "f3", "d/f4", "d/f5", "d/f6"};
enum { NAMES = sizeof names / sizeof *names };

static char *cells[CELLS];
static int slots[SLOTS];
static char *mapped;

static void die(const char *what, int line) {
    dprintf(2, "orders.c, line %d: %s: %s (%s)\n", line, what, strerror(errno), spec_error());
    _exit(9);
}
#define REQUIRE(good) ((good) ? (void)0 : die(#good, __LINE__))

static char *filled(uint8_t byte, size_t length) {
    char *bytes = malloc(length + 1);
    REQUIRE(bytes != NULL);
    return memset(bytes, byte, length);
}

/* 0 or an errno. */
static int put(int file, uint8_t byte, size_t length) {
    if (file < 0) return errno;
    char *bytes = filled(byte, length);
    REQUIRE(write(file, bytes, length) == (ssize_t)length);
    free(bytes);
    return 0;
}

static int into(const char *name, int flags, uint8_t byte, size_t length) {
    int file = open(name, flags | O_WRONLY, 0644), failed = put(file, byte, length);
    if (file >= 0) REQUIRE(close(file) == 0);
    return failed;
}

static int failed(int result) { return result < 0 ? errno : 0; }

static int open_or_close(int *slot, const char *name) {
    if (*slot >= 0) {
        REQUIRE(close(*slot) == 0);
        *slot = -1;
        return 0;
    }
    *slot = open(name, O_RDWR);
    return failed(*slot);
}

static int child(const char *name, uint8_t byte, size_t length) {
    int status;
    pid_t pid = fork();
    REQUIRE(pid >= 0);
    if (pid == 0) _exit(into(name, O_CREAT | O_TRUNC, byte, length));
    REQUIRE(waitpid(pid, &status, 0) == pid && WIFEXITED(status));
    return WEXITSTATUS(status);
}

static int obey(struct order order) {
    const char *name = names[order.a % NAMES];
    int *slot = &slots[order.a % SLOTS];
    switch (order.what) {
    case FILL: memset(cells[order.a], order.byte, CELL_BYTES); return 0;
    case REPLACE: free(cells[order.a]); cells[order.a] = filled(order.byte, CELL_BYTES); return 0;
    case WRITE: return into(name, O_CREAT | O_TRUNC, order.byte, order.number);
    case APPEND: return into(name, O_APPEND, order.byte, order.number);
    case UNLINK: return failed(unlink(name));
    case RENAME: return failed(rename(name, names[order.b]));
    case LINK: return failed(link(name, names[order.b]));
    case TRUNCATE: return failed(truncate(name, order.number));
    case OPEN: return open_or_close(slot, names[order.b]);
    case PUT: return put(*slot, order.byte, order.number);
    case SEEK: return failed(lseek(*slot, order.number, SEEK_SET));
    case MAP: mapped[order.number] = (char)order.byte; return 0;
    case CHILD: return child(name, order.byte, order.number);
    case ENTER: return speculate();
    case COMMIT: return failed(spec_commit((int)order.number));
    case ABORT: return failed(spec_abort((int)order.number, 1 + order.byte));
    case RETRY: return failed(spec_retry((int)order.number, 1 + order.byte));
    }
    return -1;
}

/* How many bytes, how many names, and a hash (FNV-1a, over bytes). */
static int tell_file(char *text, int file) {
    static unsigned char bytes[BYTES_MAX * 8];
    struct stat stat;
    ssize_t length = pread(file, bytes, sizeof bytes, 0);
    REQUIRE(fstat(file, &stat) == 0 && length == stat.st_size && length < (ssize_t)sizeof bytes);
    uint64_t hash = 0xcbf29ce484222325;
    for (ssize_t at = 0; at < length; at++) hash = (hash ^ bytes[at]) * 0x100000001b3;
    return sprintf(text, "%zd/%d/%016lx", length, (int)stat.st_nlink, hash);
}

static void tell(int result) {
    static char text[TEXT_BYTES];
    int at = sprintf(text, "%d:%d depth %d code %d cells", spec_current(), result, spec_depth(), spec_code());
    for (int cell = 0; cell < CELLS; cell++) {
        for (int byte = 1; byte < CELL_BYTES; byte++) REQUIRE(cells[cell][byte] == cells[cell][0]);
        at += sprintf(text + at, " %d", cells[cell][0]);
    }
    for (int slot = 0; slot < SLOTS; slot++) {
        at += sprintf(text + at, " slot ");
        if (slots[slot] >= 0) {
            at += sprintf(text + at, "%ld:", (long)lseek(slots[slot], 0, SEEK_CUR));
            at += tell_file(text + at, slots[slot]);
        }
    }
    for (int name = 0; name < NAMES; name++) {
        int file = open(names[name], O_RDONLY);
        at += sprintf(text + at, " name ");
        if (file >= 0) {
            at += tell_file(text + at, file);
            close(file);
        }
    }
    int file = open("mapped", O_RDONLY);
    at += sprintf(text + at, " mapped ");
    at += tell_file(text + at, file);
    close(file);
    text[at++] = '\n';
    REQUIRE(write(1, text, (size_t)at) == at);
}

int main(void) {
    for (int cell = 0; cell < CELLS; cell++) cells[cell] = filled(0, CELL_BYTES);
    for (int slot = 0; slot < SLOTS; slot++) slots[slot] = -1;
    /* What is mapped before there is a view of its own can't be put back. */
    REQUIRE(speculate() == 0 && spec_commit(spec_current()) == 0);
    int file = open("mapped", O_CREAT | O_RDWR, 0644);
    REQUIRE(file >= 0 && ftruncate(file, MAPPED_BYTES) == 0 && mkdir("d", 0755) == 0);
    mapped = mmap(NULL, MAPPED_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    REQUIRE(mapped != MAP_FAILED && close(file) == 0);
    struct order order;
    while (read(0, &order, sizeof order) == sizeof order) tell(obey(order));
    return 0;
}
