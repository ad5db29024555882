/* Opens a file, which waits for others: `waits truncate|open PATH PIDS`. Handles SIGUSR1, and says how often it did. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static volatile sig_atomic_t handled;

static void handle(int signal)
{
	(void)signal;
	handled++;
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_handler = handle };
	char pid[32];
	int pids, fd;

	if (argc != 4 || sigaction(SIGUSR1, &action, NULL) != 0)
		return 2;
	pids = open(argv[3], O_WRONLY | O_APPEND | O_CREAT, 0666);
	snprintf(pid, sizeof(pid), "%d\n", (int)getpid());
	if (pids < 0 || write(pids, pid, strlen(pid)) < 0)
		return 2;
	fd = open(argv[2], strcmp(argv[1], "truncate") == 0 ? O_WRONLY | O_TRUNC : O_RDONLY);
	printf("%s after %d\n", fd < 0 ? strerror(errno) : "opened", (int)handled);
	return fd < 0;
}
