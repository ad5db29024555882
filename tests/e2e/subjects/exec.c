/* Runs other programs, in levels and outside of them. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <mojave.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
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

/* By each of the names that the C library has for it: what it runs says so, and has all its words. */
static void run(const char *form) {
    char *script = "echo $0 $1 $2 $3 $4 $5 $6 $7 $SAID";
    char *words[] = {"sh", "-c", script, (char *)form, "1", "2", "3", "4", "5", "6", "7", NULL};
    char *said[] = {"PATH=/usr/bin:/bin", "SAID=so", NULL};
    REQUIRE(setenv("SAID", "so", 1) == 0);
    if (strcmp(form, "execv") == 0) execv("/bin/sh", words);
    if (strcmp(form, "execve") == 0) execve("/bin/sh", words, said);
    if (strcmp(form, "execvp") == 0) execvp("sh", words);
    if (strcmp(form, "execvpe") == 0) execvpe("sh", words, said);
    if (strcmp(form, "fexecve") == 0) fexecve(open("/bin/sh", O_PATH), words, said);
    if (strcmp(form, "execveat") == 0) execveat(open("/bin", O_PATH | O_DIRECTORY), "sh", words, said, 0);
    if (strcmp(form, "execl") == 0) execl("/bin/sh", "sh", "-c", script, form, "1", "2", "3", "4", "5", "6", "7", NULL);
    if (strcmp(form, "execlp") == 0) execlp("sh", "sh", "-c", script, form, "1", "2", "3", "4", "5", "6", "7", NULL);
    if (strcmp(form, "execle") == 0)
        execle("/bin/sh", "sh", "-c", script, form, "1", "2", "3", "4", "5", "6", "7", NULL, said);
}

/* exec open PROGRAM ...: with a level open. */
static void with_a_level_open(char **words) {
    put("before", "before");
    int code = speculate();
    if (code > 0) printf("%d\n", code);
    REQUIRE(code == 0);
    put("inside", "inside");
    execvp(words[0], words);
}

/* exec form NAME: with a level open, by this function. */
static void by_name(const char *form) {
    REQUIRE(speculate() == 0);
    run(form);
}

static void reap(int signal) {
    (void)signal;
    while (waitpid(-1, NULL, WNOHANG) > 0) {}
}

static void never(int signal) {
    (void)signal;
    _exit(8);
}

/* exec reaping HOW PROGRAM ...: with a level open, and children dealt with in one way or another. */
static void reaping(const char *how, char **words) {
    struct sigaction action = {.sa_handler = SIG_DFL};
    if (strcmp(how, "handled") == 0) action.sa_handler = reap;
    if (strcmp(how, "ignored") == 0) action.sa_handler = SIG_IGN;
    if (strcmp(how, "not waited for") == 0) action.sa_flags = SA_NOCLDWAIT;
    REQUIRE(sigaction(SIGCHLD, &action, NULL) == 0 && signal(SIGABRT, never) != SIG_ERR);
    char *missing[] = {"there-is-no-such-program", NULL};
    for (int round = 0; round < 20; round++) {
        REQUIRE(speculate() == 0);
        REQUIRE(execvp(missing[0], missing) == -1 && errno == ENOENT);
        struct sigaction after;
        REQUIRE(sigaction(SIGCHLD, NULL, &after) == 0);
        REQUIRE(after.sa_handler == action.sa_handler && ((after.sa_flags ^ action.sa_flags) & SA_NOCLDWAIT) == 0);
    }
    execvp(words[0], words);
}

/* exec missing: what can't be run leaves all as it was. */
static void missing(void) {
    char *words[] = {"none", NULL}, path[] = "./script";
    REQUIRE(speculate() == 0);
    put("inside", "inside");
    int level = spec_current();
    REQUIRE(execvp("there-is-no-such-program", words) == -1 && errno == ENOENT);
    REQUIRE(execv("inside", words) == -1 && errno == EACCES);
    put(path, "echo a script of the shell: $1\n");
    REQUIRE(chmod(path, 0755) == 0 && execl(path, path, "x", NULL) == -1 && errno == ENOEXEC);
    REQUIRE(spec_depth() == 1 && spec_current() == level && spec_commit(level) == 0);
    REQUIRE(speculate() == 0);
    execlp(path, path, "word", NULL);
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
    if (strcmp(argv[1], "form") == 0) by_name(argv[2]);
    if (strcmp(argv[1], "missing") == 0) missing();
    if (strcmp(argv[1], "reaping") == 0) reaping(argv[2], argv + 3);
    if (strcmp(argv[1], "decided") == 0) when_decided(argv[0], atoi(argv[2]));
    if (strcmp(argv[1], "child") == 0) in_a_child();
    if (strcmp(argv[1], "try") == 0) {
        int code = speculate();
        printf("%d %s\n", code, spec_error());
    }
    return 0;
}
