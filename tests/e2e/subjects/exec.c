/* Runs other programs, in levels and outside of them. */
#include <fcntl.h>
#include <mojave.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void die(const char *what, int line) {
    fprintf(stderr, "exec.c, line %d: %s (%s)\n", line, what, spec_error());
    _exit(9);
}
#define REQUIRE(good) ((good) ? (void)0 : die(#good, __LINE__))

static void put(const char *path, const char *text) {
    int file = open(path, O_CREAT | O_APPEND | O_WRONLY, 0644);
    REQUIRE(file >= 0 && write(file, text, strlen(text)) == (ssize_t)strlen(text) && close(file) == 0);
}

/* exec open PROGRAM ...: with a level open. */
static void with_a_level_open(char **words) {
    put("before", "before");
    REQUIRE(speculate() == 0);
    put("inside", "inside");
    execvp(words[0], words);
}

/* exec decided N: itself, N times, when its levels are decided. */
static void when_decided(char *self, int count) {
    char left[16];
    if (speculate() == 0) {
        put("undone", "x");
        spec_abort(spec_current(), 1);
    }
    REQUIRE(speculate() == 0 && access("undone", F_OK) != 0);
    put("kept", "x");
    REQUIRE(spec_commit(spec_current()) == 0);
    snprintf(left, sizeof left, "%d", count - 1);
    if (count > 0) execl(self, self, "decided", left, NULL);
}

/* exec child: a child of the level's runs a program. */
static void in_a_child(void) {
    for (int round = 0; round < 2; round++) {
        int code = speculate();
        REQUIRE(code >= 0);
        if (code > 0) continue;
        put("mine", "x");
        REQUIRE(system("cat mine > seen && echo child > children") == 0 && access("children", F_OK) == 0);
        if (round == 0) spec_abort(spec_current(), 1);
        REQUIRE(spec_commit(spec_current()) == 0);
    }
}

int main(int argc, char **argv) {
    REQUIRE(argc > 1);
    if (strcmp(argv[1], "open") == 0) with_a_level_open(argv + 2);
    if (strcmp(argv[1], "decided") == 0) when_decided(argv[0], atoi(argv[2]));
    if (strcmp(argv[1], "child") == 0) in_a_child();
    if (strcmp(argv[1], "try") == 0) {
        int code = speculate();
        printf("%d %s\n", code, spec_error());
    }
    return 0;
}
