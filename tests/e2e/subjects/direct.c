/* Writes a file past the kernel's pages, again and again, while another thread reads it through them: `direct HOW ROUNDS FILE`. Whoever
 * reads after a write is done must see it, and so must everybody in the end. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SIZE (640 * 1024)

static const char *path;
static volatile int is_over;

static void *read_on(void *unused)
{
	char *bytes = malloc(SIZE);
	int fd = open(path, O_RDONLY);

	(void)unused;
	while (bytes && !is_over && pread(fd, bytes, SIZE, 0) >= 0)
		;
	return NULL;
}

static int write_asynchronously(aio_context_t context, int fd, void *bytes)
{
	struct iocb write = { .aio_lio_opcode = IOCB_CMD_PWRITE, .aio_fildes = fd, .aio_buf = (uintptr_t)bytes,
			      .aio_nbytes = SIZE };
	struct iocb *writes[] = { &write };
	struct io_event event;

	return syscall(SYS_io_submit, context, 1, writes) == 1 &&
	       syscall(SYS_io_getevents, context, 1, 1, &event, NULL) == 1 && event.res == SIZE;
}

/* Whether a descriptor shows what was written. */
static int shows(int fd, const char *written)
{
	static char bytes[SIZE];

	return pread(fd, bytes, SIZE, 0) == SIZE && memcmp(bytes, written, SIZE) == 0;
}

int main(int argc, char **argv)
{
	char *bytes = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int is_async = argc == 4 && strcmp(argv[1], "asynchronous") == 0, stale = 0, round, direct, buffered;
	aio_context_t context = 0;
	pthread_t reader;

	if (argc != 4 || bytes == MAP_FAILED)
		return 2;
	path = argv[3];
	direct = open(path, O_RDWR | O_CREAT | O_DIRECT, 0644);
	buffered = open(path, O_RDONLY);
	if (direct < 0 || buffered < 0 || pwrite(direct, bytes, SIZE, 0) != SIZE ||
	    syscall(SYS_io_setup, 1, &context) != 0 || pthread_create(&reader, NULL, read_on, NULL) != 0) {
		perror(path);
		return 2;
	}
	for (round = 0; round < atoi(argv[2]); round++) {
		memset(bytes, 1 + round % 2, SIZE);
		if (!(is_async ? write_asynchronously(context, direct, bytes) : pwrite(direct, bytes, SIZE, 0) == SIZE)) {
			perror("a write");
			return 2;
		}
		stale += !shows(buffered, bytes);
	}
	is_over = 1;
	pthread_join(reader, NULL);
	printf("%d of %d writes not seen, %s\n", stale, round, shows(open(path, O_RDONLY), bytes) ? "seen at last" : "lost");
	return 0;
}
