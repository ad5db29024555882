/* pair COUNT: makes two files say the same number, in one level after another, COUNT times. */
#include <errno.h>
#include <fcntl.h>
#include <mojave.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void die(const char *what, int line) {
    dprintf(2, "pair.c, line %d: %s: %s (%s)\n", line, what, strerror(errno), spec_error());
    _exit(9);
}
#define REQUIRE(good) ((good) ? (void)0 : die(#good, __LINE__))

int main(int argc, char **argv) {
    int files[] = {open("g0", O_RDWR), open("g1", O_RDWR)}, count = argc > 1 ? atoi(argv[1]) : 0;
    REQUIRE(files[0] >= 0 && files[1] >= 0);
    for (int number = 2; number <= count; number++) {
        char text[16];
        REQUIRE(speculate() == 0);
        snprintf(text, sizeof text, "%08d", number);
        for (int file = 0; file < 2; file++) REQUIRE(pwrite(files[(file + number) % 2], text, 8, 0) == 8);
        REQUIRE(spec_commit(spec_current()) == 0);
        /* Else several would be committed together. */
        REQUIRE(spec_barrier(-1) == 0);
    }
    return 0;
}
