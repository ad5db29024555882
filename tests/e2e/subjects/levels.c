/* Levels that are committed, each of which changes the same small file, a block of the same large one, and names.
 *
 *   levels flat|nested COUNT [wait]: one after the other, or inside one another */
#include <fcntl.h>
#include <mojave.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define REQUIRE(good) ((good) ? (void)0 : die(#good, __LINE__))

static void die(const char *what, int line) {
    fprintf(stderr, "levels.c, line %d: %s (%s)\n", line, what, spec_error());
    _exit(9);
}

static void put(const char *path, int number, off_t at) {
    char text[16];
    int length = snprintf(text, sizeof text, "%6d\n", number);
    int file = open(path, O_CREAT | O_WRONLY, 0644);
    REQUIRE(file >= 0 && pwrite(file, text, length, at) == length && close(file) == 0);
}

/* Of three new names one stays. */
static void change(int number) {
    char name[32], other[32];
    put("same", number, 0);
    put("large", number, number % 2 * 65536);
    snprintf(name, sizeof name, "new/%d", number);
    snprintf(other, sizeof other, "new/%d", number - 1);
    put(name, number, 0);
    if (number % 3 == 1) REQUIRE(unlink(other) == 0);
    if (number % 3 == 2) REQUIRE(rename(name, other) == 0);
}

static void nested(int number, int count) {
    if (number == count) return;
    REQUIRE(speculate() == 0);
    change(number);
    nested(number + 1, count);
    REQUIRE(spec_commit(spec_current()) == 0);
}

int main(int argc, char **argv) {
    REQUIRE(argc >= 3);
    int count = atoi(argv[2]);
    if (strcmp(argv[1], "nested") == 0) nested(0, count);
    for (int number = 0; strcmp(argv[1], "flat") == 0 && number < count; number++) {
        REQUIRE(speculate() == 0);
        change(number);
        REQUIRE(spec_commit(spec_current()) == 0);
    }
    if (argc > 3) {
        int told = open("../told", O_CREAT | O_WRONLY, 0644);
        REQUIRE(told >= 0);
        pause();
    }
    return 0;
}
