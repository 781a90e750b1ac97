/* SPDX-License-Identifier: MIT */
#include "detach.h"

#include "tool.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* The child, for the handler of signals that the parent gets while it waits. */
static volatile pid_t waiting_for;

static void forward_signal(int number)
{
	if (waiting_for > 0)
		(void)kill(waiting_for, number);
}

static int failed(const char *what)
{
	message(MESSAGE_ERROR, "%s: %s", what, strerror(errno));
	return EXIT_FAILURE;
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		(void)close(*fd);
	*fd = -1;
}

/* Puts @fd in the place of a standard descriptor. */
static void put_at(int fd, int standard)
{
	if (fd >= 0 && fd != standard) {
		(void)dup2(fd, standard);
		(void)close(fd);
	}
}

/* Returns the next part of the child's output, if there is some; 0 at its end. */
static ssize_t read_some(int fd, char *buffer, size_t room)
{
	ssize_t n;

	do {
		n = read(fd, buffer, room);
	} while (n < 0 && errno == EINTR);
	return n;
}

/* Copies the child's stderr. False: it ended. */
static bool relay(int fd)
{
	char buffer[4096];
	ssize_t n = read_some(fd, buffer, sizeof(buffer));

	if (n <= 0)
		return false;
	(void)fwrite(buffer, 1, (size_t)n, stderr);
	return true;
}

static void relay_rest(int fd)
{
	struct pollfd left = {.fd = fd, .events = POLLIN};

	while (fd >= 0 && poll(&left, 1, 0) > 0 && relay(fd))
		;
}

/* Waits for the status; the monitor's path ends with a NUL. False: the child ended without it. */
static bool wait_until_running(int status, int errors, char *monitor, size_t room)
{
	struct pollfd fds[2] = {{.fd = status, .events = POLLIN}, {.fd = errors, .events = POLLIN}};
	size_t used = 0;

	for (;;) {
		if (poll(fds, 2, -1) < 0 && errno != EINTR)
			return false;
		if (fds[1].revents != 0 && !relay(errors))
			fds[1].fd = -1;
		fds[1].revents = 0;
		if (fds[0].revents != 0) {
			ssize_t n = read_some(status, monitor + used, room - used);

			if (n <= 0)
				return false;
			used += (size_t)n;
			if (monitor[used - 1] == '\0')
				return true;
			if (used == room)
				return false;
		}
		fds[0].revents = 0;
	}
}

static int exit_code_of(pid_t child)
{
	int status = 0;

	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int parent(pid_t child, int status, int errors, char *monitor, size_t room)
{
	struct sigaction action = {.sa_handler = forward_signal};
	int exit_code;
	bool running;

	waiting_for = child;
	(void)sigemptyset(&action.sa_mask);
	(void)sigaction(SIGINT, &action, NULL);
	(void)sigaction(SIGTERM, &action, NULL);
	(void)sigaction(SIGHUP, &action, NULL);
	running = wait_until_running(status, errors, monitor, room);
	relay_rest(errors);
	if (running)
		return EXIT_SUCCESS;
	exit_code = exit_code_of(child);
	/* Whatever it did: nobody may take it for a VM that runs. */
	return exit_code != EXIT_SUCCESS ? exit_code : EXIT_FAILURE;
}

static int become_child(int status, int errors, struct detach *detach)
{
	(void)setsid();
	put_at(open("/dev/null", O_RDWR), STDIN_FILENO);
	put_at(open("/dev/null", O_RDWR), STDOUT_FILENO);
	put_at(errors, STDERR_FILENO);
	detach->status = status;
	return DETACH_CHILD;
}

int detach_begin(
	const char *log, struct detach *detach, pid_t *child, char *monitor, size_t monitor_room)
{
	int status[2] = {-1, -1}, errors[2] = {-1, -1}, exit_code;

	*detach = (struct detach){.status = -1, .log = log};
	if (pipe2(status, O_CLOEXEC) < 0)
		return failed("pipe");
	if (log != NULL)
		errors[1] = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
	if (errors[1] < 0 && (log != NULL || pipe2(errors, O_CLOEXEC) < 0)) {
		close_fd(&status[0]);
		close_fd(&status[1]);
		return failed(log != NULL ? log : "pipe");
	}
	(void)fflush(NULL);
	*child = fork();
	if (*child == 0) {
		close_fd(&status[0]);
		close_fd(&errors[0]);
		return become_child(status[1], errors[1], detach);
	}
	close_fd(&status[1]);
	close_fd(&errors[1]);
	exit_code = *child > 0 ? parent(*child, status[0], errors[0], monitor, monitor_room)
			       : failed("fork");
	close_fd(&status[0]);
	close_fd(&errors[0]);
	if (exit_code != EXIT_SUCCESS && log != NULL)
		message(MESSAGE_ERROR, "failed; %s has the reason", log);
	return exit_code;
}

void detach_running(struct detach *detach, const char *monitor)
{
	if (detach->status < 0)
		return;
	(void)!write(detach->status, monitor, strlen(monitor) + 1);
	close_fd(&detach->status);
	if (detach->log != NULL)
		return;
	/* The parent is about to end, and with it the pipe that stderr is. */
	put_at(open("/dev/null", O_RDWR), STDERR_FILENO);
	message_to_syslog();
}
